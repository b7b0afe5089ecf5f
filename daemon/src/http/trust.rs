//! The handlers for trust.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State as FromContext};
use axum::response::Response;
use wtd_protocol::Problem;
use wtd_protocol::requests::{PathRequest, Revoked, Trust, TrustRequest};

use super::Context;
use super::problem::Answer;
use super::routes::{Body, absolute, from_json, to_json};

/// Tells what a worktree's configuration declares that takes trust, and whether it has it.
#[utoipa::path(get, path = "/v1/trust", params(
    ("path" = Option<String>, Query, description = "an absolute path in the worktree"),
    ("path_base64" = Option<String>, Query, description = "exact bytes of the path in base64; wins over `path`"),
), responses(
    (status = 200, description = "what takes trust", body = Trust),
    (status = "4XX", description = "no such worktree, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn show_trust(
    FromContext(context): FromContext<Context>,
    query: Result<Query<PathRequest>, QueryRejection>,
) -> Result<Response, Answer> {
    let Query(request) = query.map_err(|rejection| Answer::bad_request(rejection.body_text()))?;
    to_json(&context.service.trust(absolute(&request)?).await?)
}

/// Trusts the content of a worktree's configuration in its repository, if it is the one that a person was shown.
#[utoipa::path(put, path = "/v1/trust", request_body = TrustRequest, responses(
    (status = 200, description = "it is trusted", body = Trust),
    (status = "4XX", description = "no such worktree, not a request, or another content (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_trust(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: TrustRequest = from_json(body)?;
    let sha256 = request.sha256.parse().map_err(|error| Answer::bad_request(format!("sha256: {error}")))?;
    to_json(&context.service.put_trust(absolute(&request.path)?, sha256).await?)
}

/// Trusts nothing of the repository that holds a path any more. Files that were kept stay as they are.
#[utoipa::path(delete, path = "/v1/trust", request_body = PathRequest, responses(
    (status = 200, description = "nothing is trusted any more", body = Revoked),
    (status = "4XX", description = "no such repository, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn revoke_trust(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: PathRequest = from_json(body)?;
    to_json(&context.service.revoke_trust(absolute(&request)?).await?)
}
