//! The API: HTTP/1.1 and JSON over the Unix socket. Handlers take a request apart, call the [`Service`], and put the
//! answer together; they decide nothing.

mod events;
mod gc;
mod guard;
mod metrics;
mod openapi;
mod problem;
mod routes;
mod seed;
mod serve;
mod trust;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use wtd_protocol::{Problem, ProblemType, routes as paths};

pub use metrics::Metrics;
pub use openapi::document;
pub use serve::{Listener, serve};

use crate::service::Service;

/// The largest request body that is read, in bytes: paths are 4,096 bytes at most (`PATH_MAX`), base64 makes them
/// a third longer, and JSON escapes six times.
const MAX_BODY: usize = 64 * 1024;

/// The same where the body holds a Compose override, which JSON escapes.
const MAX_COMPOSE_BODY: usize = 2 * wtd_protocol::compose::MAX_BYTES;

/// What handlers work with.
#[derive(Debug, Clone)]
pub struct Context {
    /// The daemon's services.
    pub service: Service,
    /// What is counted.
    pub metrics: Metrics,
    /// Turns true when the daemon is about to end, so that streams end too.
    pub ending: tokio::sync::watch::Receiver<bool>,
}

/// All routes.
pub fn router(context: Context) -> Router {
    Router::new()
        .route(paths::WORKTREES, get(routes::list_worktrees).put(routes::put_worktree))
        .route(paths::REASSIGN, post(routes::reassign))
        .route(
            paths::COMPOSE,
            put(routes::put_compose)
                .delete(routes::delete_compose)
                .layer(DefaultBodyLimit::max(MAX_COMPOSE_BODY)),
        )
        .route(
            paths::REPOSITORIES,
            get(routes::list_repositories).put(routes::put_repository).delete(routes::forget_repository),
        )
        .route(paths::TRUST, get(trust::show_trust).put(trust::put_trust).delete(trust::revoke_trust))
        .route(paths::GC, post(gc::gc).layer(DefaultBodyLimit::max(gc::MAX_BODY)))
        .route(paths::RESTORE, post(gc::restore))
        .route(paths::SEED, post(seed::seed))
        .route(paths::EVENTS, get(events::events))
        .route(paths::HEALTH, get(routes::health))
        .route(paths::CHECKS, get(routes::checks))
        .route(paths::RELOAD, post(routes::reload))
        .route(paths::OPENAPI, get(openapi::serve_document))
        .route(paths::METRICS, get(metrics::serve_metrics))
        .fallback(unknown_route)
        .method_not_allowed_fallback(unknown_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .with_state(context)
}

async fn unknown_route(uri: axum::http::Uri) -> problem::Answer {
    let path = uri.path();
    let version = path.strip_prefix("/v").and_then(|rest| rest.split('/').next());
    let detail = match version {
        Some(version)
            if !version.is_empty() && version != "1" && version.bytes().all(|b| b.is_ascii_digit()) =>
        {
            format!("this daemon ({}) speaks version 1 of the API, not {version}", wtd_protocol::VERSION)
        }
        _ => format!("there is nothing at {path}"),
    };
    Problem::new(ProblemType::UnknownRoute, detail, "see /v1/openapi.json").into()
}

async fn unknown_method(method: axum::http::Method, uri: axum::http::Uri) -> problem::Answer {
    let mut problem = Problem::new(
        ProblemType::UnknownRoute,
        format!("{method} is nothing that {} does", uri.path()),
        "see /v1/openapi.json",
    );
    problem.status = 405;
    problem.into()
}

#[cfg(test)]
mod tests;
