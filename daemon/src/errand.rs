//! Work that takes as long as it takes, for somebody who listens: it ends when nobody does.

use std::time::Duration;

use tokio::sync::mpsc;
use wtd_protocol::Problem;

use crate::engine::EngineError;
use crate::problem;
use crate::registry::WriteError;

/// How long a listener may leave an event unread before nobody is taken to listen.
const UNHEARD: Duration = Duration::from_secs(10);

/// Why an errand ends before its end.
#[derive(Debug)]
pub enum Stop {
    /// The person who asked is gone.
    Unheard,
    /// Something failed.
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Failed(problem::not_written(&error))
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Failed(problem::no_engine(&error))
    }
}

/// Tells who listens.
pub async fn tell<Event>(listener: &mpsc::Sender<Event>, event: Event) -> Result<(), Stop> {
    match tokio::time::timeout(UNHEARD, listener.send(event)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Stop::Unheard),
    }
}
