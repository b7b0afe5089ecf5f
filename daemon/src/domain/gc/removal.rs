//! What gc is about to remove, as it is recorded before the engine is asked to.

use std::collections::BTreeMap;

use super::EngineId;
use crate::domain::identity::AllocationId;

/// One thing that is about to be removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removal {
    /// The allocation that it is removed for.
    pub allocation: AllocationId,
    /// The engine that has it.
    pub engine: EngineId,
    /// `volume`, or `container` for one of the worktree's own Compose project.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it was: its labels, when it was created.
    pub detail: BTreeMap<String, String>,
}
