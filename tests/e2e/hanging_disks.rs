//! A disk that neither answers nor fails, as an NFS mount does whose server is gone: nothing but what lies on it waits.

use std::path::PathBuf;

use crate::harness::{Daemon, Frozen, Repo, Sandbox, until};

/// A daemon that looks at everything again every second.
fn restless() -> Sandbox {
    Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n")
}

/// A repository's git dir hangs from now on, and a linked worktree's in it.
fn hang(daemon: &Daemon<'_>, repo: &Repo<'_>) -> Option<(PathBuf, Frozen)> {
    let linked = repo.add("linked");
    daemon.put(&repo.path);
    daemon.await_state(&linked, "active");
    Some((linked, Frozen::at(&repo.path.join(".git"))?))
}

#[test]
fn no_other_repository_waits_to_be_looked_at() {
    let sandbox = restless();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("hanging"), sandbox.repo("well"));
    daemon.put(&other.path);
    let Some((_, frozen)) = hang(&daemon, &repo) else { return };
    // With its mount the daemon sets watches anew: on the disk that hangs, and then the new worktree's.
    until("a look hangs", || daemon.log(), |log| log.contains("takes longer") || log.contains("hangs"));
    for number in 0..3 {
        let path = other.add(&format!("n{number}"));
        assert_eq!(daemon.put(&path)["state"], "active");
        other.remove(&path);
    }
    drop(frozen);
    daemon.await_agreement(&repo);
    daemon.terminate();
}
