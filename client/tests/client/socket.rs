//! Finding the daemon: where it is looked for, and what may stand there instead.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use crate::support::{Sandbox, Server, allocation, answer, client_program, has, run};

/// No wait of the client's is nearly as long; a hang is.
const HANG: Duration = Duration::from_secs(30);

fn good() -> Vec<u8> {
    answer(200, &allocation(Path::new("/w"), &[]))
}

#[test]
fn the_places_are_tried_in_order() {
    let sandbox = Sandbox::new();
    let state = Server::at(sandbox.path("home/.local/state/wtd/wtd.sock"), |_, stream| {
        stream.write_all(&good()).unwrap();
    });
    // A socket that nobody listens on any more, as a killed daemon leaves it.
    fs::create_dir_all(sandbox.path("run/wtd")).unwrap();
    drop(UnixListener::bind(sandbox.path("run/wtd/wtd.sock")).unwrap());
    let get = ["get", "PORT_OFFSET"];
    assert_eq!(run(&mut sandbox.client(&get)).done(), "10000\n");
    assert_eq!(state.requests().len(), 1);
    fs::remove_file(sandbox.path("run/wtd/wtd.sock")).unwrap();
    let runtime = Server::at(sandbox.path("run/wtd/wtd.sock"), |_, stream| {
        stream.write_all(&good()).unwrap();
    });
    assert_eq!(run(&mut sandbox.client(&get)).done(), "10000\n");
    assert_eq!((runtime.requests().len(), state.requests().len()), (1, 1));
    // Whoever names a socket means that one only.
    let other = sandbox.path("none");
    run(sandbox.client(&["list"]).env("WTD_SOCKET", &other)).failed(4, "none: no daemon answers");
    run(sandbox.client(&["list", "--socket"]).arg(&other)).failed(4, "none: no daemon answers");
    assert_eq!((runtime.requests().len(), state.requests().len()), (1, 1));
}

#[test]
fn what_is_no_socket_is_named() {
    let sandbox = Sandbox::new();
    fs::write(sandbox.path("file"), "").unwrap();
    fs::create_dir(sandbox.path("dir")).unwrap();
    assert!(sandbox.command("mkfifo").arg(sandbox.path("fifo")).status().unwrap().success());
    std::os::unix::fs::symlink("nowhere", sandbox.path("dangling")).unwrap();
    let long = "x".repeat(120);
    for (name, words) in [
        ("file", "a file, not a socket"),
        ("dir", "a directory, not a socket"),
        ("fifo", "a FIFO, not a socket"),
        ("dangling", "a symbolic link to nothing"),
        ("missing", "no daemon answers"),
        ("file/below", "Not a directory"),
        (&long, "107"),
    ] {
        // Not even where starting a daemon is allowed: it could not serve there either.
        let mut client = sandbox.client(&["list", "--socket"]);
        client.arg(sandbox.path(name)).env_remove("WTD_NO_START").env("PATH", "/nonexistent");
        let ended = run(&mut client);
        if name == "missing" {
            ended.failed(4, "no `wtd`");
        } else {
            ended.failed(4, words);
        }
    }
}

#[test]
fn the_longest_path_that_fits_works() {
    let sandbox = Sandbox::new();
    let dir = sandbox.path("");
    let name = "x".repeat(wtd_protocol::socket::MAX_PATH_BYTES - dir.as_os_str().len());
    let server = Server::at(dir.join(name), |_, stream| stream.write_all(&good()).unwrap());
    assert_eq!(server.run(&sandbox, &["get", "PORT_OFFSET"]).done(), "10000\n");
}

#[test]
fn a_server_that_never_answers_is_given_up() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository("r");
    let listener = UnixListener::bind(sandbox.path("s")).unwrap();
    let begin = Instant::now();
    for verb in [&["env"][..], &["list"], &["status"], &["events"], &["reassign"]] {
        let mut client = sandbox.client(verb);
        client.args(["--timeout", "100ms"]).env("WTD_SOCKET", sandbox.path("s")).current_dir(&repository);
        run(&mut client).failed(4, "within the time allowed");
    }
    assert!(begin.elapsed() < HANG);
    drop(listener);
}

#[test]
fn the_daemon_that_does_not_answer_is_named_and_not_the_first_place() {
    let sandbox = Sandbox::new();
    let place = sandbox.path("home/.local/state/wtd/wtd.sock");
    fs::create_dir_all(place.parent().unwrap()).unwrap();
    let _listener = UnixListener::bind(&place).unwrap();
    for verb in ["list", "status"] {
        let mut client = sandbox.client(&[verb, "--timeout", "100ms"]);
        // `status` would wait for the same daemon, and is no remedy.
        run(&mut client).failed(
            4,
            &format!(
                "{} gave no answer: no answer came within the time allowed; look at the daemon's log",
                place.display()
            ),
        );
    }
}

#[test]
fn what_to_do_without_a_daemon_depends_on_who_keeps_the_client_from_starting_one() {
    let sandbox = Sandbox::new();
    run(&mut sandbox.client(&["list"])).failed(4, "start `wtd`, or ask without --no-start and WTD_NO_START");
    for verb in ["status", "reload"] {
        run(&mut sandbox.client(&[verb])).failed(4, "start `wtd`; `wtd-client list` does so");
    }
}

#[test]
fn a_server_that_never_answers_is_given_up_before_any_work_is_asked_of_it() {
    let sandbox = Sandbox::new();
    let repository = sandbox.repository("r");
    // The connections stay open, so that nothing but its own patience ends a client's wait.
    let (open, kept) = std::sync::mpsc::channel();
    let server =
        Server::at(sandbox.path("s"), move |_, stream| open.send(stream.try_clone().unwrap()).unwrap());
    let file = sandbox.write("backup.tar", "");
    let commands = [
        &["gc", "--dry-run"][..],
        &["gc", "-y"],
        &["seed"],
        &["restore", file.to_str().unwrap()],
        &["reassign"],
        &["trust"],
        &["reload"],
        &["doctor"],
        &["add", "."],
        &["forget", ".", "-y"],
        &["compose"],
    ];
    let children = commands.map(|command| {
        let mut client = server.client(&sandbox, command);
        let client = client.current_dir(&repository).stdout(Stdio::piped()).stderr(Stdio::piped());
        (command, client.spawn().unwrap())
    });
    for (command, child) in children {
        let ended = crate::support::Ended::from(child.wait_with_output().unwrap());
        if command == ["doctor"] {
            assert_eq!(ended.code, Some(1), "{ended:?}");
            assert!(ended.stdout.contains("within the time allowed"), "{ended:?}");
        } else {
            ended.failed(4, "within the time allowed");
        }
    }
    let asked: Vec<_> = server.requests().into_iter().map(|request| request.line).collect();
    assert_eq!(asked, vec!["GET /v1/health"; commands.len()]);
    drop(kept);
}

#[test]
fn a_daemon_that_answers_has_the_time_that_its_work_takes() {
    let sandbox = Sandbox::new();
    let (never, hears) = std::sync::mpsc::channel::<()>();
    let server = Server::at(sandbox.path("s"), move |request, stream| {
        let reloaded = serde_json::json!({
            "file": null, "changed": [], "needs_restart": [],
            "repository": "/repo/.git", "whole_repository": true, "allocations": [],
            "watched_by": "inotify", "active": 300, "missing": 0, "stale": 0,
        });
        if request.line != "GET /v1/health" {
            // Longer than the client waits for one that has not answered.
            hears.recv_timeout(Duration::from_millis(2500)).ok();
        }
        drop(stream.write_all(&answer(200, &reloaded)));
    });
    assert!(server.run(&sandbox, &["reload"]).done().contains("nothing has changed"));
    // A large repository takes its time on a busy disk.
    assert!(server.run(&sandbox, &["add", "."]).done().contains("300 active"));
    assert!(server.run(&sandbox, &["forget", ".", "-y"]).done().contains("no longer watched"));
    // `--timeout` is for all of it.
    server.run(&sandbox, &["reload", "--timeout", "100ms"]).failed(4, "within the time allowed");
    drop(never);
}

#[test]
fn a_server_that_takes_no_connection_is_given_up() {
    let sandbox = Sandbox::new();
    let listener = UnixListener::bind(sandbox.path("s")).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    let waiting = std::os::unix::net::UnixStream::connect(sandbox.path("s")).unwrap();
    let begin = Instant::now();
    let mut client = sandbox.client(&["list", "--timeout", "100ms", "--socket"]);
    run(client.arg(sandbox.path("s"))).failed(4, "takes no connection");
    assert!(begin.elapsed() < HANG);
    drop((listener, waiting));
}

#[test]
fn a_server_that_answers_byte_by_byte_is_given_up_when_the_time_is_over() {
    let sandbox = Sandbox::new();
    let server = Server::at(sandbox.path("s"), |_, stream| {
        let (idle, _other_end) = std::os::unix::net::UnixStream::pair().unwrap();
        idle.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        // Ends when the client has gone.
        for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(b"X: y\r\n".iter().cycle()) {
            if stream.write_all(&[*byte]).is_err() {
                return;
            }
            drop(std::io::Read::read(&mut &idle, &mut [0]));
        }
    });
    let begin = Instant::now();
    server.run(&sandbox, &["list", "--timeout", "0.2"]).failed(4, "within the time allowed");
    assert!(begin.elapsed() < HANG);
}

#[test]
fn another_users_server_is_refused() {
    if !rustix::process::geteuid().is_root() || !has("setpriv") {
        eprintln!("skipped: only root can be two users");
        return;
    }
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, good());
    let program = sandbox.path("wtd-client");
    fs::copy(client_program(), &program).unwrap();
    fs::set_permissions(sandbox.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(sandbox.path("s"), fs::Permissions::from_mode(0o666)).unwrap();
    let mut client = sandbox.command("setpriv");
    client.args(["--reuid=65534", "--clear-groups"]).arg(program).args(["list", "--socket"]);
    run(client.arg(sandbox.path("s"))).failed(4, "runs as uid 0");
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn a_server_outside_of_the_clients_pid_namespace_is_the_users_all_the_same() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, good());
    let mut unshare = sandbox.command("unshare");
    unshare.args(["--map-root-user", "--pid", "--fork", "--mount-proc"]);
    if !has("unshare") || run(unshare.arg("true")).code != Some(0) {
        eprintln!("skipped: namespaces can't be made here");
        return;
    }
    let mut client = sandbox.command("unshare");
    client.args([
        "--map-root-user",
        "--pid",
        "--fork",
        "--mount-proc",
        client_program(),
        "get",
        "PORT_OFFSET",
    ]);
    assert_eq!(run(client.env("WTD_SOCKET", sandbox.path("s"))).done(), "10000\n");
    assert_eq!(server.requests().len(), 1);
}
