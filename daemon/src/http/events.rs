//! Changes of allocations as server-sent events.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State as FromContext;
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::warn;
use wtd_protocol::{Change, Problem, ProblemType};

use super::Context;
use super::problem::Answer;
use crate::store::{History, StoreError};

/// How many past changes are read at a time.
const PAGE: u32 = 500;

/// A comment is sent this often, so that a reader that has gone away is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// A reader's place in the stream. The history is the truth; the channel says when there is more of it.
struct Reader {
    history: History,
    changes: Receiver<Arc<Change>>,
    ending: tokio::sync::watch::Receiver<bool>,
    /// The last change that was taken up.
    last: i64,
    waiting: VecDeque<Arc<Change>>,
    /// There may be more in the history than what is waiting.
    behind: bool,
}

/// Follows changes live; with `Last-Event-ID`, from that change on.
#[utoipa::path(get, path = "/v1/events", params(
    ("Last-Event-ID" = Option<i64>, Header, description = "the last change that the reader has"),
), responses(
    (status = 200, description = "one event for each change: `id` its sequence, `event` its kind, `data` a Change", body = Change, content_type = "text/event-stream"),
    (status = "4XX", description = "not a sequence", body = Problem, content_type = "application/problem+json"),
    (status = "5XX", description = "the registry can't be read", body = Problem, content_type = "application/problem+json"),
))]
pub(super) async fn events(
    FromContext(context): FromContext<Context>,
    headers: HeaderMap,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Answer> {
    // Subscribed before the history is read, so that nothing falls between the two.
    let changes = context.service.changes();
    let resume =
        headers.get("last-event-id").map(|value| value.to_str().ok().and_then(|text| text.parse().ok()));
    if resume == Some(None) {
        return Err(Answer::bad_request("Last-Event-ID is not the sequence of a change"));
    }
    let problem = |error: StoreError| {
        Problem::new(ProblemType::RegistryUnavailable, error.to_string(), "see `wtd-client doctor`")
    };
    let latest = context.service.history().latest().await.map_err(problem)?;
    let (last, behind) = match resume.flatten() {
        // A number above the latest comes from another registry, in whose place this one is.
        Some(sequence) => (latest.min(sequence), true),
        None => (latest, false),
    };
    let reader = Reader {
        history: context.service.history().clone(),
        changes,
        ending: context.ending.clone(),
        last,
        waiting: VecDeque::new(),
        behind,
    };
    let stream = unfold(reader, |mut reader| async {
        let change = reader.next().await?;
        let event = Event::default().id(change.sequence.to_string()).event(change.kind.as_str());
        let event = event.json_data(&*change).ok()?;
        Some((Ok(event), reader))
    });
    Ok(Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

impl Reader {
    /// The next change; none when the daemon ends or the history can't be read.
    async fn next(&mut self) -> Option<Arc<Change>> {
        loop {
            if let Some(change) = self.waiting.pop_front() {
                if change.sequence <= self.last {
                    continue;
                }
                self.last = change.sequence;
                return Some(change);
            }
            if self.behind {
                let page = self.history.after(self.last, PAGE).await.inspect_err(|error| {
                    warn!(error = error as &dyn std::error::Error, "event stream ended: no history");
                });
                let page = page.ok()?;
                self.behind = !page.is_empty();
                self.waiting.extend(page.into_iter().map(Arc::new));
                continue;
            }
            tokio::select! {
                changed = self.ending.changed() => {
                    if changed.is_err() || *self.ending.borrow() {
                        return None;
                    }
                }
                received = self.changes.recv() => match received {
                    Ok(change) => self.waiting.push_back(change),
                    Err(RecvError::Lagged(_)) => self.behind = true,
                    Err(RecvError::Closed) => return None,
                },
            }
        }
    }
}
