//! Which branch a worktree is on.

use std::path::Path;
use std::time::Instant;

use super::ask::AskError;
use super::files::ReadError;
use super::{ask, files};

/// Why it can't be told which branch a worktree is on.
#[derive(Debug, thiserror::Error)]
pub enum BranchError {
    /// `HEAD` can't be read.
    #[error("HEAD can't be read: {0}")]
    Unreadable(#[source] ReadError),
    /// Only git knows, and it doesn't say.
    #[error(transparent)]
    Unanswered(#[from] AskError),
}

/// The branch that is checked out in the worktree with this git dir, lossily where it is not UTF-8. None when `HEAD` is
/// detached or not there. Where only git knows, it has until `deadline` to say so.
pub fn branch(git_dir: &Path, deadline: Instant) -> Result<Option<String>, BranchError> {
    let head = match files::read(&git_dir.join("HEAD")) {
        Err(ReadError::NotFound) => return Ok(None),
        head => head.map_err(BranchError::Unreadable)?,
    };
    let Some(reference) = head.strip_prefix(b"ref:").map(<[u8]>::trim_ascii) else { return Ok(None) };
    // With `extensions.refStorage = reftable` the file is a stub, and only git knows.
    if reference == b"refs/heads/.invalid" {
        return Ok(ask::branch(git_dir, deadline)?);
    }
    let name = reference.strip_prefix(b"refs/heads/").unwrap_or(reference);
    Ok(Some(String::from_utf8_lossy(name).into_owned()))
}
