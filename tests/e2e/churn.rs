//! Worktrees that come and go as fast as git makes them: the daemon's memory stays what it was, and so does what is left.
//!
//! `WTD_SOAK_MINUTES` has it go on for so long.

use std::thread;
use std::time::{Duration, Instant};

use crate::harness::Sandbox;

/// How many work at once.
const AT_ONCE: usize = 4;

/// How many worktrees each of them adds and removes before memory is looked at, and how often that is done.
const ROUND: usize = 25;
const ROUNDS: usize = 4;

/// How much memory may grow, in KiB: what an allocator and SQLite's caches keep is no leak. In a soak they are full long
/// before the middle of it, from which on this counts.
const GROWTH_KIB: u64 = 4 * 1024;

#[test]
fn memory_is_flat_however_many_worktrees_come_and_go() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repos: Vec<_> = (0..AT_ONCE).map(|number| sandbox.repo(&format!("r{number}"))).collect();
    for repo in &repos {
        daemon.put(&repo.path);
    }
    let minutes = std::env::var("WTD_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse::<u64>().ok());
    let end = minutes.map(|minutes| Instant::now() + Duration::from_secs(minutes * 60));
    let mut resident = Vec::new();
    while end.map_or(resident.len() < ROUNDS, |end| Instant::now() < end) {
        let round = resident.len();
        thread::scope(|scope| {
            for repo in &repos {
                scope.spawn(move || {
                    for number in 0..ROUND {
                        // Names that never come again: what is kept for a name would add up.
                        let path = repo.path.with_extension(format!("{round}-{number}"));
                        repo.git(["worktree", "add", "-q", "--detach", path.to_str().unwrap()]);
                        repo.git(["worktree", "remove", path.to_str().unwrap()]);
                    }
                });
            }
        });
        daemon.await_list("what was removed is released", |rows| {
            rows.iter().filter(|row| row.state != "released").count() == AT_ONCE
        });
        resident.push(daemon.resident_kib());
    }
    if minutes.is_some() {
        eprintln!("KiB after each round of {}: {resident:?}", AT_ONCE * ROUND);
    }
    let settled = if minutes.is_some() { resident.len() / 2 } else { 0 };
    let (first, last) = (resident[settled], resident[resident.len() - 1]);
    assert!(last <= first + GROWTH_KIB, "KiB after each round of {}: {resident:?}", AT_ONCE * ROUND);
}
