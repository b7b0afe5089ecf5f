//! What is counted, as Prometheus text.

use std::sync::Arc;

use axum::extract::State as FromContext;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
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

/// Counters and gauges in Prometheus' text format, or in OpenMetrics' for who asks for that.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "counters and gauges", content((String = "text/plain"), (String = "application/openmetrics-text")))))]
pub(super) async fn serve_metrics(
    FromContext(context): FromContext<Context>,
    headers: HeaderMap,
) -> Response {
    let health = context.service.health().await;
    let metrics = &context.metrics;
    let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    for (state, count) in
        [(State::Active, health.active), (State::Missing, health.missing), (State::Stale, health.stale)]
    {
        metrics.allocations.get_or_create(&StateLabel { state: state.as_str() }).set(gauge(count));
    }
    metrics.repositories.set(gauge(health.repositories));
    metrics.polled.set(gauge(context.service.polled()));
    let mut text = String::new();
    if text::encode(&mut text, &metrics.registry).is_err() {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let content_type = if accepts.contains("application/openmetrics-text") {
        "application/openmetrics-text; version=1.0.0; charset=utf-8"
    } else {
        text = as_plain_text(&text);
        "text/plain; version=0.0.4; charset=utf-8"
    };
    ([(header::CONTENT_TYPE, HeaderValue::from_static(content_type))], text).into_response()
}

/// From OpenMetrics to Prometheus' older text format, in which a counter is described by the name of its samples, and
/// nothing tells the end.
fn as_plain_text(open_metrics: &str) -> String {
    let described = |line: &str| {
        let (what, rest) = line.strip_prefix("# ")?.split_once(' ')?;
        let (name, rest) = rest.split_once(' ')?;
        let is_counter = open_metrics.contains(&format!("# TYPE {name} counter\n"));
        (matches!(what, "HELP" | "TYPE") && is_counter).then(|| format!("# {what} {name}_total {rest}\n"))
    };
    let lines = open_metrics.lines().filter(|line| *line != "# EOF");
    lines.map(|line| described(line).unwrap_or_else(|| format!("{line}\n"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_older_format_describes_counters_by_the_name_of_their_samples() {
        let metrics = Metrics::default();
        metrics.count(&axum::http::Method::GET, paths::SEED, StatusCode::OK);
        metrics.count(&axum::http::Method::GET, "/somebodys/path", StatusCode::NOT_FOUND);
        let mut text = String::new();
        text::encode(&mut text, &metrics.registry).unwrap();
        let plain = as_plain_text(&text);
        for line in [
            "# TYPE wtd_requests_total counter",
            "# TYPE wtd_repositories gauge",
            r#"wtd_requests_total{method="GET",route="/v1/seed",status="200"} 1"#,
            r#"wtd_requests_total{method="GET",route="other",status="404"} 1"#,
        ] {
            assert!(plain.lines().any(|it| it == line), "{line}\n{plain}");
        }
        assert!(!plain.contains("EOF") && !plain.contains("wtd_requests "), "{plain}");
    }
}
