//! Filling a worktree's volumes with copies of another's, decided from values alone: which volume is a copy of which, and
//! how each can be copied. Nothing here acts.

mod plan;

use std::collections::BTreeMap;

pub use plan::{BaseBackup, Copy, Method, Question, Refusal, Rename, pairs, plan};

use super::gc::EngineId;
use super::identity::AllocationId;
use super::names::VolumeName;

/// The label that says by which copy a volume was filled.
pub const SEED_LABEL: &str = "dev.wtd.seed";

/// The port that PostgreSQL listens on in a container whose environment says nothing else.
const PORT: &str = "5432";

/// A volume that is being filled, as it is recorded before anything of it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seeding {
    /// Its id, which the volume has as a label.
    pub id: String,
    /// The allocation whose volume it is.
    pub allocation: AllocationId,
    /// The engine.
    pub engine: EngineId,
    /// Where the engine was reached.
    pub host: String,
    /// The volume that is copied.
    pub source: VolumeName,
    /// The volume that is filled.
    pub volume: VolumeName,
    /// The ids of the containers that are paused meanwhile.
    pub paused: Vec<String>,
}

/// A container that uses a volume, as far as copying has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// Its id.
    pub id: String,
    /// Its name, without the slash.
    pub name: String,
    /// The id of its image.
    pub image: String,
    /// Whether its processes run.
    pub is_running: bool,
    /// Whether they are halted already, by somebody else.
    pub is_paused: bool,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Where it has which volume.
    pub mounts: Vec<(String, String)>,
}

impl User {
    /// PostgreSQL's data directory, where it is in this volume: `PGDATA`, as the images of PostgreSQL set it. With the
    /// place where the volume is mounted.
    fn data_directory(&self, volume: &VolumeName) -> Option<(&str, &str)> {
        let directory = self.env.get("PGDATA")?.trim_end_matches('/');
        let is_above = |mount: &str| {
            directory
                .strip_prefix(mount.trim_end_matches('/'))
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mounts = self.mounts.iter().filter(|(name, _)| name == volume.as_str());
        let mount = mounts.map(|(_, at)| at.as_str()).find(|at| is_above(at))?;
        // Names in it go to the engine as paths.
        let is_plain = directory.starts_with('/') && !directory.split('/').any(|part| part == "..");
        is_plain.then_some((directory, mount))
    }
}
