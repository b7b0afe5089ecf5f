//! Reading a file that a stranger may have made: never waiting, never more than a bounded part, never a file
//! outside the directory that it is said to be in.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

/// The largest file that is read, in bytes.
pub(super) const MAX_BYTES: u64 = 64 * 1024;

/// The content of `file`, which is directly in `directory`; none if it isn't there. A symbolic link is
/// followed as long as it leads to a file in `directory`. The error is the reason in words.
pub(super) fn read(directory: &Path, file: &Path) -> Result<Option<Vec<u8>>, String> {
    let opened = match open(file) {
        Err(Errno::LOOP) => open(&followed(directory, file)?),
        opened => opened,
    };
    match opened {
        Ok(opened) => contents(opened).map(Some),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(error) => Err(unreadable(&error.into())),
    }
}

/// Opens without following a link, and without waiting: a FIFO without a writer would else wait for one.
fn open(file: &Path) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(file, flags, Mode::empty()).map(File::from)
}

/// Where a symbolic link leads, if that is in `directory`.
fn followed(directory: &Path, link: &Path) -> Result<PathBuf, String> {
    let target = link.canonicalize().map_err(|error| format!("the symbolic link leads nowhere: {error}"))?;
    let directory = directory.canonicalize().map_err(|error| unreadable(&error))?;
    if target.starts_with(directory) {
        Ok(target)
    } else {
        Err("the symbolic link leads out of the worktree, so it is not followed".to_owned())
    }
}

fn contents(file: File) -> Result<Vec<u8>, String> {
    if !file.metadata().map_err(|error| unreadable(&error))?.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| unreadable(&error))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it is larger than {} KiB", MAX_BYTES / 1024));
    }
    Ok(bytes)
}

fn unreadable(error: &io::Error) -> String {
    format!("it can't be read: {error}")
}
