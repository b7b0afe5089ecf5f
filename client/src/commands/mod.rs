//! The verbs, one file each.

pub(crate) mod add;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod compose;
pub(crate) mod doctor;
pub(crate) mod env;
pub(crate) mod env_write;
pub(crate) mod events;
pub(crate) mod exec;
pub(crate) mod forget;
pub(crate) mod gc;
pub(crate) mod get;
pub(crate) mod hook;
pub(crate) mod init;
pub(crate) mod list;
pub(crate) mod man;
mod progress;
pub(crate) mod reassign;
pub(crate) mod reload;
pub(crate) mod restore;
pub(crate) mod seed;
pub(crate) mod status;
pub(crate) mod trust;
