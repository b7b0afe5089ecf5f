//! Which worktree a path lies in, told from files alone.
//!
//! The walk upwards is git's (`setup_git_directory_gently` in `setup.c`): a `.git` file ends it even when it
//! leads nowhere, a `.git` directory that is no repository doesn't, and it stays on one file system.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::files::{self, ReadError, Unreadable};
use super::git_dir::{self, Found, GitDir};
use super::links::{self, DotGit};
use super::main_worktree;

/// The worktree, or the repository without one, that a path lies in. All paths are canonical.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Discovered {
    /// The repository's common dir.
    pub common_dir: PathBuf,
    /// The worktree's git dir: the common dir, or an entry of its `worktrees/`.
    pub git_dir: PathBuf,
    /// The worktree's root directory, as it was reached. None in a bare repository, and in a git dir whose
    /// worktree nothing names.
    pub root: Option<PathBuf>,
    /// The name of the entry in `worktrees/`; none for the main worktree and for a bare repository.
    pub linked_id: Option<OsString>,
}

/// Why no worktree was found.
#[derive(Debug, thiserror::Error)]
pub enum DiscoverError {
    /// Nothing is at the path.
    #[error("{}: no such file or directory", .0.display())]
    NotFound(PathBuf),
    /// The system refused a look, so it is unknown what is there.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The path that was looked at.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// No repository is at the path or above it.
    #[error("not in a git repository")]
    NotInAWorktree,
    /// The `.git` file, or the git dir that it names, is not complete: git is at work on it, or was
    /// interrupted there.
    #[error("{}: its .git does not lead to a complete git dir (yet); see `git status` there", root.display())]
    Unfinished {
        /// The directory with the `.git` file.
        root: PathBuf,
    },
    /// The `.git` file names a git dir that is not there, or that is no entry of its repository.
    #[error(
        "{}: its .git names {}, which is not its git dir; `git worktree repair` may help",
        root.display(), git_dir.display()
    )]
    Broken {
        /// The directory with the `.git` file.
        root: PathBuf,
        /// The git dir that the file names.
        git_dir: PathBuf,
    },
}

impl From<Unreadable> for DiscoverError {
    fn from(Unreadable { path, source }: Unreadable) -> Self {
        Self::Unreadable { path, source }
    }
}

/// Pauses before something unfinished is looked at again.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(10), Duration::from_millis(50), Duration::from_millis(250)];

/// As [`discover`], but what git is at work on is given up to a third of a second to be finished. Blocks.
pub fn discover_settled(path: &Path) -> Result<Discovered, DiscoverError> {
    for pause in PAUSES {
        match discover(path) {
            Err(DiscoverError::Unfinished { .. }) => files::pause(pause),
            settled => return settled,
        }
    }
    discover(path)
}

/// The worktree that `path` lies in.
pub fn discover(path: &Path) -> Result<Discovered, DiscoverError> {
    let unreadable = |error| DiscoverError::from(Unreadable::new(path, error));
    let canonical = fs::canonicalize(path).map_err(|error| {
        if files::is_absence(&error) { DiscoverError::NotFound(path.to_owned()) } else { unreadable(error) }
    })?;
    let mut device = None;
    for directory in canonical.ancestors() {
        let metadata = fs::metadata(directory).map_err(unreadable)?;
        if !metadata.is_dir() {
            continue;
        }
        if *device.get_or_insert(metadata.dev()) != metadata.dev() {
            break;
        }
        if let Some(discovered) = look_in(directory)? {
            return Ok(discovered);
        }
    }
    Err(DiscoverError::NotInAWorktree)
}

fn look_in(directory: &Path) -> Result<Option<Discovered>, DiscoverError> {
    let root = || directory.to_owned();
    match links::dot_git(directory)? {
        DotGit::File { git_dir, .. } => {
            return match git_dir::find(&git_dir)? {
                Found::GitDir(found) => reached_from(directory, found).map(Some),
                Found::Nothing => Err(DiscoverError::Broken { root: root(), git_dir }),
                Found::Other => Err(DiscoverError::Unfinished { root: root() }),
            };
        }
        DotGit::Directory { .. } => {
            if let Found::GitDir(found) = git_dir::find(&directory.join(".git"))? {
                return reached_from(directory, found).map(Some);
            }
        }
        DotGit::Unfinished { .. } => return Err(DiscoverError::Unfinished { root: root() }),
        DotGit::Absent | DotGit::Other => {}
    }
    match git_dir::find(directory)? {
        Found::GitDir(found) => inside(found).map(Some),
        Found::Nothing | Found::Other => Ok(None),
    }
}

/// `root` has a `.git` that leads to `found`.
fn reached_from(root: &Path, found: GitDir) -> Result<Discovered, DiscoverError> {
    if found.is_linked() {
        return linked(found, Some(root.to_owned()));
    }
    let root = main_worktree::root(&found.common_dir, Some(root));
    Ok(Discovered { common_dir: found.common_dir, git_dir: found.git_dir, root, linked_id: None })
}

/// The path lies in the git dir `found` itself.
fn inside(found: GitDir) -> Result<Discovered, DiscoverError> {
    if found.is_linked() {
        let root = root_named_by(&found.git_dir)?;
        return linked(found, root);
    }
    let root = main_worktree::root(&found.common_dir, None);
    Ok(Discovered { common_dir: found.common_dir, git_dir: found.git_dir, root, linked_id: None })
}

fn linked(found: GitDir, root: Option<PathBuf>) -> Result<Discovered, DiscoverError> {
    match found.linked_id() {
        Some(id) => {
            Ok(Discovered { common_dir: found.common_dir, git_dir: found.git_dir, root, linked_id: Some(id) })
        }
        None => Err(DiscoverError::Broken {
            root: root.unwrap_or_else(|| found.git_dir.clone()),
            git_dir: found.git_dir,
        }),
    }
}

/// The root that the admin dir `git_dir` names, provided that it points back.
fn root_named_by(git_dir: &Path) -> Result<Option<PathBuf>, Unreadable> {
    let path = git_dir.join("gitdir");
    let bytes = match files::read(&path) {
        Ok(bytes) => bytes,
        Err(ReadError::Io(error)) => return Err(Unreadable::new(&path, error)),
        Err(_) => return Ok(None),
    };
    let Some(root) = links::root_from_gitdir(&bytes, git_dir) else { return Ok(None) };
    let DotGit::File { git_dir: named, .. } = links::dot_git(&root)? else { return Ok(None) };
    let named = links::identity_at(&named)?;
    let points_back = named.is_some() && named == links::identity_at(git_dir)?;
    Ok(points_back.then(|| links::canonical(&root)))
}
