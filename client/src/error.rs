//! Errors for people: one line each, and the exit code that goes with it.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::PathBuf;

use wtd_protocol::{Problem, ProblemType};

/// Why a command failed. The text of each is `<why>; <what to do>`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The path is in no worktree.
    #[error("{} is not in a git worktree; run it in a worktree, or name one", .0.display())]
    NotInAWorktree(PathBuf),
    /// No daemon can be had, and nothing else could answer.
    #[error(transparent)]
    Unreachable(Unreachable),
    /// The daemon answered with a problem.
    #[error("{}", line(.0))]
    Problem(Problem),
    /// The command can't be run.
    #[error("{}: {why}; {remedy}", .command.display())]
    Exec {
        /// The command's name.
        command: OsString,
        /// The system's reason.
        why: io::Error,
        /// What to do about it.
        remedy: &'static str,
    },
    /// The output can't be written.
    #[error("the output can't be written: {0}; check where it is sent")]
    Output(#[source] io::Error),
    /// Anything else.
    #[error("{why}; {remedy}")]
    Failed {
        /// What failed, on what, and why.
        why: String,
        /// What to do about it.
        remedy: String,
    },
}

impl Error {
    /// A failure with its remedy.
    pub(crate) fn failed(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::Failed { why: why.into(), remedy: remedy.into() }
    }

    /// The exit code. 126 and 127 are those of shells (POSIX, Shell Command Language, 2.8.2).
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::NotInAWorktree(_) => 3,
            Self::Unreachable(_) => 4,
            Self::Problem(problem) => match problem.kind {
                ProblemType::NotInAWorktree => 3,
                ProblemType::Timeout | ProblemType::ShuttingDown => 4,
                ProblemType::OffsetsExhausted => 5,
                _ => 1,
            },
            Self::Exec { why, .. } if why.kind() == io::ErrorKind::NotFound => 127,
            Self::Exec { .. } => 126,
            Self::Output(_) | Self::Failed { .. } => 1,
        }
    }
}

/// Why there is no daemon.
#[derive(Debug, thiserror::Error)]
#[error("{why}; {remedy}")]
pub(crate) struct Unreachable {
    /// What was tried, and what came of it.
    pub(crate) why: String,
    /// What to do about it.
    pub(crate) remedy: String,
}

impl Unreachable {
    /// A failure with its remedy.
    pub(crate) fn new(why: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { why: why.into(), remedy: remedy.into() }
    }
}

/// A problem as `<why>; <what to do>`.
fn line(problem: &Problem) -> impl fmt::Display {
    fmt::from_fn(|f| {
        f.write_str(if problem.detail.is_empty() { &problem.title } else { &problem.detail })?;
        if problem.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", problem.remedy) }
    })
}
