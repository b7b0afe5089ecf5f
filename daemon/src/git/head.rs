//! Which branch a worktree is on.

use std::path::Path;
use std::time::Instant;

use super::{ask, files};

/// The branch that is checked out in the worktree with this git dir, lossily where it is not UTF-8. None when
/// `HEAD` is detached or can't be read, and when only git knows and does not say until `deadline`.
pub fn branch(git_dir: &Path, deadline: Instant) -> Option<String> {
    let head = files::read(&git_dir.join("HEAD")).ok()?;
    let reference = head.strip_prefix(b"ref:")?.trim_ascii();
    // With `extensions.refStorage = reftable` the file is a stub, and only git knows.
    if reference == b"refs/heads/.invalid" {
        return ask::branch(git_dir, deadline).ok();
    }
    let name = reference.strip_prefix(b"refs/heads/").unwrap_or(reference);
    Some(String::from_utf8_lossy(name).into_owned())
}
