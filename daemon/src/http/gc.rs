//! gc over HTTP.

use std::convert::Infallible;

use axum::body::{Body as AnswerBody, Bytes};
use axum::extract::State as FromContext;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use tokio::sync::mpsc::Receiver;
use wtd_protocol::Problem;
use wtd_protocol::gc::{GcEvent, GcReport, GcRequest, RestoreRequest, Restored};

use super::Context;
use super::problem::Answer;
use super::routes::{Body, from_json, to_json};

/// The largest request that is read, in bytes: it names everything that a person was shown.
pub(super) const MAX_BODY: usize = 8 * 1024 * 1024;

/// Lists what removed worktrees left and what would become of it; with `dry_run: false`, drops what is to be dropped.
#[utoipa::path(post, path = "/v1/gc", request_body = GcRequest, responses(
    (status = 200, description = "the plan, or what came of it; with `progress`, one GcEvent a line, the report last", content((GcReport = "application/json"), (GcEvent = "application/x-ndjson"))),
    (status = "4XX", description = "not a request, or another gc is under way (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the container engine or the registry can't be asked", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn gc(FromContext(context): FromContext<Context>, body: Body) -> Result<Response, Answer> {
    let request: GcRequest = from_json(body)?;
    let gc = context.service.gc();
    let wish = gc.wish(&request)?;
    if request.dry_run {
        return to_json(&gc.plan(&wish).await?);
    }
    let events = gc.begin(wish).await?;
    let media_type = if request.progress { "application/x-ndjson" } else { "application/json" };
    let stream = unfold((events, request.progress), |(mut events, each)| async move {
        next(&mut events, each).await.map(|piece| (Ok::<_, Infallible>(piece), (events, each)))
    });
    let body = AnswerBody::from_stream(stream);
    Ok(([(header::CONTENT_TYPE, HeaderValue::from_static(media_type))], body).into_response())
}

/// Brings a volume back from a file that gc wrote. What can't be begun is a problem; the answer begins before the work
/// does, so what fails on the way is told in it.
#[utoipa::path(post, path = "/v1/restore", request_body = RestoreRequest, responses(
    (status = 200, description = "the volume, or in `failure` why there is none", body = Restored),
    (status = "4XX", description = "no such file, not a backup, or the volume exists (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the container engine can't be asked", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn restore(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: RestoreRequest = from_json(body)?;
    let restore = context.service.gc().restore(&request).await?;
    // By itself: a client that goes away must not leave half a volume.
    let done = tokio::spawn(restore.run());
    let stream = futures_util::stream::once(async {
        let restored = match done.await {
            Ok(Ok(restored)) => restored,
            Ok(Err(problem)) => Restored { failure: Some(problem), ..Restored::default() },
            Err(error) => return Err(std::io::Error::other(error)),
        };
        serde_json::to_vec(&restored).map(Bytes::from).map_err(std::io::Error::other)
    });
    let json = HeaderValue::from_static("application/json");
    Ok(([(header::CONTENT_TYPE, json)], AnswerBody::from_stream(stream)).into_response())
}

/// The next piece of the answer: a line for each event, or nothing before the report.
async fn next(events: &mut Receiver<GcEvent>, each: bool) -> Option<Bytes> {
    loop {
        let event = events.recv().await?;
        let text = match (&event, each) {
            (event, true) => serde_json::to_string(event).map(|line| line + "\n"),
            (GcEvent::Report(report), false) => serde_json::to_string(report),
            (_, false) => continue,
        };
        // What can't be written ends the answer early, and so is noticed.
        return text.ok().map(Bytes::from);
    }
}
