//! Writing Compose overrides into git dirs: out of the work tree, where no commit picks them up, and gone with the
//! worktree.

use std::io;
use std::path::Path;

use tracing::debug;
use wtd_protocol::compose::{FILE_NAME, MAX_BYTES};

use super::allocation_file::replace;
use crate::git::files::{self, ReadError};

/// An override that has taken the place of another, and can give it back.
#[derive(Debug)]
pub struct Written<'a> {
    git_dir: &'a Path,
    before: Option<Vec<u8>>,
}

/// Puts an override into a git dir, by rename.
pub fn write<'a>(git_dir: &'a Path, text: &str) -> io::Result<Written<'a>> {
    let before = match files::read_no_follow_up_to(&git_dir.join(FILE_NAME), MAX_BYTES) {
        Ok(before) => Some(before),
        Err(ReadError::Io(error)) => return Err(error),
        Err(_) => None,
    };
    replace(git_dir, FILE_NAME, text.as_bytes())?;
    Ok(Written { git_dir, before })
}

impl Written<'_> {
    /// Undoes the write: the registry did not take the override.
    pub fn undo(self) {
        let undone = match self.before {
            Some(before) => replace(self.git_dir, FILE_NAME, &before),
            None => std::fs::remove_file(self.git_dir.join(FILE_NAME)),
        };
        told(self.git_dir, undone);
    }
}

/// Deletes the override, if it is there. What is left of one without its record is nobody's.
pub fn remove(git_dir: &Path) {
    told(git_dir, std::fs::remove_file(git_dir.join(FILE_NAME)));
}

fn told(git_dir: &Path, done: io::Result<()>) {
    if let Err(error) = done
        && error.kind() != io::ErrorKind::NotFound
    {
        debug!(git_dir = %git_dir.display(), error = &error as &dyn std::error::Error, "Compose override left");
    }
}
