//! The Compose override that isolates a worktree.
//!
//! Compose itself reads the project's files, twice: with the worktree's variables, and with those that it would have
//! at another offset. What differs between the two already moves with the worktree; what doesn't is moved by the
//! override.
//!
//! | module | subject |
//! |---|---|
//! | [`project`] | a worktree's project, and the override for it |
//! | [`variables`] | the variables with which Compose reads it |
//! | [`files`] | which Compose files the project has |
//! | [`further`] | which files those lead to |
//! | [`docker`] | running `docker compose config` |
//! | [`model`] | what it says, as far as it matters here |
//! | [`plan`] | what has to change: a pure function |
//! | [`names`] | volumes, containers and networks of a plan |
//! | [`ports`] | moving published ports |
//! | [`notes`] | what an override can't isolate |
//! | [`yaml`] | the override as text |

pub(crate) mod docker;
pub(crate) mod files;
mod further;
pub(crate) mod model;
mod names;
mod notes;
pub(crate) mod plan;
mod ports;
pub(crate) mod project;
mod variables;
pub(crate) mod yaml;

#[cfg(test)]
mod tests;
