//! Failures that any part can meet, in the words in which a caller hears of them.

use wtd_protocol::{Problem, ProblemType};

use crate::engine::EngineError;
use crate::registry::WriteError;

/// Nothing was written to the registry.
pub fn not_written(error: &WriteError) -> Problem {
    match error {
        WriteError::Store(why) => Problem::new(
            ProblemType::RegistryUnavailable,
            why.to_string(),
            "see that the state directory has room and can be written, then ask again",
        ),
        WriteError::Overlap(_) | WriteError::Panicked => {
            Problem::new(ProblemType::Internal, error.to_string(), "report this as a defect of wtd")
        }
        WriteError::ShuttingDown => Problem::new(ProblemType::ShuttingDown, error.to_string(), "ask again"),
    }
}

/// The container engine gave no answer.
pub fn no_engine(error: &EngineError) -> Problem {
    Problem::new(ProblemType::EngineUnavailable, error.to_string(), "start it, or name it in DOCKER_HOST")
}

/// The daemon ends.
pub fn shutting_down() -> Problem {
    Problem::new(ProblemType::ShuttingDown, "the daemon is shutting down", "ask again")
}
