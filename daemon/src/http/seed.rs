//! Copies of volumes over HTTP.

use std::convert::Infallible;

use axum::body::{Body as AnswerBody, Bytes};
use axum::extract::State as FromContext;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use wtd_protocol::Problem;
use wtd_protocol::seed::{SeedEvent, SeedRequest};

use super::Context;
use super::problem::Answer;
use super::routes::{Body, absolute, from_json};

/// Fills a worktree's volumes with copies of another's. What can't be begun is a problem; the answer begins before the
/// work does, so what fails on the way is told in its last line. The work ends when the caller goes away.
#[utoipa::path(post, path = "/v1/seed", request_body = SeedRequest, responses(
    (status = 200, description = "one SeedEvent a line, the report last", body = SeedEvent, content_type = "application/x-ndjson"),
    (status = "4XX", description = "no such worktree, or a volume that can't be filled (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the container engine or the registry can't be asked", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn seed(FromContext(context): FromContext<Context>, body: Body) -> Result<Response, Answer> {
    let request: SeedRequest = from_json(body)?;
    let from = request.from.as_ref().map(absolute).transpose()?;
    let events = context.service.seed(absolute(&request.path)?, from, &request).await?;
    let stream = unfold(events, |mut events| async move {
        let event = events.recv().await?;
        // What can't be written ends the answer early, and so is noticed.
        let line = serde_json::to_string(&event).ok()? + "\n";
        Some((Ok::<_, Infallible>(Bytes::from(line)), events))
    });
    let lines = HeaderValue::from_static("application/x-ndjson");
    Ok(([(header::CONTENT_TYPE, lines)], AnswerBody::from_stream(stream)).into_response())
}
