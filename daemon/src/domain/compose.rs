//! The Compose override of a worktree, as far as the registry answers for it.
//!
//! A person has the client write it; here is recorded what it goes with. A file that lies in a git dir without such a
//! record is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use super::identity::AllocationId;

/// An override that a person had written for a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compose {
    /// The project's Compose files, in the order in which Compose reads them; relative ones are below the worktree's
    /// root, so that they move with it.
    pub files: Vec<PathBuf>,
    /// [`wtd_protocol::compose::digest`] of what those files held.
    pub files_digest: String,
    /// The files that Compose read beside those, as far as they are known, and the digest of what counted in each. Paths
    /// are as in `files`.
    pub further: BTreeMap<PathBuf, String>,
    /// What separates the paths in `COMPOSE_FILE`, unless one of them holds it.
    pub separator: char,
    /// SHA-256 of the override.
    pub digest: [u8; 32],
    /// [`inputs`](super::compose_override::inputs) of the allocation, when it was written.
    pub inputs: [u8; 32],
    /// The host ports that are published under it.
    pub ports: BTreeSet<u16>,
}

/// A port of an override that another allocation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTaken {
    /// The port.
    pub port: u16,
    /// Who has it; none when it is that of a server which other worktrees share.
    pub holder: Option<AllocationId>,
}
