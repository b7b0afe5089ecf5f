//! What makes a directory a git dir.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use super::files::{self, ReadError, Unreadable};
use super::links;

/// A git dir and the repository that it belongs to.
#[derive(Debug)]
pub(super) struct GitDir {
    /// The git dir, canonical.
    pub(super) git_dir: PathBuf,
    /// Its common dir, canonical: the git dir itself for a main worktree or a bare repository.
    pub(super) common_dir: PathBuf,
}

impl GitDir {
    /// Whether this is a linked worktree's.
    pub(super) fn is_linked(&self) -> bool {
        self.git_dir != self.common_dir
    }

    /// The entry of `worktrees/` that a linked worktree's git dir is; none when it isn't one.
    pub(super) fn linked_id(&self) -> Option<OsString> {
        let is_entry = self.git_dir.parent()? == self.common_dir.join("worktrees");
        if is_entry { self.git_dir.file_name().map(ToOwned::to_owned) } else { None }
    }
}

/// What a directory is, as a git dir.
#[derive(Debug)]
pub(super) enum Found {
    /// A git dir.
    GitDir(GitDir),
    /// Nothing is at the path.
    Nothing,
    /// No git dir, or none yet.
    Other,
}

/// Tells whether `path` is a git dir.
pub(super) fn find(path: &Path) -> Result<Found, Unreadable> {
    if !has_head(path)? {
        return Ok(match links::identity_at(path)? {
            Some(_) => Found::Other,
            None => Found::Nothing,
        });
    }
    let git_dir = canonical(path)?;
    let common_dir = match files::read(&git_dir.join("commondir")) {
        Ok(bytes) => match links::common_dir_from(&bytes, &git_dir) {
            Some(named) if links::identity_at(&named)?.is_some() => canonical(&named)?,
            _ => return Ok(Found::Other),
        },
        Err(ReadError::NotFound) => git_dir.clone(),
        Err(ReadError::NotRegular | ReadError::TooLarge(_)) => return Ok(Found::Other),
        Err(ReadError::Io(error)) => return Err(Unreadable::new(&git_dir.join("commondir"), error)),
    };
    // The look first, since it tells "not there" from "can't be told", and since nothing that it passes can
    // hold up the judge. The judge wants a working directory, even for an absolute path; ours may be gone.
    let judged = || gix_discover::is_git(&common_dir).is_ok() || std::env::current_dir().is_err();
    if is_repository(&common_dir)? && judged() {
        Ok(Found::GitDir(GitDir { git_dir, common_dir }))
    } else {
        Ok(Found::Other)
    }
}

/// Whether `common_dir` holds what git asks of a repository: `HEAD`, `objects` and `refs`
/// (`gitrepository-layout(5)`).
pub(super) fn is_repository(common_dir: &Path) -> Result<bool, Unreadable> {
    Ok(has_head(common_dir)?
        && is_directory(&common_dir.join("objects"))?
        && is_directory(&common_dir.join("refs"))?
        && is_plain_or_absent(&common_dir.join("commondir"))?
        && is_plain_or_absent(&common_dir.join("gitdir"))?)
}

fn has_head(git_dir: &Path) -> Result<bool, Unreadable> {
    let head = git_dir.join("HEAD");
    let found = links::present(fs::metadata(&head)).map_err(|error| Unreadable::new(&head, error))?;
    Ok(found.is_some_and(|metadata| is_plain(&metadata)))
}

fn is_plain_or_absent(path: &Path) -> Result<bool, Unreadable> {
    let found = links::present(fs::metadata(path)).map_err(|error| Unreadable::new(path, error))?;
    Ok(found.is_none_or(|metadata| is_plain(&metadata)))
}

fn is_plain(metadata: &fs::Metadata) -> bool {
    metadata.is_file() && metadata.len() <= files::MAX_BYTES as u64
}

fn is_directory(path: &Path) -> Result<bool, Unreadable> {
    let found = links::present(fs::metadata(path)).map_err(|error| Unreadable::new(path, error))?;
    Ok(found.is_some_and(|metadata| metadata.is_dir()))
}

fn canonical(path: &Path) -> Result<PathBuf, Unreadable> {
    fs::canonicalize(path).map_err(|error| Unreadable::new(path, error))
}
