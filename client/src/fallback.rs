//! The allocation file as the answer when no daemon can be had: `wtd.json` in the worktree's git dir.
//!
//! A small reader of git's own files, since git takes longer to start than all of this. It finds what
//! gitrepository-layout(5) describes, and takes a file only when it names this very worktree.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use wtd_protocol::AllocationFile;
use wtd_protocol::allocation_file::{FILE_NAME, MAX_BYTES};

/// Largest `.git` file that is read, in bytes: one line with a path.
const MAX_GIT_FILE_BYTES: usize = 16 * 1024;

/// What the files say about a path.
#[derive(Debug)]
pub(crate) enum Found {
    /// The path is in no worktree.
    Outside,
    /// The path is in a worktree, and its allocation file is good.
    Allocation(AllocationFile),
}

/// Why the files give no answer.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub(crate) struct FallbackError {
    path: PathBuf,
    why: String,
}

impl FallbackError {
    fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// The allocation of the worktree that holds `path`, from its allocation file.
pub(crate) fn find(path: &Path) -> Result<Found, FallbackError> {
    let path = path.canonicalize().map_err(|error| FallbackError::new(path, error.to_string()))?;
    for root in path.ancestors() {
        if is_git_dir(root) {
            return Ok(Found::Outside);
        }
        let dot_git = root.join(".git");
        let git_dir = match dot_git.metadata() {
            Ok(found) if found.is_dir() && is_git_dir(&dot_git) => dot_git,
            Ok(found) if found.is_file() => read_git_file(root, &dot_git)?,
            _ => continue,
        };
        let file = git_dir.join(FILE_NAME);
        let bytes = read(&file, MAX_BYTES)?;
        let allocation =
            AllocationFile::parse(&bytes).map_err(|error| FallbackError::new(&file, error.to_string()))?;
        if !allocation.names(root) {
            return Err(match allocation.path().filter(|original| is_worktree_of(original, &git_dir)) {
                Some(original) => FallbackError::new(
                    root,
                    format!("it is a copy of the worktree {}, which is still there", original.display()),
                ),
                None => FallbackError::new(&file, "it is about another worktree"),
            });
        }
        return Ok(Found::Allocation(allocation));
    }
    Ok(Found::Outside)
}

/// Whether `dir` is a git dir by git's own test: `HEAD`, `objects` and `refs` are there. A linked worktree's git
/// dir has no `objects`; it lies inside of a common dir, which is found above it.
fn is_git_dir(dir: &Path) -> bool {
    dir.join("HEAD").symlink_metadata().is_ok() && dir.join("objects").is_dir() && dir.join("refs").is_dir()
}

/// Whether the `.git` file of the directory `root` names this git dir.
fn is_worktree_of(root: &Path, git_dir: &Path) -> bool {
    let named = read_git_file(root, &root.join(".git")).ok().and_then(|named| named.canonicalize().ok());
    named.is_some() && named == git_dir.canonicalize().ok()
}

/// The git dir that a `.git` file names: `gitdir: <path>`, relative to the directory that holds the file
/// (gitrepository-layout(5)).
fn read_git_file(root: &Path, file: &Path) -> Result<PathBuf, FallbackError> {
    let bytes = read(file, MAX_GIT_FILE_BYTES)?;
    let path = bytes
        .strip_prefix(b"gitdir: ")
        .map(<[u8]>::trim_ascii_end)
        .filter(|path| !path.is_empty() && !path.contains(&0))
        .ok_or_else(|| FallbackError::new(file, "it names no git dir"))?;
    Ok(root.join(Path::new(std::ffi::OsStr::from_bytes(path))))
}

/// Reads a regular file of at most `most` bytes. What stands there may be anything: opening a FIFO must not
/// block, and a device is not read.
fn read(path: &Path, most: usize) -> Result<Vec<u8>, FallbackError> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(path, flags, Mode::empty())
        .map_err(|errno| FallbackError::new(path, errno.to_string()))?;
    let file = File::from(opened);
    let metadata = file.metadata().map_err(|error| FallbackError::new(path, error.to_string()))?;
    if !metadata.is_file() {
        return Err(FallbackError::new(path, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(most as u64 + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| FallbackError::new(path, error.to_string()))?;
    if bytes.len() > most {
        return Err(FallbackError::new(path, format!("it is larger than {most} bytes")));
    }
    Ok(bytes)
}
