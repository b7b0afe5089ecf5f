//! Changes that nobody tells the daemon of.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::harness::{
    Daemon, Mount, Ran, Repo, Rows, Sandbox, can_overflow_queue, overflow_queue, require, until,
};

#[test]
fn the_first_worktree_ever_and_the_last_one_are_seen() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let worktrees = repo.path.join(".git/worktrees");
    for round in 0..5 {
        assert!(!worktrees.exists());
        let one = repo.add(&format!("one-{round}"));
        assert_eq!(daemon.await_agreement(&repo).at(&one).offset, 10_000);
        repo.remove(&one);
        daemon.await_state(&one, "released");
    }
}

#[test]
fn two_hundred_worktrees_of_one_repository_are_all_seen_to_come_and_go() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let path = |number: usize| sandbox.path(format!("w{number}"));
    let add = |number| {
        let path = path(number);
        repo.git(["worktree", "add", "-q", "--detach", path.to_str().unwrap()]);
    };
    (0..200).for_each(add);
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.offsets().len(), 201);
    // Above 5432 fit 7 multiples of 10000 and 61 of 1000.
    assert!((0..=60).all(|thousand| rows.offsets().contains(&(thousand * 1000))), "{:?}", rows.offsets());
    assert!(rows.offsets().iter().all(|offset| offset % 100 == 0), "{:?}", rows.offsets());
    let before = rows.at(&path(7)).clone();

    (0..200).filter(|number| number % 2 == 0).for_each(|number| repo.remove(&path(number)));
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&path(7)).offset, before.offset);
    (0..50)
        .filter(|number| number % 2 == 1)
        .for_each(|number| repo.mv(&path(number), &sandbox.path(format!("m{number}"))));
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&sandbox.path("m7")).id, before.id);
    (100..150).filter(|number| number % 2 == 1).for_each(|number| fs::remove_dir_all(path(number)).unwrap());
    repo.git(["worktree", "prune"]);
    daemon.await_agreement(&repo);
    daemon.kill9();
    let daemon = sandbox.daemon();
    assert_eq!(daemon.await_agreement(&repo).at(&sandbox.path("m7")).id, before.id);
}

/// A `git worktree add` whose checkout stands still at a gate.
struct Halted {
    git: Child,
    gate: PathBuf,
    path: PathBuf,
}

impl Halted {
    fn start(repo: &Repo<'_>) -> Self {
        let sandbox = repo.sandbox;
        let (gate, path) = (sandbox.path("gate"), sandbox.path("app-slow"));
        Ran::of(sandbox.command("mkfifo").arg(&gate)).ok();
        let info =
            PathBuf::from(repo.git(["rev-parse", "--path-format=absolute", "--git-path", "info"]).trim_end());
        fs::create_dir_all(&info).unwrap();
        fs::write(info.join("attributes"), "* filter=slow\n").unwrap();
        let filter = format!("cat '{}' >&2; cat", gate.display());
        repo.git(["config", "filter.slow.smudge", &filter]);
        let git = sandbox
            .command("git")
            .current_dir(&repo.path)
            .args(["worktree", "add", "-q", "-b", "slow", path.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { git, gate, path }
    }

    /// Lets the checkout go on, once it is at the gate.
    fn release(mut self) {
        let gate = OpenOptions::new().write(true).open(&self.gate).unwrap();
        // For the files after the first one there is no gate.
        fs::remove_file(&self.gate).unwrap();
        drop(gate);
        assert!(self.git.wait().unwrap().success());
    }

    /// Ends git and its children.
    fn signal(mut self, signal: Signal) {
        // Once the gate is open, git is in the middle of its checkout.
        let gate = OpenOptions::new().write(true).open(&self.gate).unwrap();
        kill_process_group(Pid::from_raw(self.git.id().try_into().unwrap()).unwrap(), signal).unwrap();
        self.git.wait().unwrap();
        drop(gate);
    }
}

fn allocated<'a>(rows: &'a Rows, path: &Path) -> Vec<&'a str> {
    rows.iter().filter(|row| row.exact_path() == path).map(|row| row.id.as_str()).collect()
}

#[test]
fn a_worktree_that_is_still_being_made_gets_its_allocation_once() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let halted = Halted::start(&repo);
    let path = halted.path.clone();
    let rows = daemon.await_state(&path, "active");
    let id = rows.at(&path).id.clone();
    assert_eq!(sandbox.offset(&path), 10_000, "a client there is answered");
    halted.release();
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&path).id, id);
    assert_eq!(allocated(&sandbox.list_all(), &path), [&id], "once");
}

#[test]
fn a_worktree_that_is_still_being_made_in_a_bare_repository_keeps_clear_of_the_ports_of_the_others() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let source = sandbox.repo("source");
    fs::write(source.path.join("wtd.toml"), "[ports]\nQUEUE_PORT = 5672\nQUEUE_UI_PORT = 15672\n").unwrap();
    source.git(["add", "wtd.toml"]);
    source.git(["commit", "-q", "-m", "second"]);
    source.git(["clone", "-q", "--bare", ".", "../app.git"]);
    let bare = Repo::at(&sandbox, &sandbox.path("app.git"));
    let made = sandbox.path("app-made");
    bare.add_at(&made, "made");
    assert_eq!(daemon.put(&made)["offset"], 0);
    let halted = Halted::start(&bare);
    let path = halted.path.clone();
    assert!(!path.join("wtd.toml").exists());
    assert_eq!(
        daemon.await_state(&path, "active").at(&path).offset,
        20_000,
        "QUEUE_PORT is not the other's QUEUE_UI_PORT"
    );
    halted.release();
    let rows = daemon.await_agreement(&bare);
    assert!(rows.at(&path).conflicts.is_empty(), "{rows:?}");
}

#[test]
fn an_aborted_add_leaves_no_allocation() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let halted = Halted::start(&repo);
    let path = halted.path.clone();
    daemon.await_state(&path, "active");
    halted.signal(Signal::TERM);
    assert!(!path.exists(), "git has tidied up");
    let rows = daemon.await_state(&path, "released");
    assert_eq!(allocated(&rows, &path).len(), 1);
    assert_eq!(daemon.await_agreement(&repo).offsets(), [0]);
}

#[test]
fn a_killed_add_keeps_its_allocation_as_long_as_git_lists_it() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let halted = Halted::start(&repo);
    let path = halted.path.clone();
    let id = daemon.await_state(&path, "active").at(&path).id.clone();
    halted.signal(Signal::KILL);
    assert!(repo.paths().contains(&path));
    assert_eq!(daemon.await_agreement(&repo).at(&path).id, id);
    repo.git(["worktree", "remove", "-f", "-f", path.to_str().unwrap()]);
    daemon.await_list("it is released", |rows| rows.id(&id).is_some_and(|row| row.is("released")));
}

#[test]
fn events_that_the_kernel_dropped_are_made_up_for() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, two) = (repo.add("one"), repo.add("two"));
    let before = daemon.await_agreement(&repo).at(&two).clone();
    if !can_overflow_queue() {
        return;
    }
    daemon.sigstop();
    overflow_queue(&repo.path.join(".git")).unwrap();
    repo.remove(&one);
    repo.mv(&two, &sandbox.path("moved"));
    let three = repo.add("three");
    daemon.sigcont();
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&sandbox.path("moved")).id, before.id);
    assert!(rows.find(&three).is_some());
    assert!(daemon.log().contains("lost events"), "or the test has shown nothing: {}", daemon.log());
    let four = repo.add("four");
    assert!(daemon.await_agreement(&repo).find(&four).is_some(), "and it goes on watching");
}

#[test]
fn a_repository_that_was_made_anew_among_lost_events_is_watched() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (noisy, repo) = (sandbox.repo("noisy"), sandbox.repo("app"));
    daemon.put(&noisy.path);
    daemon.put(&repo.path);
    if !can_overflow_queue() {
        return;
    }
    daemon.sigstop();
    overflow_queue(&noisy.path.join(".git")).unwrap();
    // The kernel ends the watches of what is deleted, and the event that tells of it is lost.
    fs::remove_dir_all(&repo.path).unwrap();
    let repo = sandbox.repo("app");
    daemon.sigcont();
    daemon.await_list("the new one has been seen", |rows| {
        rows.iter().filter(|row| row.exact_path() == repo.path).count() == 2
    });
    let one = repo.add("one");
    assert!(daemon.await_agreement(&repo).find(&one).is_some());
    assert!(daemon.log().contains("lost events"), "or the test has shown nothing: {}", daemon.log());
}

#[test]
fn a_directory_that_is_moved_away_and_back_is_watched_with_all_below_it() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    daemon.put(&repo.path);
    daemon.put(&other.path);
    // One that is waited for beside the repository, so that what comes and goes there is heard of.
    let gone = repo.add("gone");
    daemon.await_agreement(&repo);
    fs::remove_dir_all(&gone).unwrap();
    daemon.await_state(&gone, "missing");
    let away = sandbox.path("away");
    fs::rename(&repo.path, &away).unwrap();
    fs::rename(&away, &repo.path).unwrap();
    // What happened before this has been looked at when this is known.
    let elsewhere = other.add("elsewhere");
    daemon.await_state(&elsewhere, "active");
    // The list looks itself, so what is noticed without it is what events tell of.
    let mut events = daemon.events(None);
    let one = repo.add("one");
    assert_eq!(events.next().data["allocation"]["path"], one.to_str().unwrap());
}

#[test]
fn at_the_limit_of_inotify_repositories_are_polled_and_doctor_says_so() {
    if !require::user_namespaces() {
        return;
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("unshare");
    command
        .args(["-Ur", "sh", "-c", "echo 4 > /proc/sys/user/max_inotify_watches && exec \"$0\""])
        .arg(Sandbox::program("wtd"));
    let daemon = Daemon::start_command(&sandbox, command);
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    for number in 0..5 {
        repo.add(&format!("b{number}"));
    }
    daemon.await_agreement(&repo);
    let repositories = daemon.get("/v1/repositories").ok();
    assert_eq!(repositories[0]["watched_by"], "polling", "{repositories:#}");
    let six = repo.add("six");
    assert!(daemon.await_agreement(&repo).find(&six).is_some(), "a new worktree is found with nobody asking");
    let checks = sandbox.client(["doctor", "--json"]).text();
    let checks: Vec<serde_json::Value> = serde_json::from_str(&checks).unwrap();
    let inotify = checks.iter().find(|check| check["check"] == "inotify").unwrap();
    assert_eq!(inotify["status"], "warn", "{inotify:#}");
    assert!(inotify["remedy"].as_str().unwrap().contains("max_user_watches"), "{inotify:#}");
    let log = daemon.log();
    assert_eq!(log.matches("max_user_watches").count(), 1, "once: {log}");
    assert_eq!(sandbox.offset(&six), sandbox.list().at(&six).offset);
}

#[test]
fn a_worktree_on_a_disk_that_is_not_mounted_is_missing_and_comes_back_with_it() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let (disk, point) = (sandbox.path("disk"), sandbox.path("mnt"));
    for directory in [&disk, &point] {
        fs::create_dir(directory).unwrap();
    }
    if !require::mounts(&disk) {
        return;
    }
    let _disk = Mount::tmpfs(&disk, "16m");
    let mounted = Mount::bind(&disk, &point);
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (kept, pruned) = (point.join("kept"), point.join("pruned"));
    repo.add_at(&kept, "kept");
    repo.add_at(&pruned, "pruned");
    let before = daemon.await_agreement(&repo);
    repo.git(["worktree", "lock", kept.to_str().unwrap()]);

    drop(mounted);
    daemon.await_state(&kept, "missing");
    daemon.await_state(&pruned, "missing");
    repo.git(["worktree", "prune"]);
    assert!(!repo.worktrees().iter().any(|listed| listed.path == pruned));
    let one = repo.add("one");
    let rows = daemon.await_state(&one, "active");
    assert_eq!(rows.at(&one).offset, 30_000, "git's word alone proves nothing while the disk is away");
    assert_eq!((rows.at(&kept).state.as_str(), rows.at(&pruned).state.as_str()), ("missing", "missing"));

    let _mounted = Mount::bind(&disk, &point);
    let row = until("it is back", || sandbox.list().at(&kept).clone(), |row| row.is("active"));
    assert_eq!((&row.id, row.offset), (&before.at(&kept).id, 10_000));
    assert!(sandbox.list().at(&pruned).is("missing"), "its directory stands, without an entry");
}

#[test]
fn a_repository_on_a_disk_that_was_mounted_again_is_watched_as_before() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1h\"\n");
    let (image, point) = (sandbox.path("image"), sandbox.path("mnt"));
    fs::create_dir(&point).unwrap();
    let Some(mut disk) = Mount::image(&image, &point) else { return };
    let repo = sandbox.repo("mnt/app");
    let one = point.join("one");
    repo.add_at(&one, "one");
    let daemon = sandbox.daemon();
    daemon.put(&repo.path);
    let before = daemon.await_agreement(&repo);
    for round in ["first", "second", "third"] {
        disk.unmount();
        disk = Mount::from_image(&image, &point).unwrap();
        repo.add_at(&point.join(round), round);
        assert_eq!(daemon.await_agreement(&repo).at(&one).id, before.at(&one).id);
    }

    disk.unmount();
    daemon.await_state(&one, "missing");
    let _disk = Mount::from_image(&image, &point).unwrap();
    daemon.await_state(&one, "active");
    repo.add_at(&point.join("last"), "last");
    assert_eq!(daemon.await_agreement(&repo).at(&one).id, before.at(&one).id);
}

#[test]
fn an_allocation_file_that_somebody_takes_away_is_written_again() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1h\"\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let linked = repo.add("linked");
    daemon.put(&repo.path);
    let before = daemon.await_agreement(&repo);
    for (path, is_renamed) in [(&repo.path, false), (&linked, true)] {
        let file = repo.git_dir(path).join("wtd.json");
        until("the file is there", || file.exists(), |there| *there);
        if is_renamed {
            fs::rename(&file, file.with_extension("old")).unwrap();
        } else {
            fs::remove_file(&file).unwrap();
        }
        until("the file is back", || file.exists(), |there| *there);
        assert_eq!(sandbox.list().at(path).id, before.at(path).id);
    }
}

#[test]
fn repositories_under_a_root_are_found_at_start_and_when_they_appear() {
    let sandbox = Sandbox::new();
    let code = sandbox.path("code");
    fs::create_dir_all(code.join("group")).unwrap();
    sandbox.configure(&format!("engine = \"none\"\nprobe = false\nroots = [{code:?}]\n"));
    let old = sandbox.repo("code/old");
    let linked = old.add("linked");
    let elsewhere = sandbox.repo("elsewhere");
    let daemon = sandbox.daemon();
    daemon.await_agreement(&old);
    let clone = |from: &Repo<'_>, to: &Path, option: &str| {
        let arguments = ["clone", "-q", option, from.path.to_str().unwrap(), to.to_str().unwrap()];
        elsewhere.git(arguments);
        Repo::at(&sandbox, to)
    };
    let new = clone(&old, &code.join("new"), "--no-hardlinks");
    let nested = clone(&old, &code.join("group/nested"), "--no-hardlinks");
    let bare = clone(&old, &code.join("group/bare.git"), "--bare");
    daemon.await_state(&new.path, "active");
    daemon.await_state(&nested.path, "active");
    let of_bare = code.join("group/of-bare");
    bare.git(["worktree", "add", "-q", of_bare.to_str().unwrap(), "main"]);
    let rows = daemon.await_state(&of_bare, "active");
    rows.assert_disjoint();
    assert!(rows.find(&linked).is_some());
    assert!(rows.find(&elsewhere.path).is_none(), "it lies under no root");
    fs::create_dir_all(code.join("later/deeper")).unwrap();
    let later = clone(&old, &code.join("later/deeper/app"), "--no-hardlinks");
    daemon.await_state(&later.path, "active");
}

#[test]
fn a_root_that_is_a_bare_repository_itself_is_watched_as_any_other() {
    let sandbox = Sandbox::new();
    let bare = sandbox.path("bare.git");
    sandbox.configure(&format!("engine = \"none\"\nprobe = false\nroots = [{bare:?}]\n"));
    let origin = sandbox.repo("origin");
    origin.git(["clone", "-q", "--bare", origin.path.to_str().unwrap(), bare.to_str().unwrap()]);
    let daemon = sandbox.daemon();
    let known = || daemon.get("/v1/repositories").ok();
    until("it is found", known, |known| known.as_array().is_some_and(|known| known.len() == 1));
    let bare = Repo::at(&sandbox, &bare);
    for name in ["one", "two"] {
        let path = sandbox.path(name);
        bare.add_at(&path, name);
        daemon.await_state(&path, "active");
    }
    bare.remove(&sandbox.path("one"));
    daemon.await_list("it is gone", |rows| rows.find(&sandbox.path("one")).is_none());
}

#[test]
fn a_repository_that_appeared_under_a_root_among_lost_events_is_found() {
    let sandbox = Sandbox::new();
    let code = sandbox.path("code");
    fs::create_dir(&code).unwrap();
    sandbox.configure(&format!("engine = \"none\"\nprobe = false\nroots = [{code:?}]\n"));
    let daemon = sandbox.daemon();
    let old = sandbox.repo("code/old");
    daemon.await_state(&old.path, "active");
    // By its watches, which the noise is to be heard by as well.
    let one = old.add("one");
    daemon.await_state(&one, "active");
    if !can_overflow_queue() {
        return;
    }
    daemon.sigstop();
    overflow_queue(&old.path.join(".git")).unwrap();
    let new = sandbox.repo("code/new");
    daemon.sigcont();
    daemon.await_state(&new.path, "active");
    assert!(daemon.log().contains("lost events"), "or the test has shown nothing: {}", daemon.log());
}

#[test]
fn what_cannot_be_read_is_unknown_and_never_gone() {
    if !require::unprivileged() {
        return;
    }
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let nobody = crate::harness::Nobody::of(&sandbox);
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    nobody.own(sandbox.root());
    let daemon = nobody.daemon();
    let list = || Rows::parse(&nobody.client(["list", "--json", "--all"]).ok());
    nobody.client(["add", repo.path.to_str().unwrap()]).ok();
    let id = list().at(&one).id.clone();
    let close = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o000)).unwrap();
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    for path in [one, repo.path.join(".git/worktrees"), repo.path.join(".git"), repo.path.clone()] {
        close(&path);
        let rows = until("it is missing", list, |rows| rows.id(&id).is_some_and(|row| !row.is("active")));
        assert!(rows.id(&id).unwrap().is("missing"), "{}: {rows:#?}", path.display());
        open(&path);
        until("it is back", list, |rows| rows.id(&id).is_some_and(|row| row.is("active")));
    }
    drop(daemon);
}

#[test]
fn deleting_a_repository_is_not_disturbed_by_its_allocation_file() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    // Somewhere in the middle `rm` comes to the allocation file, and it takes its time for the rest.
    for number in 0..3 {
        let repo = sandbox.repo(&format!("r{number}"));
        for object in 0..1000 {
            let directory = repo.path.join(format!(".git/objects/{:02x}", object % 256));
            fs::create_dir_all(&directory).unwrap();
            fs::write(directory.join(format!("{object:038x}")), "").unwrap();
        }
        daemon.put(&repo.path);
        until("it is written", || repo.path.join(".git/wtd.json").is_file(), |is_there| *is_there);
        Ran::of(sandbox.command("rm").arg("-rf").arg(&repo.path)).quiet();
        assert!(!repo.path.exists());
    }
}

#[test]
fn a_repository_that_is_restored_file_by_file_is_noticed() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo);
    let backup = sandbox.path("backup");
    Ran::of(sandbox.command("cp").arg("-a").arg(&repo.path).arg(&backup)).ok();
    fs::remove_dir_all(&repo.path).unwrap();
    daemon.await_state(&one, "missing");
    // Slow enough to be met in the middle.
    let restored = ["", ".git", ".git/objects", ".git/worktrees"].map(|part| repo.path.join(part));
    for directory in restored {
        fs::create_dir(directory).unwrap();
    }
    let mut events = daemon.events(None);
    Ran::of(sandbox.command("cp").arg("-a").arg(backup.join(".")).arg(&repo.path)).ok();
    while events.next().data["allocation"]["state"] != "active" {}
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).id, before.at(&one).id);
    assert_eq!(rows.at(&repo.path).id, before.at(&repo.path).id);
}

#[test]
fn a_repository_that_was_forgotten_is_not_learned_again_by_a_late_event() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    for number in 0..20 {
        daemon.put(&repo.path);
        let path = repo.add(&format!("w{number}"));
        sandbox.client(["forget", "-y", repo.path.to_str().unwrap()]).ok();
        // Whatever was under way when it was forgotten is over when another repository's change is seen.
        let other = sandbox.repo(&format!("other{number}"));
        daemon.put(&other.path);
        other.add("one");
        daemon.await_agreement(&other);
        let rows = sandbox.list();
        assert!(rows.find(&path).is_none() && rows.find(&repo.path).is_none(), "{rows:#?}");
    }
}

#[test]
fn a_repository_that_another_one_took_the_place_of_is_missing() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let daemon = sandbox.daemon();
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo);
    daemon.terminate();
    fs::remove_dir_all(&repo.path).unwrap();
    fs::remove_dir_all(&one).unwrap();
    let repo = sandbox.repo("app");
    let daemon = sandbox.daemon();
    let rows = daemon.await_agreement(&repo);
    for row in before.iter() {
        let now = rows.id(&row.id).unwrap();
        assert!(
            now.is("missing") && now.reason.contains("another repository"),
            "nobody removed it: {now:#?}"
        );
    }
    let new = rows.iter().find(|row| row.is("active") && row.exact_path() == repo.path).unwrap();
    assert_eq!(new.offset, 20_000, "and their data is out of reach");
}

#[test]
fn a_directory_without_an_entry_is_missing_until_it_is_deleted() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, _two) = (repo.add("one"), repo.add("two"));
    let id = daemon.await_agreement(&repo).at(&one).id.clone();
    fs::remove_dir_all(repo.git_dir_of(&one)).unwrap();
    let mut events = daemon.events(None);
    daemon.await_state(&one, "missing");
    fs::remove_dir_all(&one).unwrap();
    // With nobody looking.
    let mut released = |id: &str| loop {
        let event = events.next();
        if event.kind == "released" {
            break event.data["allocation"]["id"] == id;
        }
    };
    assert!(released(&id));
}
