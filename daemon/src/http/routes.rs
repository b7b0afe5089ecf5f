//! The handlers.

use std::collections::HashSet;
use std::path::PathBuf;

use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query, State as FromContext};
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use wtd_protocol::requests::{
    ComposeRequest, ForgetRequest, Forgotten, PathRequest, ReassignRequest, Reloaded,
};
use wtd_protocol::{Allocation, Check, Health, Problem, ProblemType, Repository, State, Worktree};

use super::Context;
use super::problem::Answer;

pub(super) type Body = Result<Bytes, BytesRejection>;

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// JSON that is ready to be sent.
fn json(body: impl Into<axum::body::Body>) -> Response {
    ([(header::CONTENT_TYPE, JSON)], body.into()).into_response()
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Response, Answer> {
    serde_json::to_vec(value).map(json).map_err(|error| {
        Problem::new(ProblemType::Internal, error.to_string(), "report this as a defect of wtd").into()
    })
}

/// The request's body, which can be nothing but JSON.
pub(super) fn from_json<T: DeserializeOwned>(body: Body) -> Result<T, Answer> {
    let body =
        body.map_err(|rejection| Answer::unreadable_body(rejection.status(), rejection.body_text()))?;
    serde_json::from_slice(&body)
        .map_err(|error| Answer::bad_request(format!("the body is not what is asked for: {error}")))
}

pub(super) fn absolute(request: &PathRequest) -> Result<PathBuf, Answer> {
    let path = request.path().map_err(|error| Answer::bad_request(error.to_string()))?;
    if path.is_absolute() { Ok(path) } else { Err(Answer::bad_request("the path has to be absolute")) }
}

/// Gives the allocation of the worktree that holds a path, made if need be.
#[utoipa::path(put, path = "/v1/worktrees", request_body = PathRequest, responses(
    (status = 200, description = "the allocation", body = Allocation),
    (status = "4XX", description = "no such worktree, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "no offset is left (507), or the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_worktree(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: PathRequest = from_json(body)?;
    Ok(json(context.service.allocation(absolute(&request)?).await?))
}

#[derive(Debug, Deserialize)]
pub(super) struct ListQuery {
    state: Option<String>,
}

/// Lists worktrees, oldest allocation first.
#[utoipa::path(get, path = "/v1/worktrees", params(
    ("state" = Option<String>, Query, description = "states to list, joined by commas; without it every state, with the latest 1000 released allocations"),
), responses(
    (status = 200, description = "the worktrees", body = Vec<Worktree>),
    (status = "4XX", description = "not a state", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be read", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn list_worktrees(
    FromContext(context): FromContext<Context>,
    query: Result<Query<ListQuery>, axum::extract::rejection::QueryRejection>,
) -> Result<Response, Answer> {
    let Query(query) = query.map_err(|rejection| Answer::bad_request(rejection.body_text()))?;
    let states = match &query.state {
        None => HashSet::from([State::Active, State::Missing, State::Stale, State::Released]),
        Some(words) => words
            .split(',')
            .map(|word| {
                State::from_word(word).ok_or_else(|| Answer::bad_request(format!("{word:?} is not a state")))
            })
            .collect::<Result<_, _>>()?,
    };
    to_json(&context.service.worktrees(&states).await?)
}

/// Gives a worktree another offset.
#[utoipa::path(post, path = "/v1/worktrees/reassign", request_body = ReassignRequest, responses(
    (status = 200, description = "the new allocation", body = Allocation),
    (status = "4XX", description = "no such worktree, or its volume exists (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "no offset is left (507), or the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reassign(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: ReassignRequest = from_json(body)?;
    let path = absolute(&request.path)?;
    Ok(json(context.service.reassign(path, request.force, &request.engine).await?))
}

/// Records the Compose override of a worktree, and puts it into its git dir.
#[utoipa::path(put, path = "/v1/worktrees/compose", request_body = ComposeRequest, responses(
    (status = 200, description = "the allocation, with the override", body = Allocation),
    (status = "4XX", description = "no such worktree, or a port is another allocation's (409)", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_compose(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: ComposeRequest = from_json(body)?;
    let path = absolute(&request.path)?;
    Ok(json(context.service.set_override(path, request).await?))
}

/// Takes the Compose override of a worktree away.
#[utoipa::path(delete, path = "/v1/worktrees/compose", request_body = PathRequest, responses(
    (status = 200, description = "the allocation, without an override", body = Allocation),
    (status = "4XX", description = "no such worktree, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn delete_compose(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: PathRequest = from_json(body)?;
    Ok(json(context.service.remove_override(absolute(&request)?).await?))
}

/// Lists the repositories that are watched.
#[utoipa::path(get, path = "/v1/repositories", responses(
    (status = 200, description = "the repositories, by path", body = Vec<Repository>),
))]
pub(super) async fn list_repositories(
    FromContext(context): FromContext<Context>,
) -> Result<Response, Answer> {
    to_json(&context.service.repositories())
}

/// Watches the repository that holds a path.
#[utoipa::path(put, path = "/v1/repositories", request_body = PathRequest, responses(
    (status = 200, description = "the repository", body = Repository),
    (status = "4XX", description = "no such repository, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn put_repository(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: PathRequest = from_json(body)?;
    let path = absolute(&request)?;
    let common_dir = context.service.add(path.clone()).await?;
    let repository = context.service.repository(&common_dir).ok_or_else(|| {
        let detail = format!("{} holds no repository any more", path.display());
        Problem::new(ProblemType::NotInAWorktree, detail, "check the path")
    })?;
    to_json(&repository)
}

/// Forgets a repository, or one worktree of it that is missing. Its allocations become stale; no data is touched.
#[utoipa::path(delete, path = "/v1/repositories", request_body = ForgetRequest, responses(
    (status = 200, description = "what was (or would be) forgotten", body = Forgotten),
    (status = "4XX", description = "not watched, or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be written", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn forget_repository(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    let request: ForgetRequest = from_json(body)?;
    to_json(&context.service.forget(absolute(&request.path)?, request.dry_run).await?)
}

/// What the daemon is and how it fares.
#[utoipa::path(get, path = "/v1/health", responses((status = 200, description = "it answers", body = Health)))]
pub(super) async fn health(FromContext(context): FromContext<Context>) -> Result<Response, Answer> {
    to_json(&context.service.health().await)
}

/// The checks that only the daemon can make.
#[utoipa::path(get, path = "/v1/checks", responses((status = 200, description = "every check", body = Vec<Check>)))]
pub(super) async fn checks(FromContext(context): FromContext<Context>) -> Result<Response, Answer> {
    to_json(&context.service.checks().await)
}

/// Reads the daemon's configuration again and puts it in force.
#[utoipa::path(post, path = "/v1/reload", request_body(content = serde_json::Value, description = "an object; nothing in it means anything yet"), responses(
    (status = 200, description = "what has changed", body = Reloaded),
    (status = "4XX", description = "the configuration is invalid (409), or not a request", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the daemon is about to end", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn reload(
    FromContext(context): FromContext<Context>,
    body: Body,
) -> Result<Response, Answer> {
    from_json::<serde_json::Map<String, serde_json::Value>>(body)?;
    to_json(&context.service.reload().await?)
}
