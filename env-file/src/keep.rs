//! Keeping a block in a file on disk.

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::block::{Block, BlockError};
use crate::directory;
use crate::path::EnvFilePath;
use crate::replace::{MAX_BYTES, NewFile, replace};

/// What came of keeping a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// It was as it should be, and was not touched.
    Unchanged,
    /// It was written.
    Written,
}

/// A file that was not kept. It is as it was before.
#[derive(Debug, thiserror::Error)]
#[error("{}: {why}", .path.display())]
pub struct EnvFileError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub why: Why,
}

/// Why a file is not kept.
#[derive(Debug, thiserror::Error)]
pub enum Why {
    /// It is a symbolic link.
    #[error("it is a symbolic link, which is not followed")]
    Link,
    /// It is no regular file.
    #[error("it is not a regular file")]
    NotRegular,
    /// It is larger than any env file.
    #[error("it is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Its owner has made it read-only, or it is somebody else's.
    #[error("it is read-only")]
    ReadOnly,
    /// Its content has no place for the block.
    #[error(transparent)]
    Content(#[from] BlockError),
    /// A directory on the way there is a symbolic link.
    #[error("{} is a symbolic link, which is not followed", .0.display())]
    LinkedDirectory(PathBuf),
    /// Something on the way there is no directory.
    #[error("{} is not a directory", .0.display())]
    NoDirectory(PathBuf),
    /// It is in a git dir.
    #[error("{} is a git dir", .0.display())]
    GitDir(PathBuf),
    /// It is in another worktree, or in a submodule.
    #[error("{} is a worktree of its own", .0.display())]
    OtherWorktree(PathBuf),
    /// Others keep changing it.
    #[error("somebody else is writing it")]
    Busy,
    /// The system refused.
    #[error("{what} failed: {source}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

impl Why {
    pub(crate) fn failed(what: &'static str, errno: Errno) -> Self {
        Self::Failed { what, source: errno.into() }
    }

    /// What a person can do about it.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Link | Self::LinkedDirectory(_) => "name the file that it leads to",
            Self::NotRegular | Self::NoDirectory(_) | Self::TooLarge => "name another file",
            Self::ReadOnly => "make it writable, or name another file",
            Self::Content(BlockError::NotText) => "name a text file",
            Self::Content(_) => "delete the lines of that block, and wtd writes it anew",
            Self::GitDir(_) => "name a file outside of it",
            Self::OtherWorktree(_) => "keep the file in that worktree, whose own variables differ",
            Self::Busy => "try again",
            Self::Failed { source, .. } => match source.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "make room on the disk",
                _ => "see that the directory can be written",
            },
        }
    }
}

/// Makes `file` in the worktree at `root` hold the block. Directories on the way are made if need be. The file is
/// replaced as a whole, durably, and only if that changes it.
pub fn keep(root: &Path, file: &EnvFilePath, block: &Block, new: NewFile) -> Result<Kept, EnvFileError> {
    let kept = directory::parent(root, file, new).and_then(|(directory, name)| {
        replace(&directory, name, new, &|content| Ok(block.put_into(content)?))
    });
    kept.map_err(|why| EnvFileError { path: root.join(file.as_path()), why })
}

/// Makes the file `name` in `directory` hold `line`, at its end if it doesn't yet. `directory` is made if need be, and
/// the file is replaced as by [`keep`]; but where they are is the caller's affair.
pub fn add_line(directory: &Path, name: &str, line: &[u8]) -> Result<Kept, EnvFileError> {
    let add = |content: &[u8]| {
        let has_line =
            content.split(|byte| *byte == b'\n').any(|other| other.trim_ascii_end() == line.trim_ascii_end());
        let mut edited = content.to_vec();
        if !has_line {
            if !content.is_empty() && !content.ends_with(b"\n") {
                edited.push(b'\n');
            }
            edited.extend_from_slice(line);
            edited.push(b'\n');
        }
        Ok(edited)
    };
    let made = match std::fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(Why::Failed { what: "making its directory", source: error })
        }
        _ => Ok(()),
    };
    let kept = made
        .and_then(|()| directory::open(directory))
        .and_then(|opened| replace(&opened, OsStr::new(name), NewFile::ByUmask, &add));
    kept.map_err(|why| EnvFileError { path: directory.join(name), why })
}
