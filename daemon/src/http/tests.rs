//! The document that clients are written from.

use super::document;

#[test]
fn the_openapi_document_names_every_route() {
    let document: serde_json::Value = serde_json::from_str(&document().unwrap()).unwrap();
    let described = document["paths"].as_object().unwrap();
    for route in [
        wtd_protocol::routes::WORKTREES,
        wtd_protocol::routes::REASSIGN,
        wtd_protocol::routes::REPOSITORIES,
        wtd_protocol::routes::EVENTS,
        wtd_protocol::routes::HEALTH,
        wtd_protocol::routes::CHECKS,
        wtd_protocol::routes::RELOAD,
        wtd_protocol::routes::METRICS,
    ] {
        assert!(described.contains_key(route), "{route} is not described");
    }
    assert_eq!(document["info"]["version"], wtd_protocol::VERSION);
}
