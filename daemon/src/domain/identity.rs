//! What makes a thing on disk the same thing as before.

use std::fmt;

use uuid::Uuid;

/// A directory's incarnation: device, inode and birth time.
///
/// Device and inode alone don't tell a directory from its successor: ext4 was measured to give a re-created
/// `worktrees/<id>` the same inode in 70 of 70 trials, with another birth time in every one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FileIdentity {
    /// `st_dev`.
    pub device: u64,
    /// `st_ino`.
    pub inode: u64,
    /// Birth time, nanoseconds since 1970; none where the file system doesn't record it.
    pub born_ns: Option<i64>,
}

impl FileIdentity {
    /// Whether `other` is the same directory seen after a reboot: device numbers of some file systems
    /// (btrfs, LVM, NFS) are handed out anew at each mount, inode and birth time are not. Only for a
    /// directory found at the same path, and only where birth times exist.
    pub fn is_same_after_remount(&self, other: &Self) -> bool {
        self.inode == other.inode && self.born_ns.is_some() && self.born_ns == other.born_ns
    }
}

/// An allocation's id: one for each incarnation of a worktree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AllocationId(pub Uuid);

impl fmt::Display for AllocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

impl std::str::FromStr for AllocationId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::try_parse(text).map(Self)
    }
}

/// A repository's id in the registry. It outlives the repository's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RepositoryId(pub Uuid);

impl fmt::Display for RepositoryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}
