//! What is counted, as Prometheus text.

use std::sync::Arc;

use axum::extract::State as FromContext;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use wtd_protocol::{State, routes as paths};

use super::Context;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    route: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// Counters and gauges; clones count together.
#[derive(Debug, Clone)]
pub struct Metrics {
    registry: Arc<Registry>,
    requests: Family<RequestLabels, Counter>,
    allocations: Family<StateLabel, Gauge>,
    repositories: Gauge,
    polled: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("wtd");
        let (requests, allocations, repositories, polled) =
            (Family::default(), Family::default(), Gauge::default(), Gauge::default());
        registry.register("requests", "Requests answered", Family::clone(&requests));
        registry.register("allocations", "Allocations by state", Family::clone(&allocations));
        registry.register("repositories", "Repositories watched", Gauge::clone(&repositories));
        registry.register(
            "polled_repositories",
            "Repositories polled for want of inotify watches",
            Gauge::clone(&polled),
        );
        Self { registry: Arc::new(registry), requests, allocations, repositories, polled }
    }
}

impl Metrics {
    /// Counts an answered request.
    pub(super) fn count(&self, method: &axum::http::Method, path: &str, status: StatusCode) {
        // Nobody's paths become labels.
        let route = paths::ALL.iter().find(|route| **route == path).copied().unwrap_or("other");
        let method = match method.as_str() {
            "GET" => "GET",
            "PUT" => "PUT",
            "POST" => "POST",
            "DELETE" => "DELETE",
            _ => "other",
        };
        self.requests.get_or_create(&RequestLabels { method, route, status: status.as_u16() }).inc();
    }
}

/// Counters and gauges in Prometheus' text format (OpenMetrics).
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "OpenMetrics text", body = String, content_type = "application/openmetrics-text")))]
pub(super) async fn serve_metrics(FromContext(context): FromContext<Context>) -> Response {
    let health = context.service.health();
    let metrics = &context.metrics;
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (state, count) in
        [(State::Active, health.active), (State::Missing, health.missing), (State::Stale, health.stale)]
    {
        metrics.allocations.get_or_create(&StateLabel { state: state.as_str() }).set(gauge(count));
    }
    metrics.repositories.set(gauge(health.repositories));
    metrics.polled.set(gauge(context.service.parts().reconciler.polled().len()));
    let mut text = String::new();
    let content_type = HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    match text::encode(&mut text, &metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, content_type)], text).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
