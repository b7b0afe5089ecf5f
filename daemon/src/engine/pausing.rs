//! Halting a project's container where it is, and having it go on.

use std::time::Duration;

use bollard::query_parameters::InspectContainerOptions;

use super::EngineError;
use super::connection::{Connection, ContainerId, bounded, status};

/// How long the engine's answer to a pause is waited for. An engine carries out what it was asked for though nobody waits
/// any more, so whoever gives up early never hears that something is halted.
const ANSWERING: Duration = Duration::from_hours(1);

/// What came of having a container go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    /// It was halted, and goes on.
    Now,
    /// It was not halted.
    Before,
    /// There is no such container.
    Gone,
}

impl Connection {
    /// Halts every process of a container where it is. Has no end of its own for as long as an engine may hang.
    pub async fn pause(&self, id: &ContainerId) -> Result<(), EngineError> {
        let patient = self.docker.clone().with_timeout(ANSWERING);
        patient.pause_container(id.as_str()).await.map_err(|source| EngineError::of(&self.host, source))
    }

    /// Has a container go on.
    pub async fn resume(&self, id: &ContainerId) -> Result<Resumed, EngineError> {
        match bounded(&self.host, self.docker.unpause_container(id.as_str())).await {
            Ok(()) => Ok(Resumed::Now),
            // Which of these says that it is not halted differs between engines.
            Err(error) if matches!(status(&error), Some(404 | 409 | 500)) => match self.is_paused(id).await {
                Ok(Some(false)) => Ok(Resumed::Before),
                Ok(None) => Ok(Resumed::Gone),
                Ok(Some(true)) | Err(_) => Err(error),
            },
            Err(error) => Err(error),
        }
    }

    /// Whether a container is halted; none where it isn't there.
    async fn is_paused(&self, id: &ContainerId) -> Result<Option<bool>, EngineError> {
        let details = self.docker.inspect_container(id.as_str(), None::<InspectContainerOptions>);
        match bounded(&self.host, details).await {
            Ok(details) => Ok(Some(details.state.and_then(|state| state.paused).unwrap_or(false))),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl EngineError {
    /// Whether the engine has answered that it did not do what it was asked for, and will not.
    pub fn is_refusal(&self) -> bool {
        matches!(status(self), Some(404 | 409))
    }

    /// Whether the engine has answered at all.
    pub fn is_answer(&self) -> bool {
        status(self).is_some()
    }
}
