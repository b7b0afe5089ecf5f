//! More than a daemon can take, and less than it needs: it stays within its bounds, and serves again afterwards.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::{Value, json};

use crate::harness::{DEADLINE, Daemon, Ran, Sandbox, require, until};

/// How much a daemon may grow, in KiB, while somebody tries to fill its memory.
const GROWTH_KIB: u64 = 24 * 1024;

/// Opens a connection and sends this.
fn send(sandbox: &Sandbox, bytes: &[u8]) -> UnixStream {
    let mut stream = UnixStream::connect(sandbox.socket()).unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    stream.write_all(bytes).unwrap();
    stream
}

/// A client is answered while others misbehave.
#[track_caller]
fn assert_served(sandbox: &Sandbox, path: &Path, offset: u16) {
    let mut command = sandbox.client_command(["get", "PORT_OFFSET", "--no-start", "--timeout", "20s"]);
    assert_eq!(Ran::of(command.current_dir(path)).quiet(), format!("{offset}\n"));
    let mut command = sandbox.client_command(["list", "--json", "--no-start", "--timeout", "20s"]);
    Ran::of(command.current_dir(path)).quiet();
}

#[test]
fn a_thousand_connections_at_once_are_all_answered() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let body = json!({ "path": repo.path }).to_string();
    let request = format!(
        "PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let before = daemon.resident_kib();
    let streams: Vec<UnixStream> = (0..1000).map(|_| send(&sandbox, request.as_bytes())).collect();
    for mut stream in streams {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"offset\":0"), "{answer}");
    }
    assert!(daemon.resident_kib() < before + GROWTH_KIB, "{before} {}", daemon.resident_kib());
    assert_served(&sandbox, &repo.path, 0);
}

#[test]
fn a_thousand_connections_that_say_nothing_keep_nobody_from_being_served() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    for bytes in [&b""[..], b"PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nContent-Le"] {
        let idle: Vec<UnixStream> = (0..1000).map(|_| send(&sandbox, bytes)).collect();
        assert_served(&sandbox, &repo.path, 0);
        drop(idle);
    }
}

#[test]
fn clients_that_never_read_are_hung_up_on() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    // More answers than a socket holds, on each of more connections than are served together.
    let requests = "GET /v1/openapi.json HTTP/1.1\r\nHost: wtd\r\n\r\n".repeat(40);
    let before = daemon.resident_kib();
    let deaf: Vec<UnixStream> = (0..600).map(|_| send(&sandbox, requests.as_bytes())).collect();
    assert_served(&sandbox, &repo.path, 0);
    let after = daemon.resident_kib();
    assert!(after < before + 3 * GROWTH_KIB, "{before} KiB, then {after}");
    // Those that read on after all find out.
    let mut first = deaf.into_iter().next().unwrap();
    let mut answers = Vec::new();
    drop(first.read_to_end(&mut answers));
    assert!(answers.starts_with(b"HTTP/1.1 200"));
}

#[test]
fn a_request_of_a_gigabyte_is_refused_unread() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let before = daemon.resident_kib();
    let head =
        "PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\nContent-Type: application/json\r\n";
    let piece = vec![b' '; 1 << 20];
    for (length, chunk) in [("Content-Length: 1073741824", ""), ("Transfer-Encoding: chunked", "100000\r\n")]
    {
        let mut stream = send(&sandbox, format!("{head}{length}\r\n\r\n").as_bytes());
        stream.set_write_timeout(Some(DEADLINE)).unwrap();
        let mut sent = 0_u64;
        let refused = loop {
            let written = stream
                .write_all(chunk.as_bytes())
                .and_then(|()| stream.write_all(&piece))
                .and_then(|()| if chunk.is_empty() { Ok(()) } else { stream.write_all(b"\r\n") });
            match written {
                Ok(()) => sent += piece.len() as u64,
                Err(error) => break error.kind(),
            }
            assert_ne!(sent, 1 << 30, "{length}: it took all of it");
        };
        assert!(matches!(refused, io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset), "{refused}");
        assert!(sent <= 16 << 20, "{length}: {sent} bytes were taken");
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        let text = String::from_utf8_lossy(&answer);
        assert!(text.is_empty() || text.starts_with("HTTP/1.1 413"), "{text}");
    }
    let after = daemon.resident_kib();
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after}");
    assert_served(&sandbox, &repo.path, 0);
}

/// Clients that were started, and the moment that this was.
struct Clients(Vec<Child>, Instant);

impl Clients {
    fn start(sandbox: &Sandbox, arguments: &[&str], directories: &[&Path]) -> Self {
        let start = |directory: &&Path| {
            let mut command = sandbox.client_command(arguments);
            command.arg("--no-start").current_dir(directory).stdin(Stdio::null());
            command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
        };
        Self(directories.iter().map(start).collect(), Instant::now())
    }

    /// What each printed, once all have ended, which has to be soon.
    fn end(self, soon: Duration) -> Vec<(Option<i32>, String)> {
        let outputs = self.0.into_iter().map(|client| client.wait_with_output().unwrap());
        let ended: Vec<_> = outputs
            .map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
            .collect();
        assert!(self.1.elapsed() < soon, "{:?}", self.1.elapsed());
        ended
    }
}

#[test]
fn clients_of_a_daemon_that_stands_still_wait_no_longer_than_they_said() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
    daemon.put(&repo.path);
    daemon.sigstop();
    // Two seconds are the default; starting twenty programs on a busy machine takes its time too.
    let soon = Duration::from_secs(15);
    let known = Clients::start(&sandbox, &["get", "PORT_OFFSET"], &[repo.path.as_path(); 20]);
    let unknown = Clients::start(&sandbox, &["env"], &[other.path.as_path(); 20]);
    for (code, stdout) in known.end(soon) {
        assert_eq!((code, stdout.as_str()), (Some(0), "0\n"), "the allocation file answers");
    }
    for (code, stdout) in unknown.end(soon) {
        assert_eq!((code, stdout.as_str()), (Some(4), ""));
    }
    daemon.sigcont();
    assert_eq!(daemon.put(&other.path)["offset"], 10_000, "one allocation for all that asked");
    sandbox.list_all().assert_disjoint();
    assert_eq!(sandbox.list_all().len(), 2);
}

/// The number of descriptors that a process has open.
fn descriptors(daemon: &Daemon<'_>) -> u64 {
    fs::read_dir(format!("/proc/{}/fd", daemon.pid())).unwrap().count() as u64
}

/// Sets how many descriptors a process may have (`prlimit(2)`); gives how many it might have before.
fn limit_descriptors(daemon: &Daemon<'_>, current: Option<u64>) -> Option<u64> {
    let pid = Pid::from_raw(daemon.pid().try_into().unwrap());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).unwrap().current
}

#[test]
fn out_of_descriptors_it_loses_nothing_and_says_so_once() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo);
    // The client is to answer from it.
    let file = repo.git_dir_of(&one).join("wtd.json");
    until("its allocation file is there", || file.is_file(), |is_there| *is_there);
    let mut events = daemon.events(None);
    // What it has open stays open; nothing can be opened any more.
    let limit = limit_descriptors(&daemon, Some(descriptors(&daemon)));
    let two = repo.add("two");
    let three = repo.add("three");
    repo.remove(&three);
    let idle: Vec<UnixStream> = (0..50).map(|_| send(&sandbox, b"")).collect();
    sandbox.client_in(&one, ["get", "PORT_OFFSET", "--timeout", "500ms"]).ok();
    until(
        "it has tried",
        || daemon.log(),
        |log| log.contains("Too many open files") || log.contains("os error 24"),
    );
    limit_descriptors(&daemon, limit);
    drop(idle);
    // With nobody asking.
    let end = Instant::now() + DEADLINE;
    let seen = std::iter::from_fn(|| events.next_until(end)).find(|event| {
        event.data["allocation"]["path"] == json!(two) && event.data["allocation"]["state"] == "active"
    });
    assert!(seen.is_some(), "{}", daemon.log());
    let rows = daemon.await_agreement(&repo);
    rows.assert_disjoint();
    assert!(before.iter().all(|row| rows.at(&row.exact_path()).id == row.id), "{rows:#?}");
    let complaints = daemon.log().matches("connection not accepted").count();
    assert!(complaints <= 2, "{complaints} lines: {}", daemon.log());
}

#[test]
fn without_any_inotify_repositories_are_polled() {
    if !require::user_namespaces() {
        return;
    }
    for limit in ["max_inotify_watches", "max_inotify_instances"] {
        let sandbox = Sandbox::new();
        let mut command = sandbox.command("unshare");
        let script = format!("echo 0 > /proc/sys/user/{limit} && exec \"$0\"");
        command.args(["-Ur", "sh", "-c", &script]).arg(Sandbox::program("wtd"));
        let daemon = Daemon::start_command(&sandbox, command);
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let one = repo.add("one");
        daemon.await_agreement(&repo);
        repo.mv(&one, &sandbox.path("moved"));
        daemon.await_state(&sandbox.path("moved"), "active");
        assert_eq!(sandbox.list().at(&sandbox.path("moved")).offset, 10_000);
        repo.remove(&sandbox.path("moved"));
        daemon.await_list("it is released", |rows| rows.iter().any(|row| row.is("released")));
        let health: Value = daemon.get("/v1/health").ok();
        assert_eq!(health["status"], "degraded", "{limit}: {health:#}");
        let inotify = |check: &Value| check["check"] == "inotify" && check["status"] == "warn";
        let checks = daemon.get("/v1/checks").ok();
        assert!(checks.as_array().unwrap().iter().any(inotify), "{limit}: {checks:#}");
        assert_eq!(daemon.log().matches("WARN").count(), 1, "{limit}: once: {}", daemon.log());
    }
}
