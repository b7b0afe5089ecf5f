//! What was seen of a repository on disk, as data: the one input of a reconcile step that comes from git.
//!
//! "Unknown" is a value of its own here. A question that could not be answered is never "nothing there".

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::identity::{AllocationId, FileIdentity};
use super::project::Project;

/// One look at a repository.
#[derive(Debug, Clone)]
pub struct Observation {
    /// The common dir that was looked at, canonical where it exists.
    pub common_dir: PathBuf,
    /// What was found there.
    pub repository: ObservedRepository,
    /// A look at the recorded path of each allocation that the caller asked about and that no observed
    /// worktree answers for.
    pub absences: HashMap<AllocationId, Absence>,
    /// For each observed worktree whose allocation file names an allocation recorded elsewhere: whether the
    /// git dir that the registry has for that allocation is still there.
    pub origins: HashMap<AllocationId, Origin>,
    /// Something was met in the middle of being written; look again soon.
    pub unsettled: bool,
}

/// A repository, as found.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each look, and it is nearly always the large one"
)]
pub enum ObservedRepository {
    /// The common dir is there.
    Present {
        /// The common dir's incarnation.
        identity: FileIdentity,
        /// The main worktree; none in a bare repository.
        main: Option<ObservedWorktree>,
        /// The entries of `worktrees/` that name a path.
        linked: Vec<ObservedWorktree>,
        /// Why `worktrees/` could not be listed whole; no entry is gone while this is set.
        unlisted: Option<String>,
    },
    /// Nothing is at the common dir's path, or no repository.
    Gone,
    /// It could not be told; the reason.
    Unknown(String),
}

/// A worktree, as found through its git dir.
#[derive(Debug, Clone)]
pub struct ObservedWorktree {
    /// The name of the entry in `worktrees/`; none for the main worktree.
    pub id: Option<OsString>,
    /// The git dir: `<common dir>/worktrees/<id>`, or the common dir itself.
    pub git_dir: PathBuf,
    /// The git dir's incarnation.
    pub identity: FileIdentity,
    /// The root directory that git has for it.
    pub path: PathBuf,
    /// What is at that path.
    pub presence: Presence,
    /// Whether git has it locked (for whatever reason, `initializing` included).
    pub locked: bool,
    /// What the allocation file says.
    pub claim: Claim,
    /// The digest of a recorded Compose override that is not in the git dir any more, or is another one there.
    pub lost_override: Option<[u8; 32]>,
    /// The project's configuration as this worktree sees it; worktrees that see the same share it.
    pub project: Arc<Project>,
}

/// What is at a worktree's root directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Presence {
    /// The directory is there and points back at the git dir.
    Present {
        /// The device that the directory is on.
        device: u64,
        /// Marks of the root, to tell at a glance that nothing changed.
        stamp: RootStamp,
        /// Whether `git worktree add` has finished (an index, or no lock).
        finished: bool,
    },
    /// Nothing is there.
    Missing {
        /// The device of the nearest directory above that exists; none when it could not be told.
        device_above: Option<u64>,
    },
    /// Something is there that does not point back at this git dir.
    Foreign,
    /// It could not be told; the reason.
    Unknown(String),
}

/// Marks of a worktree's root that change whenever the worktree becomes another one, or is configured otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootMarks {
    /// Incarnation of the `.git` file or directory.
    pub dot_git: FileIdentity,
    /// For a `.git` file: its modification time in nanoseconds, since `git worktree repair` rewrites it in
    /// place. For a directory, whose time changes with every commit: none.
    pub modified_ns: Option<i64>,
    /// Stands for the marks of the `wtd.toml` in force, or for there being none. None where they can't tell whether the
    /// file is still the one that was read.
    pub project_file: Option<u64>,
}

/// A worktree's root as it was when it was last seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RootStamp {
    /// Its marks.
    pub marks: RootMarks,
    /// Whether the file system is a local one, on which a `stat` can't hang.
    pub local: bool,
}

impl RootStamp {
    /// Whether a root with these marks is the one that was seen, unchanged.
    pub fn is_unchanged(&self, now: RootMarks) -> bool {
        self.marks.project_file.is_some() && self.marks == now
    }
}

/// What a git dir's allocation file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Claim {
    /// There is none.
    None,
    /// It names this allocation.
    Allocation {
        /// The allocation.
        id: AllocationId,
        /// The offset that the allocation had when the file was written.
        offset: u16,
        /// A digest of the file's bytes, to tell whether it has to be written again.
        digest: [u8; 32],
    },
    /// There is one that can't be understood or read; the reason.
    Unusable(String),
}

/// A look at where an allocation's worktree was, after git stopped listing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Absence {
    /// The git dir that was looked for: an answer about another one is no answer.
    pub git_dir: PathBuf,
    /// The recorded root directory.
    pub directory: DirectoryLook,
    /// What git itself says.
    pub git: GitAnswer,
}

/// What is at the recorded root directory of a worktree that git does not list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DirectoryLook {
    /// Nothing is there; the device of the nearest directory above that exists.
    Gone {
        /// None when it could not be told.
        device_above: Option<u64>,
    },
    /// A directory is there that does not point at the entry (any more).
    PointsElsewhere {
        /// The device that it is on.
        device: u64,
    },
    /// The directory still stands and points at the vanished entry, or at nothing that is there.
    StillPointsBack,
    /// It could not be told; the reason.
    Unknown(String),
}

/// Whether `git worktree list` still lists a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GitAnswer {
    /// It does not.
    NotListed,
    /// It does.
    Listed,
    /// Git was not asked, since something else already speaks against a removal.
    NotAsked,
    /// Git failed; the reason.
    Failed(String),
}

/// Whether the git dir that an allocation is recorded with is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The git dir that was looked for: an answer about another one is no answer.
    pub git_dir: PathBuf,
    /// What was found.
    pub look: OriginLook,
}

/// What is at an allocation's recorded git dir.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginLook {
    /// The recorded incarnation.
    Standing,
    /// Nothing, or another incarnation, on a disk that is certainly there.
    Gone,
    /// It could not be told (its disk may not be mounted); the reason.
    Unknown(String),
}

/// What the registry has recorded of an allocation, as far as an observer has to look for it.
#[derive(Debug, Clone)]
pub struct Recorded {
    /// The allocation.
    pub id: AllocationId,
    /// Its git dir.
    pub git_dir: PathBuf,
    /// The git dir's incarnation.
    pub identity: FileIdentity,
    /// Its root directory.
    pub path: PathBuf,
    /// The device that the root directory was on.
    pub device: u64,
    /// Whether it is the main worktree's.
    pub main: bool,
    /// The digest of the Compose override that belongs in the git dir.
    pub override_digest: Option<[u8; 32]>,
}
