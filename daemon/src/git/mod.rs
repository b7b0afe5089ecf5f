//! Reads what git has on disk. It writes nothing, and what a repository says is never run.
//!
//! Everything here blocks: call it where blocking is allowed. `docs` in git's repository name the files:
//! `gitrepository-layout(5)` and `git-worktree(1)`, "DETAILS".

pub mod ask;
pub mod discover;
pub mod files;
pub mod fingerprint;
pub mod head;
pub mod memory;
pub mod observe;
pub mod root;

mod absence;
mod claim;
mod entry;
mod git_dir;
pub(crate) mod links;
mod main_worktree;
mod request;

pub use discover::{DiscoverError, Discovered, discover, discover_settled};
pub use fingerprint::Fingerprint;
pub use head::branch;
pub use memory::Memory;
pub use observe::{Look, observe};
pub use request::ObserveRequest;
