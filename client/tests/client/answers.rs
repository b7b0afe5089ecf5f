//! What is printed of the daemon's answers, and what becomes of its problems.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Sandbox, Server, allocation, answer, problem, run};

fn with_variables(sandbox: &Sandbox, variables: &[(&str, &str)]) -> Server {
    Server::saying(sandbox, answer(200, &allocation(Path::new("/w"), variables)))
}

#[test]
fn the_request_names_the_working_directory_exactly() {
    let sandbox = Sandbox::new();
    let server = with_variables(&sandbox, &[]);
    let dir = sandbox.path("").join(std::ffi::OsStr::from_bytes(b"a\xffb"));
    std::fs::create_dir(&dir).unwrap();
    run(server.client(&sandbox, &["env"]).current_dir(&dir)).done();
    run(&mut server.client(&sandbox, &["env", "--path", "x/../y"])).done();
    let [first, second] = server.requests().try_into().unwrap();
    assert_eq!(first.line, "PUT /v1/worktrees");
    for field in
        ["host: wtd", "connection: close", &format!("user-agent: wtd-client/{}", wtd_protocol::VERSION)]
    {
        assert!(first.head.contains(field), "{}", first.head);
    }
    let request: wtd_protocol::requests::PathRequest = serde_json::from_value(first.json()).unwrap();
    assert_eq!(request.path().unwrap(), dir);
    assert_eq!(second.json()["path"], sandbox.path("x/../y").to_str().unwrap());
}

#[test]
fn env_prints_all_variables_or_those_that_are_asked_for() {
    let sandbox = Sandbox::new();
    let server = with_variables(&sandbox, &[]);
    assert_eq!(
        server.run(&sandbox, &["env", "--shell", "sh"]).done(),
        "export DB_HOST_PORT=15432\nexport PORT_OFFSET=10000\nexport WTD_WORKTREE=/w\n"
    );
    assert_eq!(
        server.run(&sandbox, &["env", "--shell=sh", "PORT_OFFSET"]).done(),
        "export PORT_OFFSET=10000\n"
    );
    assert_eq!(
        server.run(&sandbox, &["env", "--format=dotenv", "DB_HOST_PORT", "PORT_OFFSET"]).done(),
        "DB_HOST_PORT=15432\nPORT_OFFSET=10000\n"
    );
    assert_eq!(server.run(&sandbox, &["get", "DB_HOST_PORT"]).done(), "15432\n");
    server.run(&sandbox, &["env", "PORT_OFFSET", "NOPE"]).failed(1, "NOPE");
    server.run(&sandbox, &["get", "NOPE"]).failed(1, "NOPE");
}

#[test]
fn json_is_one_flat_object_with_the_path_exactly() {
    let sandbox = Sandbox::new();
    let path = Path::new(std::ffi::OsStr::from_bytes(b"/w\xff"));
    let server = Server::saying(&sandbox, answer(200, &allocation(path, &[])));
    let object: Value =
        serde_json::from_str(server.run(&sandbox, &["env", "--format", "json"]).done()).unwrap();
    assert_eq!(
        object,
        json!({
            "DB_HOST_PORT": "15432", "PORT_OFFSET": "10000",
            "WTD_WORKTREE": "/w\u{fffd}", "path_base64": "L3f/",
        })
    );
    let bare = server.client(&sandbox, &["get", "WTD_WORKTREE"]).output().unwrap();
    assert_eq!(bare.stdout, b"/w\xff\n");
}

#[test]
fn a_variable_that_wtd_does_not_set_spoils_the_whole_answer() {
    for name in ["PATH", "LD_PRELOAD", "A;touch x", "a", "", "BASH_FUNC_x%%"] {
        let sandbox = Sandbox::new();
        let server = with_variables(&sandbox, &[(name, "x")]);
        for verb in [&["env"][..], &["get", "PORT_OFFSET"], &["exec", "true"], &["check"]] {
            server.run(&sandbox, verb).failed(1, "not one that wtd gives");
        }
    }
    let sandbox = Sandbox::new();
    with_variables(&sandbox, &[("X", "a\0b")]).run(&sandbox, &["env"]).failed(1, "NUL");
}

#[test]
fn outside_of_a_worktree_env_prints_nothing() {
    let sandbox = Sandbox::new();
    let server =
        Server::saying(&sandbox, problem(404, "not-in-a-worktree", "/x is not in a worktree", "go there"));
    assert_eq!(server.run(&sandbox, &["env"]).done(), "");
    assert_eq!(server.run(&sandbox, &["env", "--format=json", "PORT_OFFSET"]).done(), "");
    for verb in [&["env", "--strict"][..], &["get", "PORT_OFFSET"], &["exec", "true"]] {
        server.run(&sandbox, verb).failed(3, "/x is not in a worktree; go there");
    }
}

#[test]
fn a_working_directory_that_is_gone_is_in_no_worktree() {
    let sandbox = Sandbox::new();
    let server = with_variables(&sandbox, &[]);
    let gone = |arguments: &str| {
        let script =
            format!("mkdir d && cd d && rmdir ../d && {} {arguments}", crate::support::client_program());
        run(server.client(&sandbox, &[]).env("PATH", "/usr/bin:/bin").args(["--version"])).done();
        let mut command = sandbox.command("sh");
        run(command.args(["-c", &script]).env("WTD_SOCKET", sandbox.path("s")))
    };
    assert_eq!(gone("env").done(), "");
    gone("env --strict").failed(3, "gone");
}

#[test]
fn problems_have_their_exit_codes() {
    for (kind, status, code) in [
        ("not-in-a-worktree", 404, 3),
        ("path-not-found", 404, 1),
        ("path-unreadable", 422, 1),
        ("bad-request", 400, 1),
        ("forbidden", 403, 1),
        ("offsets-exhausted", 507, 5),
        ("volume-exists", 409, 1),
        ("not-registered", 404, 1),
        ("registry-unavailable", 503, 1),
        ("timeout", 504, 4),
        ("internal", 500, 1),
        ("of-a-later-version", 418, 1),
    ] {
        let sandbox = Sandbox::new();
        let server = Server::saying(&sandbox, problem(status, kind, "the\ndetail", "the remedy"));
        server.run(&sandbox, &["reassign"]).failed(code, "wtd-client: reassign: the\\ndetail; the remedy");
    }
}

#[test]
fn a_daemon_that_is_about_to_end_is_asked_again() {
    let sandbox = Sandbox::new();
    let count = std::sync::atomic::AtomicUsize::new(0);
    let server = Server::at(sandbox.path("s"), move |_, stream| {
        use std::io::Write;
        match count.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
            0 => {}
            1 => stream.write_all(&problem(503, "shutting-down", "ending", "wait")).unwrap(),
            _ => stream.write_all(&answer(200, &allocation(Path::new("/w"), &[]))).unwrap(),
        }
    });
    assert_eq!(server.run(&sandbox, &["get", "PORT_OFFSET"]).done(), "10000\n");
    assert_eq!(server.requests().len(), 3);
}

#[test]
fn what_may_have_been_carried_out_is_not_asked_again() {
    let sandbox = Sandbox::new();
    let server = Server::at(sandbox.path("s"), |request, stream| {
        use std::io::Write;
        if !request.line.starts_with("POST") {
            stream.write_all(&answer(200, &allocation(Path::new("/w"), &[]))).unwrap();
        }
    });
    server.run(&sandbox, &["reassign"]).failed(4, "closed");
    let requests = server.requests_for_work();
    let lines: Vec<&str> = requests.iter().map(|request| request.line.as_str()).collect();
    assert_eq!(lines, ["PUT /v1/worktrees", "POST /v1/worktrees/reassign"]);
}

#[test]
fn a_chunked_answer_is_put_together() {
    let sandbox = Sandbox::new();
    let body = allocation(Path::new("/w"), &[]).to_string();
    let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for chunk in body.as_bytes().chunks(7) {
        bytes.extend_from_slice(format!("{:x};ext=1\r\n", chunk.len()).as_bytes());
        bytes.extend_from_slice(chunk);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(b"0\r\nX-Trailer: 1\r\n\r\n");
    let server = Server::saying(&sandbox, bytes);
    assert_eq!(server.run(&sandbox, &["get", "PORT_OFFSET"]).done(), "10000\n");
}

#[test]
fn an_answer_that_ends_with_the_connection_is_read() {
    let sandbox = Sandbox::new();
    let body = allocation(Path::new("/w"), &[]);
    let server = Server::saying(&sandbox, format!("HTTP/1.1 200 OK\r\n\r\n{body}").into_bytes());
    assert_eq!(server.run(&sandbox, &["get", "PORT_OFFSET"]).done(), "10000\n");
}

#[test]
fn what_is_no_answer_of_wtd_prints_nothing() {
    let half = answer(200, &allocation(Path::new("/w"), &[]));
    let half = half[..half.len() - 40].to_vec();
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n{{}}").into_bytes();
    let mut long_head = b"HTTP/1.1 200 OK\r\nX: ".to_vec();
    long_head.resize(10_000_000, b'x');
    let many_fields = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(500)).into_bytes();
    for bytes in [
        b"".to_vec(),
        b"\0\xff\xfegarbage\r\n\r\n".to_vec(),
        b"SSH-2.0-OpenSSH_9.2\r\n".to_vec(),
        b"HTTP/1.1 200".to_vec(),
        half,
        long_head,
        many_fields,
        head("Content-Length: x"),
        head("Content-Length: -1"),
        head("Content-Length: 2\r\nContent-Length: 3"),
        head("Content-Length: 99999999999"),
        head("Content-Length: 2\r\nTransfer-Encoding: chunked"),
        head("Transfer-Encoding: gzip"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffffff\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}XX".to_vec(),
        answer(200, &json!({})),
        answer(200, &json!(null)),
        answer(200, &json!([1])),
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
        b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\n<html".to_vec(),
        format!("HTTP/1.1 200 OK\r\n\r\n{}", "[".repeat(100_000)).into_bytes(),
    ] {
        let sandbox = Sandbox::new();
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]).into_owned();
        let repository = sandbox.repository("r");
        let server = Server::saying(&sandbox, bytes);
        let ended = run(server.client(&sandbox, &["env"]).current_dir(&repository));
        assert_eq!(ended.code, Some(4), "{shown:?}: {ended:?}");
        ended.failed(4, "");
    }
}

#[test]
fn a_reader_that_is_gone_is_no_failure_and_a_full_disk_is_one() {
    let sandbox = Sandbox::new();
    let server = with_variables(&sandbox, &[]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ended = run(server.client(&sandbox, &["env"]).stdout(writer));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(0), ""));
    let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let status = server.client(&sandbox, &["env"]).stdout(full).output().unwrap();
    assert_eq!(status.status.code(), Some(1));
}

#[test]
fn usage_errors_are_one_line_that_names_the_command_and_its_help() {
    let sandbox = Sandbox::new();
    for (arguments, line) in [
        (&[][..], "usage: no command is given; see `wtd-client --help`"),
        (&["--no-start"], "usage: no command is given; see `wtd-client --help`"),
        (&["nonsense"], "usage: unrecognized subcommand 'nonsense'; see `wtd-client --help`"),
        (&["--nonsense", "env"], "env: unexpected argument '--nonsense' found; see `wtd-client env --help`"),
        (
            &["--socket", "list", "env", "--shel", "sh"],
            "env: unexpected argument '--shel' found (a similar argument exists: '--shell'); see `wtd-client env --help`",
        ),
        (
            &["list", "--nonsense"],
            "list: unexpected argument '--nonsense' found; see `wtd-client list --help`",
        ),
        (
            &["get"],
            "get: the following required arguments were not provided: <KEY>; see `wtd-client get --help`",
        ),
        (
            &["man", "nonsense"],
            "man: invalid value 'nonsense' for '[COMMAND]': there is no such command; see `wtd-client man --help`",
        ),
    ] {
        let ended = run(&mut sandbox.client(arguments));
        ended.failed(2, line);
        assert_eq!(ended.stderr, format!("wtd-client: {line}\n"));
    }
    for arguments in [
        &["env", "--shell", "tcsh"][..],
        &["env", "--timeout", "soon"],
        &["exec"],
        &["hook"],
        &["completions", "nonsense"],
    ] {
        run(&mut sandbox.client(arguments)).failed(2, &format!("wtd-client: {}: ", arguments[0]));
    }
    assert_eq!(
        run(&mut sandbox.client(&["--version"])).done(),
        format!("wtd-client {}\n", wtd_protocol::VERSION)
    );
    assert!(run(&mut sandbox.client(&["env", "--help"])).done().contains("--strict"));
}
