//! What `wtd` and `wtd-client` agree on: the types on the wire, the allocation file and the socket's place.
//!
//! Both programs depend on this crate and on nothing of each other. It holds data and the rules for
//! reading and writing that data, and does no input or output of its own.
//!
//! # Versions
//! The HTTP API lives under [`routes::V1`]. Within a version fields are only added, never renamed or given
//! another meaning, and a reader ignores fields that it doesn't know; so client and daemon one minor version
//! apart work together.

pub mod allocation_file;
pub mod compose;
pub mod contract;
pub mod gc;
pub mod health;
pub mod names;
pub mod path_text;
pub mod problem;
pub mod requests;
pub mod routes;
pub mod seed;
pub mod socket;
pub mod variable;
pub mod worktree;

pub use allocation_file::AllocationFile;
pub use health::{Check, CheckStatus, Health};
pub use path_text::PathText;
pub use problem::{Problem, ProblemType};
pub use worktree::{
    Allocation, Change, ChangeKind, ComposeOverride, PassedOver, PortConflict, Repository, State, Worktree,
};

/// The version of the programs, as `--version` and `GET /v1/health` give it.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");
