//! What a look at a repository needs to know beforehand.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::ask::Listing;
use super::memory::Memory;
use crate::domain::identity::AllocationId;
use crate::domain::observation::Recorded;
use crate::domain::project::Project;

/// What is to be looked at.
pub struct ObserveRequest<'a> {
    /// The repository's common dir.
    pub common_dir: PathBuf,
    /// The root of the main worktree as it was reached, for a git dir that doesn't tell. Without it, the
    /// recorded one is looked at.
    pub root_hint: Option<PathBuf>,
    /// The repository's allocations, less the released and the forgotten.
    pub recorded: Vec<Recorded>,
    /// What the registry has for the allocation that an allocation file names.
    pub claims: &'a dyn Fn(AllocationId) -> Option<Recorded>,
    /// What is remembered of the last look at this repository.
    pub memory: Arc<Memory>,
    /// Reads a project's configuration, given the worktree's root, the main worktree's root and the common
    /// dir.
    pub load_project: &'a dyn Fn(&Path, Option<&Path>, &Path) -> Project,
    /// Asks git which worktrees the repository has; none where it can't be asked now, and has to be later.
    pub ask_git: &'a dyn Fn(&Path) -> Option<Listing>,
}

impl fmt::Debug for ObserveRequest<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveRequest")
            .field("common_dir", &self.common_dir)
            .field("root_hint", &self.root_hint)
            .field("recorded", &self.recorded)
            .finish_non_exhaustive()
    }
}
