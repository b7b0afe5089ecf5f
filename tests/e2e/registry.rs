//! The registry and the daemon's own life: started, refused, ended, damaged.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{Daemon, Mount, Nobody, Ran, Sandbox, require};

/// The one line with which `wtd` refuses to start.
#[track_caller]
fn refusal(sandbox: &Sandbox, command: Command) -> String {
    let (status, log) = Daemon::refused(sandbox, command);
    assert_eq!(status.code(), Some(1), "{log}");
    let line = log.lines().last().unwrap_or_default();
    assert!(line.starts_with("wtd: "), "{log}");
    line.to_owned()
}

fn wtd(sandbox: &Sandbox) -> Command {
    sandbox.command(Sandbox::program("wtd"))
}

fn with(mut command: Command, variable: &str, value: impl AsRef<std::ffi::OsStr>) -> Command {
    command.env(variable, value);
    command
}

/// The content of every file below a directory.
fn content(directory: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // The lock says who had it last.
        if path.is_file() && path.extension().is_none_or(|extension| extension != "lock") {
            files.push((path.clone(), fs::read(&path).unwrap()));
        }
    }
    files.sort();
    files
}

/// A registry with an allocation in it, closed in order.
fn used_registry(sandbox: &Sandbox) -> Vec<u8> {
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    daemon.terminate();
    fs::read(sandbox.registry()).unwrap()
}

/// Runs SQL on the registry, as a later version of wtd might have.
fn sql(registry: &Path, statement: &'static str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(registry);
        let mut connection = options.connect().await.unwrap();
        sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
    });
}

#[test]
fn a_registry_that_cannot_be_used_is_never_touched() {
    let sandbox = Sandbox::new();
    let good = used_registry(&sandbox);
    let registry = sandbox.registry();
    let state = registry.parent().unwrap();
    let middle = good.len() / 2;
    let mut damaged = good.clone();
    damaged[200..middle].fill(0xa5);
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty", Vec::new(), "damaged"),
        ("cut off in its header", good[..10].to_vec(), "damaged"),
        ("cut off in the middle", good[..middle].to_vec(), "damaged"),
        ("overwritten", damaged, "damaged"),
        ("text", b"this is not a database, but a note to myself\n".to_vec(), "damaged"),
        ("zeros", vec![0; good.len()], "damaged"),
    ];
    for (what, bytes, why) in cases {
        for entry in fs::read_dir(state).unwrap() {
            fs::remove_file(entry.unwrap().path()).unwrap();
        }
        fs::write(&registry, &bytes).unwrap();
        let line = refusal(&sandbox, wtd(&sandbox));
        assert!(line.contains(why) && line.contains("registry.db"), "{what}: {line}");
        assert_eq!(fs::read(&registry).unwrap(), bytes, "{what}");
        let beside = content(state).into_iter().filter(|(path, _)| *path != registry);
        for (path, bytes) in beside {
            // SQLite's index of a log that is empty.
            let name = path.file_name().unwrap().to_owned();
            assert!(
                name == "registry.db-shm" || (name == "registry.db-wal" && bytes.is_empty()),
                "{what}: {name:?}"
            );
        }
        // A client that would start a daemon says why there is none.
        let ran = Ran::of(sandbox.client_command(["list"]).env("WTD_LOG", "off"));
        let line = ran.fails(4);
        assert!(line.contains(why), "{what}: {line}");
        assert_eq!(fs::read(&registry).unwrap(), bytes, "{what}");
    }
}

#[test]
fn a_registry_of_a_later_version_or_another_program_is_refused_and_kept() {
    let sandbox = Sandbox::new();
    let good = used_registry(&sandbox);
    let registry = sandbox.registry();
    for (statement, why) in [
        (
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES (99991231000000, 'later', 1, x'00', 0)",
            "later version",
        ),
        ("PRAGMA application_id = 7", "another program"),
    ] {
        fs::write(&registry, &good).unwrap();
        sql(&registry, statement);
        let before = fs::read(&registry).unwrap();
        let line = refusal(&sandbox, wtd(&sandbox));
        assert!(line.contains(why), "{line}");
        assert_eq!(fs::read(&registry).unwrap(), before, "{why}");
    }
    fs::write(&registry, &good).unwrap();
    drop(sandbox.daemon());
    fs::remove_file(&registry).unwrap();
    fs::create_dir(&registry).unwrap();
    let line = refusal(&sandbox, wtd(&sandbox));
    assert!(line.contains("not a file"), "{line}");
}

#[test]
fn the_database_itself_refuses_two_live_allocations_on_one_offset_or_port() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    repo.add("one");
    daemon.await_agreement(&repo);
    daemon.terminate();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let errors = runtime.block_on(async {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sandbox.registry());
        let mut connection = options.connect().await.unwrap();
        let mut errors = Vec::new();
        for statement in [
            "UPDATE allocations SET offset = 0",
            "UPDATE ports SET port = 5432",
            "UPDATE volumes SET name = 'x'",
        ] {
            errors.push(sqlx::query(statement).execute(&mut connection).await.unwrap_err().to_string());
        }
        errors
    });
    assert!(errors.iter().all(|error| error.contains("UNIQUE constraint")), "{errors:?}");
}

#[test]
fn a_registry_that_is_deleted_while_open_is_noticed_and_not_made_anew() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    daemon.put(&repo.path);
    fs::remove_file(sandbox.registry()).unwrap();
    let answer = daemon.http("PUT", "/v1/worktrees", Some(&json!({ "path": other.path })));
    answer.is_problem(503, "registry-unavailable");
    let line = sandbox.client_in(&other.path, ["env"]).fails(1);
    assert!(line.contains("deleted or replaced"), "{line}");
    assert!(!sandbox.registry().exists());
    let doctor = sandbox.client(["doctor", "--json"]);
    assert_eq!(doctor.code, Some(1));
    assert!(doctor.text().contains("\"fail\""), "{}", doctor.text());
    assert_eq!(sandbox.offset(&repo.path), 0, "what is known is still answered");
}

#[test]
fn a_state_directory_that_cannot_be_written_is_told_by_name_and_changes_nothing() {
    if !require::unprivileged() {
        return;
    }
    let sandbox = Sandbox::new();
    let nobody = Nobody::of(&sandbox);
    nobody.own(sandbox.root());
    let state = sandbox.path("state");
    fs::set_permissions(&state, Permissions::from_mode(0o555)).unwrap();
    let line = refusal(&sandbox, nobody.command(sandbox.path("bin/wtd")));
    assert!(line.contains("state/wtd") && line.contains("Permission denied"), "{line}");
    fs::set_permissions(&state, Permissions::from_mode(0o755)).unwrap();

    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    nobody.own(sandbox.root());
    let env = |path: &Path| nobody.client(["env".as_ref(), "--path".as_ref(), path.as_os_str()]);
    let daemon = nobody.daemon();
    env(&repo.path).ok();
    daemon.terminate();
    let before = fs::read(sandbox.registry()).unwrap();
    for (path, mode) in [(sandbox.registry(), 0o444), (state.join("wtd"), 0o555)] {
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        // What is known is still told; nothing can be added.
        let daemon = nobody.daemon();
        env(&repo.path).ok();
        let line = env(&other.path).fails(1);
        assert!(line.contains("registry") && line.contains("readonly"), "{line}");
        daemon.terminate();
        assert_eq!(fs::read(sandbox.registry()).unwrap(), before);
    }
    fs::set_permissions(state.join("wtd"), Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_full_state_directory_is_an_error_that_loses_nothing() {
    let sandbox = Sandbox::new();
    if !require::mounts(&sandbox.path("state")) {
        return;
    }
    let disk = Mount::tmpfs(&sandbox.path("state"), "2m");
    let filler = disk.fill();
    let line = refusal(&sandbox, wtd(&sandbox));
    assert!(line.contains("state/wtd"), "{line}");
    fs::remove_file(&filler).unwrap();

    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    let id = daemon.put(&repo.path)["id"].clone();
    let filler = disk.fill();
    let line = sandbox.client_in(&other.path, ["env"]).fails(1);
    assert!(line.contains("registry"), "{line}");
    daemon
        .http("PUT", "/v1/worktrees", Some(&json!({ "path": other.path })))
        .is_problem(503, "registry-unavailable");
    assert_eq!(daemon.put(&repo.path)["id"], id, "what is known is still answered");
    assert_eq!(sandbox.list().active(None).len(), 1, "what was not recorded does not exist");
    let one = repo.add("one");
    fs::remove_file(&filler).unwrap();
    let mut offsets = [sandbox.offset(&other.path), sandbox.offset(&one)];
    offsets.sort_unstable();
    assert_eq!(offsets, [10_000, 20_000]);
    daemon.terminate();
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.path)["id"], id);
    assert_eq!(sandbox.list().offsets(), [0, 10_000, 20_000]);
}

#[test]
fn the_second_daemon_says_who_has_the_registry_and_disturbs_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let line = refusal(&sandbox, wtd(&sandbox));
    assert!(line.contains("registry.db") && line.contains(&format!("process id {}", daemon.pid())), "{line}");
    // The same socket with another registry.
    let line = refusal(&sandbox, with(wtd(&sandbox), "XDG_STATE_HOME", sandbox.path("other")));
    assert!(line.contains("wtd.sock") && line.contains("another wtd"), "{line}");
    assert_eq!(sandbox.offset(&repo.path), 0);
}

#[test]
fn sigterm_ends_the_daemon_in_order_and_sigkill_leaves_nothing_in_the_way() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    // Somebody who listens does not hold it up.
    let _events = daemon.events(None);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!((mode(&sandbox.socket()), mode(sandbox.socket().parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&sandbox.registry()) & 0o077, 0, "the registry is nobody else's");
    daemon.terminate();
    assert!(!sandbox.socket().exists());
    sandbox.daemon().kill9();
    assert!(sandbox.socket().exists());
    sandbox.client(["status"]).fails(4);
    let daemon = sandbox.daemon();
    sandbox.client(["status"]).ok();
    daemon.terminate();
}

#[test]
fn a_child_of_a_killed_daemon_that_has_not_become_git_yet_is_waited_for() {
    let sandbox = Sandbox::new();
    sandbox.daemon().kill9();
    // What such a child still has: the lock, which names the daemon that is no more, and the socket.
    let lock = fs::File::open(sandbox.registry().with_extension("lock")).unwrap();
    lock.try_lock().unwrap();
    fs::remove_file(sandbox.socket()).unwrap();
    let socket = UnixListener::bind(sandbox.socket()).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            drop(socket.accept());
            drop((socket, lock));
        });
        sandbox.daemon().terminate();
    });
}

#[test]
fn a_socket_directory_that_others_can_write_is_refused() {
    let sandbox = Sandbox::new();
    let directory = sandbox.path("run/wtd");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let line = refusal(&sandbox, wtd(&sandbox));
    assert!(line.contains("run/wtd") && line.contains("777"), "{line}");
    fs::remove_dir(&directory).unwrap();
    fs::create_dir(sandbox.path("elsewhere")).unwrap();
    std::os::unix::fs::symlink("../elsewhere", &directory).unwrap();
    refusal(&sandbox, wtd(&sandbox));
    fs::remove_file(&directory).unwrap();
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, Permissions::from_mode(0o700)).unwrap();
    fs::write(sandbox.socket(), "mine").unwrap();
    let line = refusal(&sandbox, wtd(&sandbox));
    assert!(line.contains("not a socket"), "{line}");
    assert_eq!(fs::read(sandbox.socket()).unwrap(), b"mine");
}

#[test]
fn a_socket_that_systemd_passes_is_served_and_left_in_place() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    fs::create_dir(sandbox.path("run/wtd")).unwrap();
    let listener = UnixListener::bind(sandbox.socket()).unwrap();
    let start = || {
        // As systemd does it (sd_listen_fds(3)): descriptor 3, and the process id of who is to take it.
        let script = "exec 3<&0 0</dev/null; export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\"";
        let mut command = sandbox.command("sh");
        command.args(["-c", script]).arg(Sandbox::program("wtd"));
        let descriptor = listener.try_clone().unwrap();
        Daemon::start_with_stdin(&sandbox, command, Stdio::from(std::os::fd::OwnedFd::from(descriptor)))
    };
    let daemon = start();
    assert_eq!(daemon.get("/v1/health").ok()["socket_from"], "systemd");
    assert_eq!(sandbox.offset(&repo.path), 0);
    daemon.terminate();
    assert!(sandbox.socket().exists());
    // A client that asks in between waits for the next daemon.
    let mut waiting = sandbox.client_command(["get", "PORT_OFFSET", "--timeout", "20s"]);
    let waiting = waiting.current_dir(&repo.path).stdout(Stdio::piped()).spawn().unwrap();
    let daemon = start();
    let output = waiting.wait_with_output().unwrap();
    assert_eq!(output.stdout, b"0\n");
    daemon.terminate();
}

#[test]
fn a_bad_configuration_is_refused_with_file_line_and_reason() {
    let sandbox = Sandbox::new();
    for (config, line, reason) in [
        ("probe = false\nengine = 7\n", 2, "integer"),
        ("\n\nstep = 0\n", 3, "not a step"),
        ("reserved_ports = [70000]\n", 1, "70000"),
        ("resync = \"1ms\"\n", 1, "1s"),
        ("unknown = 1\n", 1, "unknown"),
        ("probe = \n", 1, ""),
        ("listen = \"0.0.0.0:80\"\n", 1, "loopback"),
    ] {
        sandbox.configure(config);
        let text = refusal(&sandbox, wtd(&sandbox));
        assert!(
            text.contains(&format!("config.toml:{line}: ")) && text.contains(reason),
            "{config:?}: {text}"
        );
    }
    sandbox.configure("");
    let text = refusal(&sandbox, with(wtd(&sandbox), "WTD_STEP", "many"));
    assert!(text.contains("WTD_STEP"), "{text}");
    assert_eq!(Ran::of(wtd(&sandbox).arg("--nonsense")).code, Some(2));
    assert!(!sandbox.registry().exists());
}

#[test]
fn every_setting_is_also_a_flag_and_a_variable() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let started = |arguments: &[&str], variables: &[(&str, &str)]| {
        let mut command = wtd(&sandbox);
        command.args(arguments).envs(variables.iter().copied());
        let daemon = Daemon::start_command(&sandbox, command);
        let offset = daemon.put(&repo.path)["offset"].as_u64().unwrap();
        sandbox.client(["forget", "-y", repo.path.to_str().unwrap()]).ok();
        offset
    };
    assert_eq!(started(&["--reserved-ports", "5432,15432"], &[]), 20_000);
    assert_eq!(started(&[], &[("WTD_RESERVED_PORTS", "5432"), ("WTD_STEP", "500")]), 500);
    assert_eq!(started(&["--step", "700"], &[("WTD_RESERVED_PORTS", "5432"), ("WTD_STEP", "500")]), 700);
}

#[test]
fn the_registry_is_sqlite_in_wal_mode_and_keeps_its_history() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    assert!(sandbox.registry().with_extension("db-wal").exists());
    let bytes = fs::read(sandbox.registry()).unwrap();
    assert_eq!((bytes[18], bytes[19]), (2, 2), "WAL, in the file's own words (SQLite file format, 1.3)");
    drop(daemon);
}
