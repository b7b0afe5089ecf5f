//! Whatever runs at once, nobody shares an offset and nobody loses one.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{DEADLINE, Ran, Repo, Sandbox, until};

/// Runs `work` for 0, 1, … `count` on as many threads; gives the results in order.
fn at_once<T: Send>(count: usize, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = (0..count).map(|number| scope.spawn(move || work(number))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// `git worktree add`, again until it succeeds: git fails when it meets another one's half-made entry.
fn add_beside_others(repo: &Repo<'_>, number: usize) -> PathBuf {
    let path = repo.sandbox.path(format!("w{number}"));
    let add = || repo.try_git(["worktree", "add", "-q", "--detach", path.to_str().unwrap()]);
    until("git adds a worktree", add, |ran| ran.code == Some(0));
    path
}

/// The offset that `wtd-client env` prints; the client starts a daemon where there is none.
fn offset_by_env(sandbox: &Sandbox, path: &Path) -> u16 {
    let mut command = sandbox.client_command(["env", "--shell", "sh", "--timeout", "30s", "--path"]);
    let text = Ran::of(command.arg(path)).quiet();
    let value = text.lines().find_map(|line| line.strip_prefix("export PORT_OFFSET="));
    value.unwrap_or_else(|| panic!("{text:?}")).parse().unwrap()
}

/// Asserts that each path has the offset that was answered for it, and that no two have the same.
#[track_caller]
fn assert_kept(sandbox: &Sandbox, answered: &[(PathBuf, u16)]) {
    let rows = sandbox.list();
    rows.assert_disjoint();
    for (path, offset) in answered {
        assert_eq!(rows.at(path).offset, *offset, "{}", path.display());
    }
    let distinct: BTreeSet<_> = answered.iter().map(|(_, offset)| offset).collect();
    assert_eq!(distinct.len(), answered.len());
}

#[test]
fn fifty_parallel_adds_and_fifty_clients_share_and_lose_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let answered = at_once(50, |number| {
        let path = add_beside_others(&repo, number);
        let offset = offset_by_env(&sandbox, &path);
        (path, offset)
    });
    daemon.await_agreement(&repo);
    assert_kept(&sandbox, &answered);
    let active = sandbox.list_all().iter().filter(|row| row.is("active")).count();
    assert_eq!(active, 51);
}

#[test]
fn fifty_clients_that_ask_first_for_fifty_worktrees_share_and_lose_nothing() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let paths: Vec<PathBuf> = (0..50).map(|number| add_beside_others(&repo, number)).collect();
    let daemon = sandbox.daemon();
    let answered = at_once(50, |number| (paths[number].clone(), offset_by_env(&sandbox, &paths[number])));
    assert_kept(&sandbox, &answered);
    assert_eq!(daemon.await_agreement(&repo).offsets().len(), 51);
}

#[test]
fn a_daemon_that_is_killed_throughout_shares_and_loses_nothing() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    assert_eq!(offset_by_env(&sandbox, &repo.path), 0);
    let over = AtomicBool::new(false);
    let killed = AtomicUsize::new(0);
    let end = Instant::now() + DEADLINE;
    let answered = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) && Instant::now() < end {
                // Whichever daemon serves now; the next client that finds none starts another.
                let status = sandbox.client(["status", "--json"]);
                let Ok(health) = serde_json::from_slice::<serde_json::Value>(&status.stdout) else {
                    continue;
                };
                let pid = Pid::from_raw(health["pid"].as_i64().unwrap().try_into().unwrap()).unwrap();
                killed.fetch_add(usize::from(kill_process(pid, Signal::KILL).is_ok()), Ordering::Relaxed);
            }
        });
        let answered = at_once(50, |number| {
            let path = add_beside_others(&repo, number);
            let offset = offset_by_env(&sandbox, &path);
            // However fast all are answered, it is killed while they ask.
            while killed.load(Ordering::Relaxed) <= 3 && Instant::now() < end {
                assert_eq!(offset_by_env(&sandbox, &path), offset);
            }
            (path, offset)
        });
        over.store(true, Ordering::Relaxed);
        answered
    });
    let killed = killed.into_inner();
    assert!(killed > 3, "the daemon was killed {killed} times only");
    for (path, offset) in &answered {
        assert_eq!(offset_by_env(&sandbox, path), *offset);
    }
    assert_kept(&sandbox, &answered);
    assert_eq!(sandbox.list().active(Some(&repo.common_dir())), repo.paths());
}

#[test]
fn an_allocation_that_was_answered_survives_a_kill() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let paths: Vec<PathBuf> = (0..10).map(|number| add_beside_others(&repo, number)).collect();
    let mut answered = BTreeMap::new();
    for path in &paths {
        let daemon = sandbox.daemon();
        answered.insert(path, daemon.put(path)["id"].as_str().unwrap().to_owned());
        daemon.kill9();
    }
    let _daemon = sandbox.daemon();
    let rows = sandbox.list();
    for (path, id) in answered {
        assert_eq!(rows.at(path).id, id);
    }
}

#[test]
fn a_hundred_repositories_at_once_are_all_allocated_and_watched() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let template = sandbox.repo("template");
    let repos: Vec<Repo<'_>> =
        (0..100).map(|number| Repo::at(&sandbox, &sandbox.path(format!("r{number}")))).collect();
    for repo in &repos {
        Ran::of(sandbox.command("cp").arg("-a").arg(&template.path).arg(&repo.path)).ok();
    }
    at_once(16, |thread| {
        for repo in repos.iter().skip(thread).step_by(16) {
            daemon.put(&repo.path);
            repo.add("one");
        }
    });
    daemon.await_list("200 worktrees", |rows| rows.active(None).len() == 200);
    let rows = sandbox.list();
    rows.assert_disjoint();
    for repo in &repos {
        assert_eq!(rows.active(Some(&repo.path.join(".git"))), repo.paths());
    }
    for repo in repos.iter().step_by(10) {
        repo.remove(&repo.path.with_file_name(format!("{}-one", repo.path.file_name().unwrap().display())));
    }
    daemon.await_list("190 worktrees", |rows| rows.active(None).len() == 190);
}

#[test]
fn of_twenty_daemons_started_at_once_one_serves_and_the_others_say_who() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let start = |number: usize| -> Child {
        let mut command = sandbox.command(Sandbox::program("wtd"));
        // Half of them would serve another socket, and want the same registry all the same.
        if number.is_multiple_of(2) {
            command.arg("--socket").arg(sandbox.path(format!("s{number}")));
        }
        command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut daemons: Vec<Option<Child>> = at_once(20, start).into_iter().map(Some).collect();
    let mut refusals = Vec::new();
    until(
        "19 daemons have ended",
        || {
            for daemon in &mut daemons {
                if daemon.as_mut().is_some_and(|daemon| daemon.try_wait().unwrap().is_some()) {
                    refusals.push(daemon.take().unwrap().wait_with_output().unwrap());
                }
            }
            refusals.len()
        },
        |ended| *ended >= 19,
    );
    let survivor = daemons.into_iter().flatten().next().expect("one goes on");
    let holder = format!("process id {}", survivor.id());
    for output in refusals {
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{text}");
        let last = text.lines().last().unwrap();
        assert!(last.starts_with("wtd: "), "{text}");
        assert!(last.contains(&holder) || last.contains("served by another wtd"), "{text}, not of {holder}");
    }
    let names = ["run/wtd/wtd.sock".to_owned()].into_iter().chain((0..20).map(|number| format!("s{number}")));
    let sockets: Vec<PathBuf> = names.map(|name| sandbox.path(name)).collect();
    let serves = |socket: &&PathBuf| {
        Ran::of(sandbox.client_command(["status", "--no-start", "--socket"]).arg(socket)).code == Some(0)
    };
    let socket = until("it serves", || sockets.iter().find(serves).cloned(), Option::is_some);
    let mut command = sandbox.client_command(["get", "PORT_OFFSET", "--no-start", "--socket"]);
    assert_eq!(Ran::of(command.arg(socket.unwrap()).arg("--path").arg(&repo.path)).ok(), "0\n");
    let mut survivor = survivor;
    survivor.kill().unwrap();
    survivor.wait().unwrap();
}

#[test]
fn clients_that_start_a_daemon_at_once_share_one() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let paths: Vec<PathBuf> = (0..8).map(|number| add_beside_others(&repo, number)).collect();
    let answered = at_once(8, |number| (paths[number].clone(), offset_by_env(&sandbox, &paths[number])));
    assert_kept(&sandbox, &answered);
    let pids = at_once(4, |_| {
        let status = sandbox.client(["status", "--json"]).ok();
        serde_json::from_str::<serde_json::Value>(&status).unwrap()["pid"].as_i64().unwrap()
    });
    assert_eq!(BTreeSet::from_iter(pids).len(), 1);
}
