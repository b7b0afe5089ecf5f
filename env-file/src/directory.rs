//! The way from a worktree's root to the directory of a file, one directory at a time: no symbolic link is followed,
//! and no git dir and no other repository's worktree is entered.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, fchmod, fstat, fsync, mkdirat, openat, statat};
use rustix::io::Errno;

use crate::keep::Why;
use crate::path::EnvFilePath;
use crate::replace::NewFile;

/// How directories are opened: for reading, since a directory can be locked and synced only then.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory that holds `file` in the worktree at `root`, made if need be, and the file's name.
pub(crate) fn parent<'f>(
    root: &Path,
    file: &'f EnvFilePath,
    new: NewFile,
) -> Result<(OwnedFd, &'f OsStr), Why> {
    let (directories, name) = file.split();
    let mut directory = open(root)?;
    refuse_git_dir(&directory, Path::new("."))?;
    let mut below = PathBuf::new();
    for step in directories {
        below.push(step);
        directory = enter(&directory, step, &below, new)?;
        refuse_git_dir(&directory, &below)?;
        if exists(&directory, ".git")? {
            return Err(Why::OtherWorktree(below));
        }
    }
    Ok((directory, name))
}

/// Opens the directory at `path`; its last name is no symbolic link.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, Why> {
    rustix::fs::open(path, OPEN, Mode::empty()).map_err(|errno| Why::failed("opening its directory", errno))
}

fn enter(above: &OwnedFd, name: &OsStr, below: &Path, new: NewFile) -> Result<OwnedFd, Why> {
    match openat(above, name, OPEN, Mode::empty()) {
        Err(Errno::NOENT) => make(above, name, new)?,
        Err(Errno::NOTDIR | Errno::LOOP) => return Err(in_the_way(above, name, below)),
        opened => return opened.map_err(|errno| Why::failed("opening its directory", errno)),
    }
    openat(above, name, OPEN, Mode::empty()).map_err(|_| in_the_way(above, name, below))
}

fn make(above: &OwnedFd, name: &OsStr, new: NewFile) -> Result<(), Why> {
    let failed = |errno| Why::failed("making its directory", errno);
    match mkdirat(above, name, new.create_mode(true)) {
        Ok(()) => {}
        // Somebody was quicker.
        Err(Errno::EXIST) => return Ok(()),
        Err(errno) => return Err(failed(errno)),
    }
    if new == NewFile::LikeDirectory {
        let mode = Mode::from_raw_mode(fstat(above).map_err(failed)?.st_mode);
        let directory = openat(above, name, OPEN, Mode::empty()).map_err(failed)?;
        fchmod(directory, mode & (Mode::RWXU | Mode::RWXG | Mode::RWXO)).map_err(failed)?;
    }
    match fsync(above) {
        // Not every file system syncs directories (fsync(2)).
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(failed(errno)),
    }
}

/// What stands where a directory should.
fn in_the_way(above: &OwnedFd, name: &OsStr, below: &Path) -> Why {
    match statat(above, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink => {
            Why::LinkedDirectory(below.to_owned())
        }
        Ok(_) => Why::NoDirectory(below.to_owned()),
        Err(errno) => Why::failed("opening its directory", errno),
    }
}

/// Refuses a git dir, wherever it is (`is_git_directory()` in git's `setup.c`): a bare repository can be content of
/// another one, and `--separate-git-dir` can put a git dir anywhere.
fn refuse_git_dir(directory: &OwnedFd, below: &Path) -> Result<(), Why> {
    for name in ["HEAD", "objects", "refs"] {
        if !exists(directory, name)? {
            return Ok(());
        }
    }
    Err(Why::GitDir(below.to_owned()))
}

fn exists(directory: &OwnedFd, name: &str) -> Result<bool, Why> {
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(_) => Ok(true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Why::failed("looking into its directory", errno)),
    }
}
