//! Replacing a file as a whole: a reader meets the old one or the new one, and so does a machine that lost its power.
//!
//! Writers of wtd's own wait for each other by a lock on the directory, which leaves nothing behind. A person's editor
//! knows nothing of that lock; so the new file changes places with the old one (`RENAME_EXCHANGE`, rename(2)), and what
//! then turns out to have been saved in between is put back, and edited in its turn. Nothing is deleted but what wtd wrote itself,
//! or what was edited, or what a later save has replaced.

mod draft;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{
    Access, AtFlags, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, accessat, fchmod, fchown, flock,
    fstat, fsync, openat, statat,
};
use rustix::io::Errno;

use self::draft::Draft;
use crate::keep::{Kept, Why};

/// Largest file that is edited, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// How long another writer of wtd's is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// The pause before the lock is tried again.
const PAUSE: Duration = Duration::from_millis(2);

/// How often a file that somebody else has saved meanwhile is edited anew.
const ATTEMPTS: usize = 10;

/// The mode that a new file, or a directory on the way to it, gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NewFile {
    /// What the process's umask leaves, as with any program that a person runs.
    ByUmask,
    /// As the directory that it is in has it, less the right to execute: for a daemon, whose umask is its own.
    LikeDirectory,
}

impl NewFile {
    /// The mode to create with.
    pub(crate) fn create_mode(self, is_directory: bool) -> Mode {
        let all = if is_directory { Mode::from_raw_mode(0o777) } else { Mode::from_raw_mode(0o666) };
        match self {
            Self::ByUmask => all,
            Self::LikeDirectory => all & Mode::RWXU,
        }
    }
}

/// A file as it was read.
struct Current {
    bytes: Vec<u8>,
    stat: Stat,
}

/// What becomes of a file's content.
pub(crate) type Edit<'e> = &'e dyn Fn(&[u8]) -> Result<Vec<u8>, Why>;

/// Replaces the file `name` in `directory` by what `edit` makes of its content (nothing, where there is none), unless
/// that is the same.
pub(crate) fn replace(directory: &OwnedFd, name: &OsStr, new: NewFile, edit: Edit<'_>) -> Result<Kept, Why> {
    // None where nothing changes.
    let edited = |current: Option<&Current>| match current {
        Some(current) => edit(&current.bytes).map(|bytes| (bytes != current.bytes).then_some(bytes)),
        None => edit(b"").map(Some),
    };
    if edited(read(directory, name)?.as_ref())?.is_none() {
        return Ok(Kept::Unchanged);
    }
    // Until the caller closes the directory.
    if lock(directory)? {
        draft::sweep(directory);
    }
    for _ in 0..ATTEMPTS {
        let current = read(directory, name)?;
        let Some(bytes) = edited(current.as_ref())? else { return Ok(Kept::Unchanged) };
        let draft = Draft::write(directory, name, &bytes, current.as_ref(), new)?;
        if draft.put_in_place(name, current.as_ref(), &mut |_| {})? {
            sync(directory)?;
            return Ok(Kept::Written);
        }
    }
    Err(Why::Busy)
}

/// The regular file `name`, links not followed; none where nothing is there.
fn read(directory: &OwnedFd, name: &OsStr) -> Result<Option<Current>, Why> {
    let failed = |errno| Why::failed("reading it", errno);
    // Looked at before it is opened, since opening some devices is an act in itself, and again when open.
    match statat(directory, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => require_regular(&stat)?,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(directory, name, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    };
    let stat = fstat(&file).map_err(failed)?;
    require_regular(&stat)?;
    let mut bytes = Vec::new();
    let read = File::from(file).take(MAX_BYTES as u64 + 1).read_to_end(&mut bytes);
    read.map_err(|source| Why::Failed { what: "reading it", source })?;
    if bytes.len() > MAX_BYTES {
        return Err(Why::TooLarge);
    }
    Ok(Some(Current { bytes, stat }))
}

fn require_regular(stat: &Stat) -> Result<(), Why> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        FileType::Symlink => Err(Why::Link),
        _ => Err(Why::NotRegular),
    }
}

/// Takes the lock on a directory that writers of wtd's share. File systems without such locks do without: a file that
/// changes meanwhile is noticed all the same. False where there are none.
fn lock(directory: &OwnedFd) -> Result<bool, Why> {
    let end = Instant::now() + PATIENCE;
    loop {
        match flock(directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) if Instant::now() < end => pause(),
            Err(Errno::WOULDBLOCK) => return Err(Why::Busy),
            Err(Errno::INTR) => {}
            Ok(()) => return Ok(true),
            Err(_) => return Ok(false),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a lock that is waited for without end could hang a shell")]
fn pause() {
    std::thread::sleep(PAUSE);
}

fn sync(directory: &OwnedFd) -> Result<(), Why> {
    match fsync(directory) {
        // Not every file system syncs directories (fsync(2)).
        Ok(()) | Err(Errno::INVAL) => Ok(()),
        Err(errno) => Err(Why::failed("syncing its directory", errno)),
    }
}

/// A rename needs no right to write the file itself. Whoever took that right away wants it to stay.
fn refuse_read_only(directory: &OwnedFd, name: &OsStr, stat: &Stat) -> Result<(), Why> {
    let is_writable = Mode::from_raw_mode(stat.st_mode).contains(Mode::WUSR)
        && !matches!(
            accessat(directory, name, Access::WRITE_OK, AtFlags::EACCESS),
            Err(Errno::ACCESS | Errno::PERM | Errno::ROFS)
        );
    if is_writable { Ok(()) } else { Err(Why::ReadOnly) }
}

/// The owner is kept where that is allowed (chown(2)), the mode always.
fn keep_owner_and_mode(file: &File, stat: &Stat) -> Result<(), Errno> {
    let own = fstat(file)?;
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    if (own.st_uid, own.st_gid) != (stat.st_uid, stat.st_gid)
        && fchown(file.as_fd(), Some(uid), Some(gid)).is_err()
    {
        fchown(file.as_fd(), None, Some(gid)).ok();
    }
    fchmod(file, Mode::from_raw_mode(stat.st_mode) & (Mode::RWXU | Mode::RWXG | Mode::RWXO))
}

#[cfg(test)]
mod tests;
