//! What tests stand on: a sandbox with a home of its own, the real programs in it, and git.

mod binaries;
mod cutter;
mod daemon;
pub(crate) mod engine;
mod events;
mod http;
mod machine;
mod nobody;
pub(crate) mod page;
mod ports;
mod postgres;
mod ran;
mod repo;
pub(crate) mod require;
mod rows;
mod sandbox;
mod terminal;
mod tmpfs;
mod tree;
mod wait;

pub(crate) use cutter::{Cut, Cutter};
pub(crate) use daemon::Daemon;
pub(crate) use events::Events;
pub(crate) use http::Answer;
pub(crate) use machine::{User, on_each_debian};
pub(crate) use nobody::Nobody;
pub(crate) use ports::{Holder, free_base, free_port};
pub(crate) use postgres::Postgres;
pub(crate) use ran::Ran;
pub(crate) use repo::{Listed, Repo};
pub(crate) use rows::{Row, Rows};
pub(crate) use sandbox::Sandbox;
pub(crate) use terminal::{Shown, Terminal, Variables, parse_environment};
pub(crate) use tmpfs::Tmpfs;
pub(crate) use tree::{Tree, tree};
pub(crate) use wait::{DEADLINE, until};
