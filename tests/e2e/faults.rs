//! The registry's ground gives way: a full disk, one that fails, one that can't be written, that vanishes, that somebody
//! else has. While it lasts what is known is told; afterwards everything is as if it had not been.

use std::fs;
use std::path::Path;

use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _, Row as _};

use crate::harness::{Daemon, Mount, Ran, Repo, Sandbox, Tampering, require, until};

/// A daemon that looks at everything again every second.
fn restless() -> Sandbox {
    Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n")
}

/// A daemon that knows `app`, whose main worktree has offset 0, and not yet `other`.
fn with_app_and_other(sandbox: &Sandbox) -> (Daemon<'_>, Repo<'_>, Repo<'_>) {
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    assert_eq!(daemon.put(&repo.path)["offset"], 0);
    (daemon, repo, other)
}

/// The registry can't be written: what is not recorded does not exist, and what is known is told.
#[track_caller]
fn assert_nothing_can_be_recorded(sandbox: &Sandbox, daemon: &Daemon<'_>, known: &Path, unknown: &Path) {
    daemon
        .http("PUT", "/v1/worktrees", Some(&json!({ "path": unknown })))
        .is_problem(503, "registry-unavailable");
    let line = sandbox.client_in(unknown, ["env"]).fails(1);
    assert!(line.contains("registry"), "{line}");
    assert_eq!(daemon.put(known)["offset"], 0, "what is known is still told");
    assert!(sandbox.list().find(unknown).is_none());
}

/// After a fault: the daemon serves, and another one that is started afterwards has every allocation as it was.
#[track_caller]
fn assert_nothing_was_lost(sandbox: &Sandbox, daemon: Daemon<'_>, offsets: &[u16]) {
    let before = sandbox.list_all();
    before.assert_disjoint();
    assert_eq!(before.offsets(), offsets);
    daemon.kill9();
    let _daemon = sandbox.daemon();
    let after = sandbox.list_all();
    for row in before.iter() {
        let same = after.id(&row.id).unwrap_or_else(|| panic!("{row:#?} was lost: {after:#?}"));
        assert_eq!((same.offset, &same.state, same.exact_path()), (row.offset, &row.state, row.exact_path()));
    }
    assert_eq!(sql(&sandbox.registry(), "PRAGMA integrity_check"), ["ok"]);
}

/// Runs a statement on the registry, beside whoever has it open; gives the first column of what it gives.
fn sql(registry: &Path, statement: &'static str) -> Vec<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(registry);
        let mut connection = options.connect().await.unwrap();
        let rows = sqlx::query(statement).fetch_all(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        rows.iter().map(|row| row.try_get(0).unwrap_or_default()).collect()
    })
}

/// Waits until the daemon has given up on the changes that it could not record, for now.
#[track_caller]
fn await_failed_attempts(daemon: &Daemon<'_>) {
    let failures = || daemon.log().matches("registry not written").count();
    until("it has tried again and again", failures, |count| *count >= 6);
}

#[test]
fn what_a_full_disk_kept_from_being_recorded_is_recorded_when_there_is_room_with_nobody_asking() {
    let sandbox = restless();
    if !require::mounts(&sandbox.path("state")) {
        return;
    }
    let disk = Mount::tmpfs(&sandbox.path("state"), "2m");
    let (daemon, repo, _) = with_app_and_other(&sandbox);
    let one = repo.add("one");
    daemon.await_state(&one, "active");
    let filler = disk.fill();
    let two = repo.add("two");
    repo.remove(&one);
    await_failed_attempts(&daemon);
    fs::remove_file(filler).unwrap();
    let rows = daemon.await_agreement(&repo);
    assert!(rows.find(&two).is_some());
    let offset = rows.at(&two).offset;
    // Nothing is left of it anywhere, so that it does not stay stale.
    daemon.await_state(&one, "released");
    assert_nothing_was_lost(&sandbox, daemon, &[0, offset]);
}

#[test]
fn a_read_only_state_directory_is_told_and_serves_again_when_it_can_be_written() {
    let sandbox = restless();
    let state = sandbox.path("state");
    if !require::mounts(&state) {
        return;
    }
    let mount = Mount::bind(&state, &state);
    let (daemon, repo, other) = with_app_and_other(&sandbox);
    // Files that are open for writing keep a file system from becoming read-only, a bind mount they don't: a daemon
    // that is started finds it so.
    daemon.terminate();
    mount.make_read_only(true);
    let (status, log) = Daemon::refused(&sandbox, sandbox.command(Sandbox::program("wtd")));
    let line = log.lines().last().unwrap_or_default();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(line.starts_with("wtd: ") && line.contains("state/wtd") && line.contains("Read-only"), "{log}");
    assert_eq!(sandbox.client_in(&repo.path, ["get", "PORT_OFFSET"]).ok(), "0\n", "from its file");
    // A client that starts one hears on what it failed.
    let refused = Ran::of(&mut sandbox.client_command(["list"]));
    assert_eq!(refused.code, Some(4), "{refused:#?}");
    assert!(refused.stderr.contains("state/wtd") && refused.stderr.contains("Read-only"), "{refused:#?}");
    mount.make_read_only(false);
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&other.path)["offset"], 10_000);
    assert_nothing_was_lost(&sandbox, daemon, &[0, 10_000]);
}

#[test]
fn a_disk_that_fails_is_told_and_loses_nothing() {
    if !Tampering::is_possible() {
        return;
    }
    for (calls, how) in
        [("fdatasync,fsync", "error=EIO"), ("pwrite64", "error=EIO"), ("pwrite64", "error=ENOSPC")]
    {
        let sandbox = restless();
        let (daemon, repo, other) = with_app_and_other(&sandbox);
        let fault = Tampering::with(&daemon, calls, how);
        assert_nothing_can_be_recorded(&sandbox, &daemon, &repo.path, &other.path);
        let one = repo.add("one");
        await_failed_attempts(&daemon);
        drop(fault);
        daemon.await_agreement(&repo);
        daemon.put(&other.path);
        let rows = sandbox.list();
        assert!(rows.find(&one).is_some() && rows.find(&other.path).is_some(), "{calls} {how}");
        assert_nothing_was_lost(&sandbox, daemon, &[0, 10_000, 20_000]);
    }
}

#[test]
fn a_registry_that_another_process_has_locked_is_waited_for_within_bounds() {
    let sandbox = restless();
    let (daemon, repo, other) = with_app_and_other(&sandbox);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (connect, lock) =
        (sqlx::sqlite::SqliteConnectOptions::new().filename(sandbox.registry()), "BEGIN EXCLUSIVE");
    let mut thief = runtime.block_on(async {
        let mut connection = connect.connect().await.unwrap();
        sqlx::raw_sql(lock).execute(&mut connection).await.unwrap();
        connection
    });
    let line = sandbox.client_in(&other.path, ["env", "--timeout", "15s"]).fails(1);
    assert!(line.contains("registry") && line.contains("locked"), "{line}");
    assert_eq!(daemon.put(&repo.path)["offset"], 0, "what is known is still told");
    // Nobody waits longer than they said.
    sandbox.client_in(&other.path, ["env", "--timeout", "300ms"]).fails(4);
    let one = repo.add("one");
    // One that is started meanwhile tells what was recorded before.
    daemon.kill9();
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.path)["offset"], 0);
    runtime.block_on(async {
        sqlx::raw_sql("ROLLBACK").execute(&mut thief).await.unwrap();
        thief.close().await.unwrap();
    });
    daemon.await_agreement(&repo);
    assert_eq!(daemon.put(&other.path)["offset"], 20_000);
    assert_eq!(sandbox.list().at(&one).offset, 10_000);
    assert_nothing_was_lost(&sandbox, daemon, &[0, 10_000, 20_000]);
}

#[test]
fn a_registry_that_is_replaced_while_open_is_noticed_and_the_other_file_is_not_touched() {
    let sandbox = restless();
    let (daemon, repo, other) = with_app_and_other(&sandbox);
    let one = repo.add("one");
    daemon.await_state(&one, "active");
    // A backup that somebody puts back under the running daemon.
    let (registry, copy) = (sandbox.registry(), sandbox.path("state/wtd/copy.db"));
    let vacuum = format!("VACUUM INTO '{}'", copy.display());
    sql(&registry, Box::leak(vacuum.into_boxed_str()));
    let bytes = fs::read(&copy).unwrap();
    fs::rename(&copy, &registry).unwrap();
    assert_nothing_can_be_recorded(&sandbox, &daemon, &repo.path, &other.path);
    let line = sandbox.client_in(&other.path, ["env"]).fails(1);
    assert!(line.contains("deleted or replaced") && line.contains("restart"), "{line}");
    assert_eq!(fs::read(&registry).unwrap(), bytes);
    let doctor = sandbox.client(["doctor", "--json"]);
    assert_eq!(doctor.code, Some(1), "{}", doctor.text());
    let health = daemon.get("/v1/health").ok();
    assert_eq!(health["status"], "degraded", "{health:#}");
    daemon.terminate();
    assert_eq!(fs::read(&registry).unwrap(), bytes);
    let daemon = sandbox.daemon();
    assert_eq!(sandbox.list().at(&one).offset, 10_000);
    assert_eq!(daemon.put(&other.path)["offset"], 20_000);
    assert_nothing_was_lost(&sandbox, daemon, &[0, 10_000, 20_000]);
}

#[test]
fn a_state_directory_that_vanishes_is_noticed_and_serves_again_when_it_is_back() {
    let sandbox = restless();
    let (disk, state) = (sandbox.path("disk"), sandbox.path("state"));
    fs::create_dir(&disk).unwrap();
    if !require::mounts(&disk) {
        return;
    }
    let _disk = Mount::tmpfs(&disk, "8m");
    let mounted = Mount::bind(&disk, &state);
    let (daemon, repo, other) = with_app_and_other(&sandbox);
    drop(mounted);
    assert_nothing_can_be_recorded(&sandbox, &daemon, &repo.path, &other.path);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 0, "nothing is made in its place");
    let doctor = sandbox.client(["doctor", "--json"]);
    assert_eq!(doctor.code, Some(1), "{}", doctor.text());
    let one = repo.add("one");
    let mounted = Mount::bind(&disk, &state);
    daemon.await_agreement(&repo);
    assert_eq!(sandbox.list().at(&one).offset, 10_000);
    assert_eq!(daemon.put(&other.path)["offset"], 20_000);
    assert_nothing_was_lost(&sandbox, daemon, &[0, 10_000, 20_000]);
    drop(mounted);
}

#[test]
fn a_registry_without_its_write_ahead_log_is_noticed() {
    let sandbox = restless();
    let (daemon, repo, other) = with_app_and_other(&sandbox);
    fs::remove_file(sandbox.registry().with_extension("db-wal")).unwrap();
    // What is written to a log that has no name any more is lost at the next start.
    assert_nothing_can_be_recorded(&sandbox, &daemon, &repo.path, &other.path);
}

#[test]
fn a_registry_of_a_later_version_is_not_touched_even_where_its_log_was_not_brought_home() {
    let sandbox = Sandbox::new();
    let (daemon, ..) = with_app_and_other(&sandbox);
    daemon.terminate();
    // As a daemon of that version leaves it that was killed.
    let registry = sandbox.registry();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = ["db", "db-wal"].map(|extension| registry.with_extension(extension));
    let left = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&registry);
        let mut connection = options.connect().await.unwrap();
        let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                     VALUES (99991231000000, 'later', 1, x'00', 0)";
        sqlx::raw_sql(later).execute(&mut connection).await.unwrap();
        let left = files.clone().map(|file| fs::read(file).unwrap());
        connection.close().await.unwrap();
        left
    });
    assert!(!left[1].is_empty(), "or the test shows nothing");
    for (file, bytes) in files.iter().zip(&left) {
        fs::write(file, bytes).unwrap();
    }
    let (status, log) = Daemon::refused(&sandbox, sandbox.command(Sandbox::program("wtd")));
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.lines().last().unwrap_or_default().contains("later version"), "{log}");
    assert_eq!(files.map(|file| fs::read(file).unwrap()), left);
}

#[test]
fn an_allocation_file_that_found_no_room_is_written_when_there_is_some() {
    let sandbox = restless();
    let code = sandbox.path("code");
    fs::create_dir(&code).unwrap();
    if !require::mounts(&code) {
        return;
    }
    let disk = Mount::tmpfs(&code, "4m");
    let repo = sandbox.repo("code/app");
    let filler = disk.fill();
    let daemon = sandbox.daemon();
    let id = daemon.put(&repo.path)["id"].clone();
    let file = repo.path.join(".git/wtd.json");
    let read = || wtd_protocol::AllocationFile::parse(&fs::read(&file).unwrap_or_default()).ok();
    assert!(read().is_none(), "or the test shows nothing");
    fs::remove_file(filler).unwrap();
    let written = until("it is written", read, Option::is_some).unwrap();
    assert_eq!(id, written.id);
}

#[test]
fn a_client_finds_a_daemon_again_after_the_old_ones_socket_was_deleted() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    // As when a user logs out: the runtime directory goes, and who was started by a client stays.
    for (number, gone) in ["run/wtd/wtd.sock", "run/wtd", "run"].iter().enumerate() {
        let daemon = sandbox.daemon();
        daemon.put(&repo.path);
        let gone = sandbox.path(gone);
        fs::remove_file(&gone).or_else(|_| fs::remove_dir_all(&gone)).unwrap();
        let other = sandbox.repo(&format!("other{number}"));
        let ask = |path: &Path| {
            let mut command = sandbox.client_command(["get", "PORT_OFFSET", "--timeout", "20s"]);
            Ran::of(command.current_dir(path)).quiet()
        };
        assert_eq!(ask(&repo.path), "0\n", "{}", gone.display());
        assert_eq!(ask(&other.path), format!("{}0000\n", number + 1));
        assert!(daemon.log().contains("the socket is gone"), "{}", daemon.log());
        // The one that was started in its place.
        let status = Ran::of(&mut sandbox.client_command(["status", "--json"])).ok();
        let pid = serde_json::from_str::<serde_json::Value>(&status).unwrap()["pid"].as_i64().unwrap();
        let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let status = || Ran::of(sandbox.client_command(["status"]).env("WTD_NO_START", "1"));
        until("it is gone", status, |ran| ran.code == Some(4));
        fs::create_dir_all(sandbox.path("run")).unwrap();
    }
}
