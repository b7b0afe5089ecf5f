//! What the daemon says of itself.

use serde::{Deserialize, Serialize};

/// Answer of [`crate::routes::HEALTH`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Health {
    /// `ok`, or `degraded` when something in `degraded` is not empty.
    pub status: String,
    /// The daemon's version.
    pub version: String,
    /// The daemon's process id.
    pub pid: u32,
    /// Seconds since the daemon was ready.
    pub uptime_seconds: u64,
    /// The registry's file.
    pub registry: String,
    /// The socket that the daemon listens on.
    pub socket: String,
    /// `systemd` when the socket was passed by systemd, else `self`.
    pub socket_from: String,
    /// Repositories that are watched.
    pub repositories: usize,
    /// Allocations that are active.
    pub active: usize,
    /// Allocations that are missing.
    pub missing: usize,
    /// Allocations that are stale.
    pub stale: usize,
    /// The container engine: where it is, or why there is none.
    pub engine: String,
    /// What doesn't work as it should, one line each.
    pub degraded: Vec<String>,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum CheckStatus {
    /// As it should be.
    Ok,
    /// Works, and could work better.
    Warn,
    /// Doesn't work.
    Fail,
}

/// One finding of `doctor`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Check {
    /// What was checked.
    pub check: String,
    /// How it came out.
    pub status: CheckStatus,
    /// What was found.
    pub detail: String,
    /// What to do about it; empty when there is nothing to do.
    pub remedy: String,
}
