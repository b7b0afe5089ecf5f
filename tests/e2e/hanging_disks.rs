//! A disk that neither answers nor fails, as an NFS mount does whose server is gone: nothing but what lies on it waits.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;

use serde_json::json;

use crate::harness::{Daemon, Frozen, Repo, Sandbox, until};

/// More than there are threads for work that blocks.
const OFTEN: usize = 80;

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

#[test]
fn whoever_asks_from_a_directory_that_hangs_is_told_so_and_keeps_nobody_from_being_answered() {
    let sandbox = restless();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("hanging"), sandbox.repo("well"));
    let Some((_, _frozen)) = hang(&daemon, &repo) else { return };
    let below = repo.path.join("below");
    fs::create_dir(&below).unwrap();
    thread::scope(|scope| {
        for _ in 0..OFTEN {
            scope.spawn(|| {
                let answer = daemon.http("PUT", "/v1/worktrees", Some(&json!({ "path": below })));
                let problem = answer.is_problem(422, "path-unreadable");
                assert!(problem["detail"].as_str().unwrap().contains("no answer within"), "{problem:#}");
            });
        }
    });
    assert_eq!(daemon.put(&other.path)["state"], "active");
}

#[test]
fn a_list_and_doctor_tell_of_every_repository_but_one_on_a_disk_that_hangs_however_often_they_are_asked() {
    let sandbox = restless();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("hanging"), sandbox.repo("well"));
    daemon.put(&other.path);
    let Some((linked, frozen)) = hang(&daemon, &repo) else { return };
    thread::scope(|scope| {
        for _ in 0..OFTEN {
            scope.spawn(|| daemon.get("/v1/worktrees").ok());
        }
    });
    let rows = sandbox.list();
    assert_eq!(rows.at(&other.path).branch.as_deref(), Some("main"), "{rows:#?}");
    for path in [&repo.path, &linked] {
        let row = rows.at(path);
        assert!(row.branch.is_none() && row.is("active"), "{row:#?}");
        assert!(row.warnings.iter().any(|warning| warning.contains("unknown")), "{row:#?}");
    }
    assert!(rows.at(&other.path).warnings.is_empty(), "{rows:#?}");
    let checks = daemon.get("/v1/checks").ok();
    let of = |name: &str| checks.as_array().unwrap().iter().find(|check| check["check"] == name).cloned();
    let about = of("worktrees").unwrap_or_else(|| panic!("{checks:#}"));
    assert_eq!(about["status"], "warn");
    assert!(about["detail"].as_str().unwrap().contains("hanging/.git"), "{about:#}");
    // Whatever else takes a thread is still done.
    let new = sandbox.repo("new");
    assert_eq!(daemon.put(&new.path)["state"], "active");
    let one = other.add("one");
    daemon.await_state(&one, "active");
    drop(frozen);
    let branch = || sandbox.list().at(&linked).branch.clone();
    until("it is read again", branch, |branch| branch.as_deref() == Some("linked"));
    assert!(sandbox.list().at(&linked).warnings.is_empty());
    daemon.terminate();
}

#[test]
fn neither_the_start_nor_a_reload_nor_another_root_waits_for_a_root_that_hangs() {
    let sandbox = Sandbox::new();
    let root = |name: &str| {
        let root = sandbox.path(name);
        fs::create_dir_all(&root).unwrap();
        root
    };
    let (disk, well, later) = (root("disk"), root("well"), root("later"));
    let roots = |roots: &[&Path]| {
        sandbox.configure(&format!("engine = \"none\"\nprobe = false\nroots = {roots:?}\n"));
    };
    let below = root("disk/below");
    let Some(frozen) = Frozen::at(&disk) else { return };
    let hanging = [below.as_path(), &disk.join("other"), &disk];
    roots(&[hanging[0], hanging[1], &well, hanging[2]]);
    let old = sandbox.repo("well/old");
    let daemon = sandbox.daemon();
    daemon.await_agreement(&old);
    daemon.await_agreement(&sandbox.repo("well/new"));
    let waiting = sandbox.repo("later/waiting");
    roots(&[hanging[0], &well, &later]);
    sandbox.client(["reload"]).ok();
    daemon.await_agreement(&waiting);
    daemon.await_agreement(&sandbox.repo("well/newer"));
    drop(frozen);
    // What hung is searched as soon as it answers.
    daemon.await_agreement(&sandbox.repo("disk/below/late"));
    daemon.terminate();
}

#[test]
fn a_repository_that_hangs_keeps_no_other_below_its_root_from_being_found() {
    let sandbox = Sandbox::new();
    let code = sandbox.path("code");
    let repos = ["code/a", "code/b", "code/c"].map(|name| sandbox.repo(name));
    sandbox.configure(&format!("engine = \"none\"\nprobe = false\nroots = [{code:?}]\n"));
    repos[1].add_at(&sandbox.path("linked"), "linked");
    let Some(frozen) = Frozen::at(&repos[1].path.join(".git/worktrees")) else { return };
    let daemon = sandbox.daemon();
    for repo in [&repos[0], &repos[2]] {
        daemon.await_agreement(repo);
    }
    daemon.await_agreement(&sandbox.repo("code/d"));
    drop(frozen);
    daemon.terminate();
}

#[test]
fn health_tells_that_the_registrys_disk_hangs() {
    let sandbox = restless();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let state = sandbox.path("state/wtd");
    let Some(frozen) = Frozen::at(&state) else { return };
    thread::scope(|scope| {
        for _ in 0..OFTEN {
            scope.spawn(|| assert_eq!(daemon.get("/v1/health").ok()["status"], "degraded"));
        }
    });
    assert_eq!(daemon.put(&repo.path)["state"], "active");
    let checks = daemon.get("/v1/checks").ok();
    let of_registry = checks.as_array().unwrap().iter().find(|check| check["check"] == "registry").unwrap();
    assert_eq!(of_registry["status"], "fail", "{of_registry:#}");
    drop(frozen);
    until("it answers again", || daemon.get("/v1/health").ok(), |health| health["status"] == "ok");
    daemon.terminate();
}
