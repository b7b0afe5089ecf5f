//! Problems as HTTP responses.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use wtd_protocol::{Problem, ProblemType, problem};

/// A problem on its way out (RFC 9457).
#[derive(Debug)]
pub(super) struct Answer(Problem);

impl From<Problem> for Answer {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl Answer {
    /// A request that can't be understood.
    pub(super) fn bad_request(detail: impl Into<String>) -> Self {
        Problem::new(ProblemType::BadRequest, detail, "see /v1/openapi.json").into()
    }

    /// A body that is not read at all, with the status that says why.
    pub(super) fn unreadable_body(status: StatusCode, detail: impl Into<String>) -> Self {
        let mut problem = Problem::new(ProblemType::UnreadableBody, detail, "see /v1/openapi.json");
        problem.status = status.as_u16();
        problem.into()
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = status.as_u16(), detail = %self.0.detail, "request failed");
        }
        let content_type = HeaderValue::from_static(problem::MEDIA_TYPE);
        match serde_json::to_vec(&self.0) {
            Ok(body) => (status, [(header::CONTENT_TYPE, content_type)], body).into_response(),
            Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        }
    }
}
