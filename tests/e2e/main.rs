//! Black-box tests of the contract, through the real programs: `wtd` and `wtd-client`, git, shells and PostgreSQL
//! as they are installed. A test is named by the sentence that it shows.
//!
//! Needs nothing but git; what else a test needs and the machine lacks is skipped by name (see `harness::require`).

#[cfg(test)]
mod harness;

#[cfg(test)]
mod api;
#[cfg(test)]
mod booted;
#[cfg(test)]
mod churn;
#[cfg(test)]
mod client;
#[cfg(test)]
mod compose;
#[cfg(test)]
mod compose_api;
#[cfg(test)]
mod compose_changes;
#[cfg(test)]
mod concurrency;
#[cfg(test)]
mod crash_model;
#[cfg(test)]
mod database_modes;
#[cfg(test)]
mod database_servers;
#[cfg(test)]
mod docs;
#[cfg(test)]
mod env_files;
#[cfg(test)]
mod example;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod forget;
#[cfg(test)]
mod gc;
#[cfg(test)]
mod gc_crash;
#[cfg(test)]
mod gc_databases;
#[cfg(test)]
mod gc_ends;
#[cfg(test)]
mod gc_keeps;
#[cfg(test)]
mod gc_meanwhile;
#[cfg(test)]
mod gc_podman;
#[cfg(test)]
mod hanging_disks;
#[cfg(test)]
mod hook;
#[cfg(test)]
mod hook_beside;
#[cfg(test)]
mod hook_client;
#[cfg(test)]
mod hostile_repositories;
#[cfg(test)]
mod init;
#[cfg(test)]
mod kill_points;
#[cfg(test)]
mod list;
#[cfg(test)]
mod moving;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod offsets;
#[cfg(test)]
mod openapi;
#[cfg(test)]
mod overload;
#[cfg(test)]
mod past;
#[cfg(test)]
mod postgres;
#[cfg(test)]
mod registry;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod remedies;
#[cfg(test)]
mod restore;
#[cfg(test)]
mod seed;
#[cfg(test)]
mod shells;
#[cfg(test)]
mod topologies;
#[cfg(test)]
mod trust;
#[cfg(test)]
mod unknown;
#[cfg(test)]
mod watching;
#[cfg(test)]
mod without_daemon;
