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

/// What to do about a container engine that gives no answer.
pub const REACH_ENGINE: &str =
    "start it, or name another one: by `engine` in the daemon's configuration, else in DOCKER_HOST";

/// The container engine gave no answer, or could not do what it was asked to.
pub fn no_engine(error: &EngineError) -> Problem {
    let remedy =
        if error.is_answer() { "mend what it says where it runs, then run it again" } else { REACH_ENGINE };
    Problem::new(ProblemType::EngineUnavailable, error.to_string(), remedy)
}

/// The daemon ends.
pub fn shutting_down() -> Problem {
    Problem::new(ProblemType::ShuttingDown, "the daemon is shutting down", "ask again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Host;

    #[test]
    fn nobody_is_told_to_start_an_engine_that_has_answered() {
        let host = || Host::new("unix:///run/docker.sock").unwrap();
        let message = "no space left on device".to_owned();
        let source = bollard::errors::Error::DockerResponseServerError { status_code: 500, message };
        let full = no_engine(&EngineError::Failed { host: host(), source });
        assert!(full.detail.ends_with("it answered 500: no space left on device"), "{full:?}");
        assert!(full.remedy.starts_with("mend what it says"), "{full:?}");
        assert!(no_engine(&EngineError::TimedOut(host())).remedy.starts_with("start it"));
    }
}
