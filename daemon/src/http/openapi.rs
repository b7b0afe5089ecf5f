//! The API in OpenAPI's own terms, from the handlers and types themselves.

use std::sync::LazyLock;

use axum::body::Bytes;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use utoipa::OpenApi;

use super::events::__path_events;
use super::gc::{__path_gc, __path_restore};
use super::metrics::__path_serve_metrics;
use super::routes::{
    __path_checks, __path_delete_compose, __path_forget_repository, __path_health, __path_list_repositories,
    __path_list_worktrees, __path_put_compose, __path_put_repository, __path_put_worktree, __path_reassign,
    __path_reload,
};
use super::seed::__path_seed;
use super::trust::{__path_put_trust, __path_revoke_trust, __path_show_trust};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "wtd",
        description = "A PORT_OFFSET, database and Compose project of its own for every git worktree."
    ),
    paths(
        put_worktree,
        list_worktrees,
        reassign,
        put_compose,
        delete_compose,
        list_repositories,
        put_repository,
        forget_repository,
        show_trust,
        put_trust,
        revoke_trust,
        gc,
        restore,
        seed,
        events,
        health,
        checks,
        reload,
        serve_metrics
    ),
    components(schemas(
        wtd_protocol::Problem,
        wtd_protocol::Change,
        wtd_protocol::gc::GcEvent,
        wtd_protocol::seed::SeedEvent
    ))
)]
struct Document;

/// The document, as JSON.
pub fn document() -> Result<String, serde_json::Error> {
    Document::openapi().to_pretty_json()
}

pub(super) async fn serve_document() -> Response {
    static DOCUMENT: LazyLock<Option<Bytes>> = LazyLock::new(|| document().ok().map(Bytes::from));
    match &*DOCUMENT {
        Some(json) => {
            let content_type = HeaderValue::from_static("application/json");
            ([(header::CONTENT_TYPE, content_type)], json.clone()).into_response()
        }
        None => axum::http::StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wtd_protocol::routes;

    use super::*;

    #[test]
    fn the_document_has_every_route_but_its_own() {
        let documented: BTreeSet<String> = Document::openapi().paths.paths.into_keys().collect();
        let routes = routes::ALL.iter().filter(|route| **route != routes::OPENAPI);
        assert_eq!(documented, routes.map(|route| (*route).to_owned()).collect());
    }
}
