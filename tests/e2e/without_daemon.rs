//! `wtd-client` where no daemon answers: what it says, what it reads instead, and how it starts one.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::harness::{Daemon, Ran, Sandbox, until};

#[test]
fn without_a_daemon_and_without_leave_to_start_one_the_exit_code_is_4() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    for arguments in [
        &["env"][..],
        &["get", "PORT_OFFSET"],
        &["exec", "--", "true"],
        &["list"],
        &["list", "--json"],
        &["add", "."],
        &["forget", "-y", "."],
        &["reassign"],
        &["check"],
        &["status"],
        &["events"],
    ] {
        let mut command = sandbox.client_command(["--no-start"]);
        let line = Ran::of(command.args(arguments).current_dir(&repo.path)).fails(4);
        assert!(line.contains("wtd.sock"), "{line}");
        sandbox.client_in(&repo.path, arguments).fails(4);
    }
    assert!(!sandbox.socket().exists(), "and none was started");
    assert_eq!(sandbox.client(["env"]).quiet(), "", "outside of a worktree there is nothing to ask");
}

#[test]
fn a_server_that_never_answers_is_given_up_on() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    fs::create_dir(sandbox.path("run/wtd")).unwrap();
    let _listener = UnixListener::bind(sandbox.socket()).unwrap();
    for arguments in [&["env"][..], &["get", "PORT_OFFSET"], &["list"], &["status"]] {
        let mut command = sandbox.client_command(arguments);
        let line = Ran::of(command.args(["--timeout", "200ms"]).current_dir(&repo.path)).fails(4);
        assert!(line.contains("no answer") || line.contains("time"), "{line}");
    }
}

#[test]
fn a_daemon_whose_starter_lost_patience_serves_all_the_same() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let mut command = sandbox.command(Sandbox::program("wtd"));
    let (nobody, stdout) = io::pipe().unwrap();
    drop(nobody);
    command.arg("--detached");
    let daemon = Daemon::start_with_stdout(&sandbox, command, stdout.into());
    assert_eq!(daemon.put(&repo.path)["offset"], 0);
    daemon.terminate();
}

#[test]
fn a_server_that_talks_nonsense_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    fs::create_dir(sandbox.path("run/wtd")).unwrap();
    let listener = UnixListener::bind(sandbox.socket()).unwrap();
    let answers: [&[u8]; 7] = [
        b"\x00\xff garbage\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
    ];
    for answer in answers {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                drop(stream.read(&mut request));
                drop(stream.write_all(answer));
            });
            let ran = sandbox.client_in(&repo.path, ["env", "--timeout", "5s"]);
            assert!(matches!(ran.code, Some(1 | 4)), "{answer:?}: {ran:#?}");
            ran.fails(ran.code.unwrap());
        });
    }
}

#[test]
fn what_is_no_socket_is_told_by_name() {
    let sandbox = Sandbox::new();
    let (file, directory) = (sandbox.path("file"), sandbox.path("directory"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&directory).unwrap();
    let long = sandbox.path("x".repeat(120));
    for path in [file, directory, long] {
        let line = sandbox.client([OsStr::new("list"), "--socket".as_ref(), path.as_ref()]).fails(4);
        assert!(line.contains(path.to_str().unwrap()), "{line}");
        let mut command = sandbox.client_command(["list"]);
        assert_eq!(Ran::of(command.env("WTD_SOCKET", &path)).fails(4), line);
    }
}

#[test]
fn with_the_daemon_gone_the_allocation_file_answers_for_its_own_worktree_only() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let before = sandbox.client_in(&one, ["env", "--shell", "sh"]).ok();
    daemon.terminate();

    assert_eq!(sandbox.client_in(&one, ["env", "--shell", "sh"]).quiet(), before);
    assert_eq!(sandbox.client_in(&one, ["get", "DB_HOST_PORT"]).quiet(), "15432\n");
    assert_eq!(sandbox.client_in(&one, ["exec", "--", "sh", "-c", "echo $PORT_OFFSET"]).quiet(), "10000\n");
    fs::create_dir(one.join("below")).unwrap();
    assert_eq!(sandbox.client_in(&one.join("below"), ["get", "PORT_OFFSET"]).quiet(), "10000\n");
    sandbox.client(["list"]).fails(4);

    // A worktree that nobody has seen has no file, and gets no offset by default.
    let two = repo.add("two");
    for arguments in [&["env"][..], &["get", "PORT_OFFSET"], &["exec", "--", "true"]] {
        sandbox.client_in(&two, arguments).fails(4);
    }
    // Moved by hand, a copy, another worktree's file: not about this path.
    let moved = sandbox.path("moved");
    fs::rename(&one, &moved).unwrap();
    sandbox.client_in(&moved, ["get", "PORT_OFFSET"]).fails(4);
    fs::rename(&moved, &one).unwrap();
    let file = repo.git_dir(&one).join("wtd.json");
    let good = fs::read(&file).unwrap();
    fs::write(repo.git_dir(&two).join("wtd.json"), &good).unwrap();
    sandbox.client_in(&two, ["get", "PORT_OFFSET"]).fails(4);

    let change = |change: &dyn Fn(&mut Value)| {
        let mut value: Value = serde_json::from_slice(&good).unwrap();
        change(&mut value);
        value.to_string().into_bytes()
    };
    let bad = [
        Vec::new(),
        b"{".to_vec(),
        good[..good.len() / 2].to_vec(),
        vec![b' '; 1 << 20],
        change(&|value| value["format"] = 99.into()),
        change(&|value| value["offset"] = 0.into()),
        change(&|value| value["variables"]["PATH"] = "/evil".into()),
        change(&|value| value["variables"]["LD_PRELOAD"] = "/evil.so".into()),
        change(&|value| value["variables"]["A;touch PWNED"] = "x".into()),
        change(&|value| value["variables"]["DB_VOLUME"] = "a\u{0}b".into()),
    ];
    for bytes in bad {
        fs::write(&file, &bytes).unwrap();
        let line = sandbox.client_in(&one, ["env", "--shell", "sh"]).fails(4);
        assert!(line.contains("wtd.json"), "{line}");
    }
    fs::remove_file(&file).unwrap();
    Ran::of(sandbox.command("mkfifo").arg(&file)).ok();
    sandbox.client_in(&one, ["env"]).fails(4);
    fs::remove_file(&file).unwrap();
    let daemon = sandbox.daemon();
    daemon.await_agreement(&repo);
    assert_eq!(sandbox.offset(&one), 10_000, "the daemon knows better than any file");
    until("the file is there again", || file.is_file(), |there| *there);
}

#[test]
fn a_client_that_finds_no_daemon_starts_one_that_stays() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let start = |arguments: &[&str]| {
        Ran::of(sandbox.client_command(arguments).args(["--timeout", "20s"]).current_dir(&repo.path))
    };
    assert_eq!(start(&["get", "PORT_OFFSET"]).quiet(), "0\n");
    let health = |sandbox: &Sandbox| -> Value {
        serde_json::from_str(&sandbox.client(["status", "--json"]).ok()).unwrap()
    };
    let pid = health(&sandbox)["pid"].clone();
    assert_eq!(start(&["get", "PORT_OFFSET"]).quiet(), "0\n");
    assert_eq!(health(&sandbox)["pid"], pid, "the same daemon");
    // It belongs to nobody's terminal, directory or pipes.
    let process = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).unwrap();
    assert_eq!(process("cwd"), Path::new("/"));
    for descriptor in ["fd/0", "fd/1", "fd/2"] {
        assert_eq!(process(descriptor), Path::new("/dev/null"), "{descriptor}");
    }
    let process = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = process.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(Value::from(fields[3].parse::<i64>().unwrap()), pid, "a session of its own");
    // It is found by --socket and WTD_SOCKET too, and started there.
    let other = sandbox.path("other.sock");
    let mut command = sandbox.client_command(["get", "PORT_OFFSET", "--timeout", "20s", "--socket"]);
    let ran = Ran::of(command.arg(&other).current_dir(&repo.path));
    let line = if ran.code == Some(0) { ran.text() } else { ran.fails(4) };
    assert!(line == "0\n" || line.contains("held by"), "one daemon for a registry: {line}");
}

#[test]
fn a_started_daemon_holds_no_descriptor_of_the_callers() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    // As a script locks a file, or a test runner waits for the end of a pipe. sh itself opens none above 9.
    let script =
        "exec 3>low; exec {high}>high; exec {higher}>>high; exec wtd-client get PORT_OFFSET --timeout 20s";
    let mut bash = sandbox.command("bash");
    assert_eq!(Ran::of(bash.args(["-c", script]).current_dir(&repo.path)).quiet(), "0\n");
    let health: Value = serde_json::from_str(&sandbox.client(["status", "--json"]).ok()).unwrap();
    let descriptors = fs::read_dir(format!("/proc/{}/fd", health["pid"])).unwrap();
    let open = descriptors.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    let of_the_caller: Vec<_> = open.filter(|file| file.starts_with(&repo.path)).collect();
    assert!(of_the_caller.is_empty(), "{of_the_caller:?}");
}

#[test]
fn a_started_daemon_ends_at_sigterm_whatever_signals_its_caller_blocks() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let mut caller = sandbox.command("env");
    caller.args(["--block-signal", "wtd-client", "get", "PORT_OFFSET", "--timeout", "20s"]);
    assert_eq!(Ran::of(caller.current_dir(&repo.path)).quiet(), "0\n");
    let health: Value = serde_json::from_str(&sandbox.client(["status", "--json"]).ok()).unwrap();
    let pid = health["pid"].to_string();
    Ran::of(sandbox.command("kill").arg(&pid)).ok();
    until("it has ended", || Path::new("/proc").join(&pid).join("exe").exists(), |is_there| !is_there);
}

#[test]
fn a_daemon_that_is_dying_is_not_in_the_way_of_one_at_another_socket() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    // As after kill -9: the kernel has not closed all that the process had open, so connections are still taken, and
    // nobody answers.
    let dying = sandbox.path("dying.sock");
    let listener = UnixListener::bind(&dying).unwrap();
    fs::create_dir_all(sandbox.registry().parent().unwrap()).unwrap();
    let lock = fs::File::create(sandbox.registry().with_extension("lock")).unwrap();
    lock.lock().unwrap();
    let pid = std::process::id();
    (&lock).write_all(format!("wtd with process id {pid} serving {}", dying.display()).as_bytes()).unwrap();
    let mut client = sandbox.client_command(["get", "PORT_OFFSET", "--timeout", "20s"]);
    let client =
        client.current_dir(&repo.path).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The new daemon has found the registry held, and asks who is there.
    let (mut asking, _) = listener.accept().unwrap();
    asking.read_exact(&mut [0]).unwrap();
    drop((lock, listener, asking));
    let ended = client.wait_with_output().unwrap();
    assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (&b"0\n"[..], &b""[..]));
}
