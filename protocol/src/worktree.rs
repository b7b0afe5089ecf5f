//! Allocations and worktrees as the API and `--json` show them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::path_text::{PathText, PathTextError};

/// The state of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// The worktree is there.
    Active,
    /// Something of the worktree is absent or can't be read, but it is not proven removed.
    Missing,
    /// The worktree is proven removed (or forgotten by a person): left-overs await gc, the offset stays taken.
    Stale,
    /// The offset is free again; the record is history.
    Released,
}

impl State {
    /// The word for this state, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Released => "released",
        }
    }

    /// The state that [`State::as_str`] names so.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Active, Self::Missing, Self::Stale, Self::Released]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// One allocation: a worktree's offset with the ports and names that go with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Allocation {
    /// The allocation's UUID: one for each incarnation of a worktree.
    pub id: String,
    /// The repository's common dir.
    pub repository: String,
    /// Exact bytes of `repository` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_base64: Option<String>,
    /// The worktree's root directory.
    pub path: String,
    /// Exact bytes of `path` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// Whether this is the repository's main worktree.
    pub main: bool,
    /// The `PORT_OFFSET`.
    pub offset: u16,
    /// Each port variable with its port: base port + offset.
    pub ports: BTreeMap<String, u16>,
    /// How worktrees share the database server: `isolated`, `database`, `schema` or `shared`.
    #[serde(default = "isolated")]
    pub mode: String,
    /// Each port variable with its port at offset 0. A port that all worktrees share is at its base in each.
    #[serde(default)]
    pub base_ports: BTreeMap<String, u16>,
    /// The worktree's database volume (`DB_VOLUME`): its own in mode `isolated`, in the others that of the server.
    pub volume: String,
    /// Further volumes of the worktree, by variable.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub volumes: BTreeMap<String, String>,
    /// Volumes of the project's Compose files that all worktrees share.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shared_volumes: Vec<String>,
    /// The worktree's Compose override, once it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compose: Option<ComposeOverride>,
    /// The worktree's database (`POSTGRES_DB`).
    pub database: String,
    /// The worktree's schema in it (`DB_SCHEMA`), in mode `schema`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Whether the worktree's own database or schema has been made on the server; absent where it has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_made: Option<bool>,
    /// The project's name, from which the names above are made.
    pub project: String,
    /// The state of the allocation.
    pub state: State,
    /// Why the allocation is in this state, in words; empty for `active`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// When the allocation came into this state: RFC 3339, UTC.
    pub since: String,
    /// When the allocation was made: RFC 3339, UTC.
    pub created: String,
    /// Candidates that came first and failed when this offset was given, each with what stood in the way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub passed_over: Vec<PassedOver>,
    /// What the worktree's configuration asks for and can't have, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Those of the warnings that are about a mistake in the configuration's file: `<file>:<line>: <reason>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<String>,
    /// Whether the configuration has templates or files that are not applied, since nobody has trusted its content.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub untrusted: bool,
    /// The worktree's variables; left out in lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub variables: BTreeMap<String, String>,
}

/// What a daemon means that says no mode.
fn isolated() -> String {
    "isolated".to_owned()
}

impl Allocation {
    /// The volumes that are the worktree's alone: not that of a server that worktrees share.
    pub fn own_volumes(&self) -> impl Iterator<Item = &str> {
        let of_server = (self.mode == isolated()).then_some(&self.volume);
        of_server.into_iter().chain(self.volumes.values()).map(String::as_str)
    }

    /// The worktree's root directory, exactly.
    pub fn path(&self) -> Result<PathBuf, PathTextError> {
        PathText::path(&self.path, self.path_base64.as_deref())
    }

    /// The repository's common dir, exactly.
    pub fn repository(&self) -> Result<PathBuf, PathTextError> {
        PathText::path(&self.repository, self.repository_base64.as_deref())
    }
}

/// The Compose override of a worktree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComposeOverride {
    /// The project's own Compose files, in the order in which Compose reads them.
    pub files: Vec<String>,
    /// The override's file, in the worktree's git dir.
    #[serde(rename = "override")]
    pub file: String,
    /// The host ports that the project publishes under it: `8080`, or `10000-10100` for a range.
    pub ports: Vec<String>,
}

/// An offset that was tried before the one that was given, and what stood in its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PassedOver {
    /// The offset that was not given.
    pub offset: u16,
    /// The variable whose port was not to be had; `PORT_OFFSET` where a restored volume holds the offset.
    pub variable: String,
    /// The port that was not to be had, or the offset.
    pub port: u16,
    /// What stood in the way, such as `postgres (pid 812) listens on it`.
    pub reason: String,
}

/// A port of an allocation that something outside the worktree listens on now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PortConflict {
    /// The variable whose port it is.
    pub variable: String,
    /// The port.
    pub port: u16,
    /// Who has it, such as `postgres (pid 812) listens on it`.
    pub reason: String,
}

/// A worktree as `list` shows it: the allocation, and what was seen when it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Worktree {
    /// The allocation.
    #[serde(flatten)]
    pub allocation: Allocation,
    /// The branch that is checked out (without `refs/heads/`); null when HEAD is detached or can't be read.
    pub branch: Option<String>,
    /// Whether git has the worktree locked.
    #[serde(default)]
    pub locked: bool,
    /// The port variables on which something listens now.
    #[serde(default)]
    pub listening: Vec<String>,
    /// Ports that something outside the worktree has taken.
    pub conflicts: Vec<PortConflict>,
}

/// A repository that the daemon watches.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Repository {
    /// The common dir.
    pub repository: String,
    /// Exact bytes of `repository` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository_base64: Option<String>,
    /// How the daemon learns of changes: `inotify`, or `polling` where inotify's limits are reached.
    pub watched_by: String,
    /// The number of its allocations that are active.
    pub active: usize,
    /// The number of its allocations that are missing.
    pub missing: usize,
    /// The number of its allocations that are stale.
    pub stale: usize,
    /// Worktrees without an allocation, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unallocated: Vec<String>,
    /// Mistakes in the configuration of its worktrees, one line each: `<file>:<line>: <reason>`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mistakes: Vec<String>,
}

/// What happened to an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    /// A worktree got an offset.
    Allocated,
    /// The worktree, its repository or a name moved; the offset stays.
    Moved,
    /// Ports, volumes or names changed with the configuration, or the worktree's database was made; the offset stays.
    Configured,
    /// The worktree can't be seen any more.
    Missing,
    /// A missing or stale worktree is back.
    Returned,
    /// The worktree is proven removed.
    Stale,
    /// A person gave the repository up.
    Forgotten,
    /// A person moved the worktree to another offset.
    Reassigned,
    /// The offset is free again.
    Released,
}

impl ChangeKind {
    /// The word for this kind, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allocated => "allocated",
            Self::Moved => "moved",
            Self::Configured => "configured",
            Self::Missing => "missing",
            Self::Returned => "returned",
            Self::Stale => "stale",
            Self::Forgotten => "forgotten",
            Self::Reassigned => "reassigned",
            Self::Released => "released",
        }
    }
}

/// One change of one allocation, as `events` tells it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Ascending number of the change in this registry; the `id` of the server-sent event.
    pub sequence: i64,
    /// When it was recorded: RFC 3339, UTC.
    pub at: String,
    /// What happened.
    pub kind: ChangeKind,
    /// The allocation afterwards.
    pub allocation: Allocation,
}
