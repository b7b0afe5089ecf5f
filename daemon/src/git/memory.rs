//! What is remembered of worktrees between two looks at a repository.
//!
//! A repository with hundreds of worktrees is looked at for the sake of one of them. Those whose marks (`stat` alone)
//! are as they were are not opened again: that would cost most of the look, and an inotify event for each file.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

use super::fingerprint::Part;
use crate::domain::observation::{ObservedWorktree, Presence};

/// The worktrees of a repository as they were when last read. An empty memory is always right.
#[derive(Debug, Clone, Default)]
pub struct Memory {
    /// Marks of what bears on every worktree: the main worktree's configuration, and the common dir's.
    pub(super) shared: Option<[u8; 32]>,
    pub(super) entries: HashMap<OsString, Remembered>,
}

/// A worktree that was read.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    /// Digest of the marks that it was read under.
    pub(super) marks: [u8; 32],
    pub(super) worktree: Arc<ObservedWorktree>,
}

impl Memory {
    /// The worktree `id` as it was when read, if what bears on all of them is unchanged.
    pub(super) fn recall(&self, id: &OsStr, shared: Part) -> Option<&Remembered> {
        self.entries.get(id).filter(|_| self.shared == Some(shared.digest) && !shared.racy)
    }
}

/// Whether all that a worktree was read from is in its marks. While it is being made, or is not where git has it,
/// more bears on it than these.
pub(super) fn is_lasting(worktree: &ObservedWorktree) -> bool {
    matches!(worktree.presence, Presence::Present { finished: true, stamp, .. } if stamp.marks.project_file.is_some())
}
