//! What `POST` on [`crate::routes::SEED`] takes and gives: a worktree's volumes, filled with copies of another's.

use serde::{Deserialize, Serialize};

use crate::Problem;
use crate::gc::EngineHint;
use crate::requests::PathRequest;

/// Body of a request to [`crate::routes::SEED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeedRequest {
    /// The worktree whose volumes are to be filled.
    #[serde(flatten)]
    pub path: PathRequest,
    /// The worktree whose volumes are copied [default: the main worktree].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<PathRequest>,
    /// Every volume that both worktrees have, not the database's alone.
    #[serde(default)]
    pub all: bool,
    /// Refuse what can't be copied without pausing the containers that use it.
    #[serde(default)]
    pub no_pause: bool,
    /// The engine that is meant.
    #[serde(flatten)]
    pub engine: EngineHint,
}

/// How a volume was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum SeedMethod {
    /// By `pg_basebackup`, while the server ran.
    BaseBackup,
    /// File by file, while nothing that could write ran.
    Files,
    /// File by file, while the containers that use it were paused.
    Paused,
}

/// A volume that was filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Seeded {
    /// The volume that was copied.
    pub source: String,
    /// The volume that was filled.
    pub volume: String,
    /// How.
    pub method: SeedMethod,
    /// How many bytes were copied, as far as that is known.
    pub bytes: u64,
    /// What else there is to know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// What came of it all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SeedReport {
    /// The worktree that was copied from.
    pub from: String,
    /// The engine.
    pub engine: String,
    /// The volumes that were filled.
    pub volumes: Vec<Seeded>,
    /// Why it ended before its end; nothing is left of the volume that it was at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Problem>,
}

/// One line of the answer, the report last.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum SeedEvent {
    /// Something is begun.
    Begin {
        /// What is done, such as `copying db_data_0 to db_data_10000`.
        what: String,
    },
    /// Something that a person has to know at once, such as that a container is paused.
    Notice {
        /// What.
        text: String,
    },
    /// Bytes that were copied of what was begun last.
    Copied {
        /// So many so far.
        bytes: u64,
        /// Of so many, where that is known.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        total: Option<u64>,
    },
    /// What came of it all.
    Report(SeedReport),
}
