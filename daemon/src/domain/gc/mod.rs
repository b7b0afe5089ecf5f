//! What gc may drop, decided from values alone: allocations, git's answer, what the engine has, the clock.
//!
//! [`belongings`] finds what an engine has of an allocation, [`proof`] reads git's answer, [`made_after`] tells whether
//! a volume can be the worktree's at all, and [`plan`] puts the contract's rules together, [`objects`] those for
//! databases; [`keep`] has the reasons in words, and [`release`] says when nothing is left of an allocation. Nothing here
//! acts.

pub mod belongings;
pub mod keep;
pub mod made_after;
pub mod objects;
pub mod plan;
pub mod proof;
pub mod release;
pub mod removal;

mod live;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;

use super::allocation::Moment;
use super::identity::AllocationId;

/// What an engine is known by, whatever address it is reached at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EngineId(Arc<str>);

impl EngineId {
    /// The engine that goes by this text.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EngineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// A volume as an engine shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Volume {
    /// Its name, which need not be one that wtd could have given.
    pub name: String,
    /// Its driver.
    pub driver: String,
    /// Whether it is of this engine alone (`Scope` is `local`).
    pub is_local: bool,
    /// Options that were given to the driver, such as those of an NFS mount.
    pub options: BTreeMap<String, String>,
    /// Its labels. They can't be changed once the volume is made.
    pub labels: BTreeMap<String, String>,
    /// `CreatedAt`, as the engine writes it: in whole seconds.
    pub created: String,
}

/// A container as an engine shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// Its id.
    pub id: String,
    /// Its first name, without the slash.
    pub name: String,
    /// Its state: `created`, `running`, `exited` …
    pub state: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// The names of the volumes that it mounts, be it by the directories in which the engine keeps them.
    pub volumes: Vec<String>,
}

impl Container {
    /// Whether a process of it may be alive.
    pub fn is_running(&self) -> bool {
        !matches!(
            self.state.as_str(),
            "created" | "configured" | "initialized" | "exited" | "dead" | "stopped"
        )
    }
}

/// What an engine has at one moment.
#[derive(Debug, Clone)]
pub struct EngineView {
    /// The engine.
    pub id: EngineId,
    /// Whether its `CreatedAt` is the time that a volume was made. Docker before 24 (API 1.43) gives the last change of
    /// the volume's top directory instead: measured, a database that starts moves it.
    pub tells_creation: bool,
    /// All its volumes.
    pub volumes: Vec<Volume>,
    /// All its containers, stopped ones too.
    pub containers: Vec<Container>,
}

/// What was found when an engine was looked at for an allocation that lived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    /// The engine.
    pub engine: EngineId,
    /// Where it was reached.
    pub host: String,
    /// When it was first looked at.
    pub at: Moment,
    /// The names of the allocation's that were looked for, each with whether it was there already.
    pub names: BTreeMap<String, bool>,
}

/// The looks of several allocations.
pub type Looks = HashMap<AllocationId, Vec<Look>>;

/// Those of one allocation; none where no engine was seen with it.
pub fn looks_of(looks: &Looks, allocation: AllocationId) -> &[Look] {
    looks.get(&allocation).map_or(&[], Vec::as_slice)
}
