//! A daemon that does not survive one system call or another: whatever it was about to do, the next one goes on from
//! what was recorded, and nothing is in its way.

use std::fs;

use crate::harness::{Daemon, Sandbox, Tampering, until};

#[test]
fn killed_at_any_step_of_an_allocation_it_loses_and_doubles_nothing() {
    if !Tampering::is_possible() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let first = sandbox.daemon();
    first.put(&repo.path);
    first.terminate();
    let mut paths = Vec::new();
    // Frames of the write-ahead log; its sync; the allocation file, its content and its naming; the answer. Commits of more than one page write several frames.
    let calls = [
        "pwrite64",
        "pwrite64:2",
        "pwrite64:4",
        "pwrite64:7",
        "fdatasync,fsync",
        "linkat",
        "openat",
        "openat:2",
        "write",
        "write:2",
    ];
    for (number, call) in calls.iter().enumerate() {
        let (call, when) = call.split_once(':').unwrap_or((call, "1"));
        let mut daemon = sandbox.daemon();
        let before = sandbox.list();
        let fault = Tampering::with(&daemon, call, &format!("signal=KILL:when={when}"));
        // Now and then an allocation takes fewer of these calls than one before.
        let earlier = paths.len();
        while !daemon.has_ended() {
            assert!(paths.len() < earlier + 20, "{call} {when} is never called");
            let path = repo.add(&format!("w{number}-{}", paths.len()));
            let file = repo.git_dir(&path).join("wtd.json");
            paths.push(path);
            until("it ends, or is done", || daemon.has_ended() || file.exists(), |is_so| *is_so);
        }
        assert!(!daemon.await_end().success());
        drop(fault);
        let daemon = sandbox.daemon();
        let rows = daemon.await_agreement(&repo);
        for row in before.iter() {
            assert_eq!(rows.id(&row.id).map(|same| same.offset), Some(row.offset), "{call} {when}");
        }
        for path in &paths {
            let file = repo.git_dir(path).join("wtd.json");
            let read = || wtd_protocol::AllocationFile::parse(&fs::read(&file).unwrap_or_default()).ok();
            let says_so = until("its file says so", read, |said| {
                said.as_ref().is_some_and(|said| said.id == rows.at(path).id)
            });
            assert_eq!(says_so.unwrap().offset, rows.at(path).offset);
            let names = fs::read_dir(repo.git_dir(path)).unwrap().map(|entry| entry.unwrap().file_name());
            let ours = names.filter(|name| name.to_string_lossy().starts_with("wtd"));
            assert_eq!(ours.collect::<Vec<_>>(), ["wtd.json"], "{call} {when}: no draft is left behind");
        }
        daemon.terminate();
    }
}

#[test]
fn killed_at_any_step_of_its_first_start_it_leaves_nothing_in_the_way() {
    if !Tampering::is_possible() {
        return;
    }
    for call in [
        "mkdir",
        "pwrite64",
        "pwrite64:9",
        "fdatasync,fsync",
        "fdatasync,fsync:3",
        "rename",
        "unlink",
        "bind",
        "listen",
        "chmod",
    ] {
        let (name, when) = call.split_once(':').unwrap_or((call, "1"));
        let sandbox = Sandbox::new();
        let mut command = sandbox.command("strace");
        command.args(["-f", "-qq", "-o", "/dev/null"]);
        command
            .args(Tampering::options(name, &format!("signal=KILL:when={when}")))
            .arg(Sandbox::program("wtd"));
        let (status, log) = Daemon::refused(&sandbox, command);
        assert!(!status.success(), "{call}: {log}");
        assert!(!log.contains("wtd: "), "{call}: {log}");
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        assert_eq!(daemon.put(&repo.path)["offset"], 0, "{call}");
        assert!(!sandbox.registry().with_extension("db.new").exists(), "{call}");
        daemon.terminate();
    }
}
