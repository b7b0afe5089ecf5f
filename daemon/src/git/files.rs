//! Reading a repository's files without being held up by what else may lie in their place: a FIFO, a device,
//! a file without end.

use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use rustix::fs::{Mode, OFlags};
use rustix::time::{ClockId, clock_gettime};

use crate::domain::identity::FileIdentity;

/// Largest file of git's that is read, in bytes. Each holds one path or one reference.
pub const MAX_BYTES: usize = 64 * 1024;

/// Most entries of a directory that are listed.
pub const MAX_ENTRIES: usize = 20_000;

/// Why a file was not read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Nothing is there.
    #[error("there is no such file")]
    NotFound,
    /// Something else than a regular file is there.
    #[error("not a regular file")]
    NotRegular,
    /// It is larger than what such a file can hold.
    #[error("larger than {0} bytes")]
    TooLarge(usize),
    /// The system refused.
    #[error(transparent)]
    Io(io::Error),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        if is_absence(&error) { Self::NotFound } else { Self::Io(error) }
    }
}

/// A path that could not be looked at, and why: what is there is unknown.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct Unreadable {
    /// The path.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Unreadable {
    /// `source` met at `path`.
    pub fn new(path: &Path, source: io::Error) -> Self {
        Self { path: path.to_owned(), source }
    }
}

/// Whether the system says that nothing is there, as opposed to not being able to say.
pub fn is_absence(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

/// The content of the regular file at `path`, of at most [`MAX_BYTES`] bytes.
pub fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_up_to(path, MAX_BYTES)
}

/// As [`read`], where an `lstat` of `path` has been seen already.
pub(super) fn read_seen(path: &Path, seen: &Metadata) -> Result<Vec<u8>, ReadError> {
    if seen.is_symlink() { read(path) } else { read_regular(seen, path, OFlags::empty(), MAX_BYTES) }
}

/// The content of the regular file at `path`, of at most `limit` bytes.
pub fn read_up_to(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    read_regular(&fs::metadata(path)?, path, OFlags::empty(), limit)
}

/// As [`read`], but a symbolic link at `path` is not followed. For files that only this program writes.
pub fn read_no_follow(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_no_follow_up_to(path, MAX_BYTES)
}

/// As [`read_no_follow`], of at most `limit` bytes.
pub fn read_no_follow_up_to(path: &Path, limit: usize) -> Result<Vec<u8>, ReadError> {
    read_regular(&fs::symlink_metadata(path)?, path, OFlags::NOFOLLOW, limit)
}

fn read_regular(seen: &Metadata, path: &Path, flags: OFlags, limit: usize) -> Result<Vec<u8>, ReadError> {
    // Looked at before it is opened, since opening some devices is an act in itself (a watchdog starts, a
    // tape rewinds); looked at again when open, since it can have been replaced.
    require_regular(seen, limit)?;
    let flags = flags | OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let mut file = File::from(rustix::fs::open(path, flags, Mode::empty()).map_err(io::Error::from)?);
    require_regular(&file.metadata()?, limit)?;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(bytes),
            Ok(count) => bytes.extend(chunk.iter().take(count)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(ReadError::Io(error)),
        }
        if bytes.len() > limit {
            return Err(ReadError::TooLarge(limit));
        }
    }
}

fn require_regular(metadata: &Metadata, limit: usize) -> Result<(), ReadError> {
    if !metadata.is_file() {
        return Err(ReadError::NotRegular);
    }
    if metadata.len() > limit as u64 {
        return Err(ReadError::TooLarge(limit));
    }
    Ok(())
}

/// The incarnation of what is at `path`; a symbolic link there is not followed.
pub fn identity(path: &Path) -> io::Result<FileIdentity> {
    fs::symlink_metadata(path).map(|metadata| identity_of(&metadata))
}

/// The incarnation that `metadata` tells of.
pub fn identity_of(metadata: &Metadata) -> FileIdentity {
    // Before 1970, or after 2262: as good as not recorded.
    let born = metadata.created().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    FileIdentity {
        device: metadata.dev(),
        inode: metadata.ino(),
        born_ns: born.and_then(|time| i64::try_from(time.as_nanos()).ok()),
    }
}

/// The time by the clock that files get their times from, in nanoseconds since 1970. Asked of the kernel itself: what a
/// process is told can differ.
pub fn now_ns() -> i64 {
    let now = clock_gettime(ClockId::RealtimeCoarse);
    now.tv_sec.saturating_mul(1_000_000_000).saturating_add(now.tv_nsec)
}

/// Time of the last change of the content, in nanoseconds since 1970.
pub fn modified_ns(metadata: &Metadata) -> i64 {
    metadata.mtime().saturating_mul(1_000_000_000).saturating_add(metadata.mtime_nsec())
}

/// Time of the last change of content or status, in nanoseconds since 1970. It can't be set by a program.
pub fn changed_ns(metadata: &Metadata) -> i64 {
    metadata.ctime().saturating_mul(1_000_000_000).saturating_add(metadata.ctime_nsec())
}

/// The names in the directory at `path`, sorted; an error when there are more than [`MAX_ENTRIES`].
pub fn names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        if names.len() == MAX_ENTRIES {
            return Err(io::Error::other(format!("more than {MAX_ENTRIES} entries")));
        }
        names.push(entry?.file_name());
    }
    names.sort_unstable();
    Ok(names)
}

/// The device of the directory at `path`, or of the nearest one above it that exists. None when that could
/// not be told.
pub fn device_above(path: &Path) -> Option<u64> {
    for directory in path.ancestors() {
        match fs::metadata(directory) {
            Ok(metadata) if metadata.is_dir() => return Some(metadata.dev()),
            Ok(_) => {}
            Err(error) if is_absence(&error) => {}
            Err(_) => return None,
        }
    }
    None
}

/// Whether `path` is on a file system of this machine, whose `stat` can't hang on a network or on a program.
/// False when it could not be told.
pub fn is_local_file_system(path: &Path) -> bool {
    rustix::fs::statfs(path)
        .is_ok_and(|found| LOCAL.iter().any(|&(magic, _)| i128::from(found.f_type) == magic))
}

/// Magic numbers of local file systems (`statfs(2)` and the kernel's `magic.h`).
const LOCAL: [(i128, &str); 15] = [
    (0xef53, "ext2, ext3, ext4"),
    (0x5846_5342, "XFS"),
    (0x9123_683e, "btrfs"),
    (0x0102_1994, "tmpfs"),
    (0x8584_58f6, "ramfs"),
    (0x2fc1_2fc1, "ZFS"),
    (0x794c_7630, "overlayfs"),
    (0xf2f5_2010, "F2FS"),
    (0xca45_1a4e, "bcachefs"),
    (0x5265_4973, "ReiserFS"),
    (0x3153_464a, "JFS"),
    (0x3434, "NILFS"),
    (0x4d44, "FAT"),
    (0x2011_bab0, "exFAT"),
    (0x7366_746e, "NTFS"),
];

/// Waits before a file that is being written is read again.
#[expect(clippy::disallowed_methods, reason = "git announces nothing that could be waited for here")]
pub(super) fn pause(duration: Duration) {
    std::thread::sleep(duration);
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_regular_files_within_the_limit_are_read() {
        let scratch = tempfile::TempDir::new().unwrap();
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("full"), vec![b'x'; MAX_BYTES]).unwrap();
        fs::write(path("over"), vec![b'x'; MAX_BYTES + 1]).unwrap();
        symlink("full", path("link")).unwrap();
        assert_eq!(read(&path("full")).unwrap().len(), MAX_BYTES);
        assert_eq!(read(&path("link")).unwrap().len(), MAX_BYTES);
        assert!(matches!(read(&path("over")), Err(ReadError::TooLarge(MAX_BYTES))));
        assert!(matches!(read(&path("none")), Err(ReadError::NotFound)));
        assert!(matches!(read(&path("full/below")), Err(ReadError::NotFound)));
        assert!(matches!(read(scratch.path()), Err(ReadError::NotRegular)));
        assert!(matches!(read(Path::new("/dev/null")), Err(ReadError::NotRegular)));
        assert!(matches!(read_no_follow(&path("link")), Err(ReadError::NotRegular)));
        assert_eq!(read_no_follow(&path("full")).unwrap().len(), MAX_BYTES);
    }

    #[test]
    fn the_device_above_is_that_of_the_nearest_directory() {
        let scratch = tempfile::TempDir::new().unwrap();
        let device = fs::metadata(scratch.path()).unwrap().dev();
        fs::write(scratch.path().join("file"), "").unwrap();
        symlink("loop", scratch.path().join("loop")).unwrap();
        for path in ["", "none", "none/deep", "file", "file/below"] {
            assert_eq!(device_above(&scratch.path().join(path)), Some(device), "{path}");
        }
        assert_eq!(device_above(&scratch.path().join("loop/below")), None);
    }

    #[test]
    fn a_directorys_successor_is_another() {
        let scratch = tempfile::TempDir::new().unwrap();
        let path = scratch.path().join("a");
        fs::create_dir(&path).unwrap();
        let before = identity(&path).unwrap();
        assert_eq!(identity(&path).unwrap(), before);
        fs::remove_dir(&path).unwrap();
        fs::create_dir(&path).unwrap();
        assert_ne!(identity(&path).unwrap(), before);
    }

    #[test]
    fn file_systems_of_other_machines_and_programs_are_not_local() {
        assert!(is_local_file_system(&std::env::temp_dir()));
        assert!(!is_local_file_system(Path::new("/proc")));
        assert!(!is_local_file_system(Path::new("/nowhere")));
    }
}
