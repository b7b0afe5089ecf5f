//! The HTTP API over the Unix socket.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

use crate::harness::{DEADLINE, Daemon, Nobody, Ran, Sandbox, free_base, require};

#[test]
fn put_gives_the_allocation_and_is_idempotent() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let first = daemon.put(&repo.path);
    assert_eq!(first, daemon.put(&repo.path));
    assert_eq!(first, daemon.put(&repo.path.join("file")));
    assert_eq!((first["offset"].as_u64(), first["state"].as_str()), (Some(0), Some("active")));
    assert_eq!(first["variables"]["DB_HOST_PORT"], "5432");
    let body = json!({ "path": repo.path, "later": { "unknown": [1] } });
    assert_eq!(daemon.http("PUT", "/v1/worktrees", Some(&body)).ok(), first, "unknown fields are ignored");
    let repositories = daemon.get("/v1/repositories").ok();
    assert_eq!(
        (repositories[0]["watched_by"].as_str(), repositories[0]["active"].as_u64()),
        (Some("inotify"), Some(1))
    );
}

#[test]
fn lists_are_filtered_by_state() {
    let sandbox = Sandbox::with_config("engine = \"unix:///nonexistent.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, two) = (repo.add("one"), repo.add("two"));
    daemon.await_agreement(&repo);
    repo.remove(&one);
    fs::remove_dir_all(&two).unwrap();
    daemon.await_state(&one, "stale");
    daemon.await_state(&two, "missing");
    let states = |query: &str| -> Vec<String> {
        let list = daemon.get(&format!("/v1/worktrees{query}")).ok();
        list.as_array().unwrap().iter().map(|row| row["state"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(states("?state=active"), ["active"]);
    assert_eq!(states("?state=stale,missing"), ["stale", "missing"]);
    assert_eq!(states("?state=released"), Vec::<String>::new());
    assert_eq!(states("").len(), 3);
    daemon.get("/v1/worktrees?state=nonsense").is_problem(400, "bad-request");
}

#[test]
fn errors_are_problems_with_a_stable_type() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let put = |body: Value| daemon.http("PUT", "/v1/worktrees", Some(&body));
    put(json!({ "path": sandbox.root() })).is_problem(404, "not-in-a-worktree");
    put(json!({ "path": "/nonexistent/x" })).is_problem(404, "path-not-found");
    put(json!({ "path": "relative" })).is_problem(400, "bad-request");
    put(json!({ "path": "" })).is_problem(400, "bad-request");
    put(json!({})).is_problem(400, "bad-request");
    put(json!({ "path": "/a\u{0}b" })).is_problem(400, "bad-request");
    put(json!({ "path": 7 })).is_problem(400, "bad-request");
    put(json!({ "path_base64": "%%%" })).is_problem(400, "bad-request");
    put(json!([])).is_problem(400, "bad-request");
    daemon.get("/v1/nonsense").is_problem(404, "unknown-route");
    daemon.get("/").is_problem(404, "unknown-route");
    daemon.http("POST", "/v1/health", None).is_problem(405, "unknown-route");
    let problem = daemon.get("/v2/worktrees").is_problem(404, "unknown-route");
    assert!(problem["detail"].as_str().unwrap().contains("version 1"), "{problem:#}");
    daemon
        .http("DELETE", "/v1/repositories", Some(&json!({ "path": "/nonexistent" })))
        .is_problem(404, "not-registered");
}

#[test]
fn a_body_is_json_whatever_it_is_called_and_of_a_bounded_size() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let put = |fields: &str, body: &str| {
        daemon.send(&format!(
            "PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\n{fields}\r\n{body}"
        ))
    };
    // What curl -d says, which says nothing.
    for fields in ["", "Content-Type: application/x-www-form-urlencoded\r\n"] {
        put(&format!("{fields}Content-Length: 19\r\n"), r#"{"path":"/nowhere"}"#)
            .is_problem(404, "path-not-found");
    }
    put("Content-Type: application/json\r\nContent-Length: 1\r\n", "{").is_problem(400, "bad-request");
    let huge = "x".repeat(1 << 20);
    let fields = format!("Content-Type: application/json\r\nContent-Length: {}\r\n", huge.len());
    put(&fields, &huge).is_problem(413, "unreadable-body");
    put("Content-Type: application/json; charset=utf-8\r\nContent-Length: 19\r\n", r#"{"path":"/nowhere"}"#)
        .is_problem(404, "path-not-found");
    daemon.get("/v1/health").ok();
}

#[test]
fn garbage_hurts_nobody() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let long = format!("GET /{} HTTP/1.1\r\nHost: wtd\r\n\r\n", "x".repeat(1 << 20)).into_bytes();
    let fields =
        format!("GET /v1/health HTTP/1.1\r\nHost: wtd\r\n{}\r\n", "X: y\r\n".repeat(1000)).into_bytes();
    let cases: [&[u8]; 8] = [
        b"\x00\x01\x02\xff\xfe\r\n\r\n",
        b"\r\n\r\n\r\n\r\n",
        b"HELLO\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS greeting\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\nHost: wtd\r\n\r\n",
        b"PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nContent-Length: -5\r\n\r\n",
        &long,
        &fields,
    ];
    for bytes in cases {
        let answer = daemon.raw(bytes).unwrap();
        let text = String::from_utf8_lossy(&answer);
        let refused = answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.0 4");
        assert!(refused, "{:?}: {text}", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]));
    }
    // Half a request, and nothing after it; and those who hang up in the middle.
    let mut half: Vec<UnixStream> = Vec::new();
    for _ in 0..50 {
        let mut stream = UnixStream::connect(sandbox.socket()).unwrap();
        stream.write_all(b"PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nContent-Le").unwrap();
        half.push(stream);
    }
    daemon.get("/v1/health").ok();
    half.truncate(25);
    let mut body = UnixStream::connect(sandbox.socket()).unwrap();
    let head = "PUT /v1/worktrees HTTP/1.1\r\nHost: wtd\r\nContent-Type: application/json\r\nContent-Length: 50\r\n\r\n{";
    body.write_all(head.as_bytes()).unwrap();
    drop(body);
    daemon.get("/v1/health").ok();
    daemon.terminate();
    drop(half);
}

#[test]
fn requests_of_web_pages_are_refused() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let ask =
        |fields: &str| daemon.send(&format!("GET /v1/health HTTP/1.1\r\nConnection: close\r\n{fields}\r\n"));
    assert_eq!(ask("Host: wtd\r\n").status, 200);
    for fields in [
        "Host: wtd\r\nOrigin: http://evil.example\r\n",
        "Host: wtd\r\nOrigin: null\r\n",
        "Host: wtd\r\nReferer: http://evil.example/\r\n",
        "Host: wtd\r\nSec-Fetch-Site: cross-site\r\n",
    ] {
        ask(fields).is_problem(403, "forbidden");
    }
    // The kernel says who asks; what a program calls the socket says nothing.
    for host in ["localhost", "x", "127.0.0.1", "%2Frun%2Fwtd.sock"] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
}

#[test]
fn over_tcp_only_loopback_is_answered_and_only_when_asked_for() {
    let port = free_base();
    let sandbox =
        Sandbox::with_config(&format!("engine = \"none\"\nprobe = false\nlisten = \"127.0.0.1:{port}\"\n"));
    let _daemon = sandbox.daemon();
    let ask = |fields: &str| {
        let mut stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        write!(stream, "GET /v1/health HTTP/1.1\r\nConnection: close\r\n{fields}\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer.lines().next().unwrap().to_owned()
    };
    assert!(ask(&format!("Host: 127.0.0.1:{port}\r\n")).contains("200"));
    assert!(ask(&format!("Host: localhost:{port}\r\n")).contains("200"));
    assert!(ask("Host: rebound.example\r\n").contains("403"));
    assert!(ask(&format!("Host: 127.0.0.1:{port}\r\nOrigin: http://127.0.0.1:{port}\r\n")).contains("403"));

    let without = Sandbox::new();
    let daemon = without.daemon();
    let sockets = Ran::of(without.command("ls").arg("-l").arg(format!("/proc/{}/fd", daemon.pid()))).ok();
    let tcp = fs::read_to_string("/proc/net/tcp").unwrap()
        + &fs::read_to_string("/proc/net/tcp6").unwrap_or_default();
    for line in tcp.lines().filter(|line| line.split_whitespace().nth(3) == Some("0A")) {
        let inode = line.split_whitespace().nth(9).unwrap();
        assert!(!sockets.contains(&format!("socket:[{inode}]")), "it listens on TCP: {line}");
    }
}

#[test]
fn an_address_that_is_taken_keeps_the_daemon_from_serving_at_all() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(Sandbox::program("wtd"));
    command.arg("--listen").arg(taken.local_addr().unwrap().to_string());
    let (status, log) = Daemon::refused(&sandbox, command);
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains("can't listen on") && !log.contains("started"), "{log}");
}

#[test]
fn another_user_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    if !require::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let nobody = Nobody::of(&sandbox);
    let ask =
        || nobody.client([std::ffi::OsStr::new("list"), "--socket".as_ref(), sandbox.socket().as_ref()]);
    // The directory's and the socket's mode keep others out, and without them the daemon does.
    ask().fails(4);
    for path in [sandbox.path("run"), sandbox.path("run/wtd"), sandbox.socket()] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
    }
    ask().fails(4);
    let script = "use Socket; socket(S, PF_UNIX, SOCK_STREAM, 0); connect(S, sockaddr_un($ARGV[0])) or die $!; \
                  syswrite(S, \"GET /v1/worktrees HTTP/1.0\\r\\nHost: wtd\\r\\n\\r\\n\"); print while <S>";
    if require::program("perl") {
        let answer = Ran::of(nobody.command("perl").args(["-e", script]).arg(sandbox.socket())).ok();
        assert!(answer.contains(" 403 ") && answer.contains("urn:wtd:problem:forbidden"), "{answer}");
    }
    daemon.get("/v1/health").ok();
}

#[test]
fn a_path_that_is_not_utf8_travels_exactly() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let path = sandbox.path(std::ffi::OsStr::from_bytes(b"r\xff\xfe\n"));
    let repo = crate::harness::Repo::init(&sandbox, &path);
    let encoded = wtd_protocol::PathText::of(&path);
    let body = json!({ "path": "/ignored", "path_base64": encoded.base64 });
    let allocation = daemon.http("PUT", "/v1/worktrees", Some(&body)).ok();
    assert_eq!(allocation["path_base64"], json!(encoded.base64));
    assert_eq!(allocation["path"], json!(encoded.text), "and lossily for people");
    assert_eq!(sandbox.list().at(&path).exact_path(), path);
    assert_eq!(
        sandbox.client_in(&path, ["get", "WTD_WORKTREE"]).stdout,
        [path.as_os_str().as_bytes(), b"\n"].concat()
    );
    let one = sandbox.path(std::ffi::OsStr::from_bytes(b"w\xff"));
    repo.add_at(&one, "one");
    daemon.await_state(&one, "active");
    daemon.terminate();
    let _daemon = sandbox.daemon();
    assert_eq!(sandbox.list().at(&one).offset, 10_000);
}

#[test]
fn events_go_on_after_the_last_one_that_was_seen() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let mut live = daemon.events(None);
    daemon.put(&repo.path);
    let first = live.next();
    assert_eq!((first.kind.as_str(), first.data["sequence"].as_i64()), ("allocated", Some(first.id)));
    assert!(first.data["at"].as_str().unwrap().ends_with('Z'));
    let one = repo.add("one");
    let second = live.next();
    assert_eq!((second.data["allocation"]["path"].clone(), second.id), (json!(one), first.id + 1));
    repo.remove(&one);
    let mut told = vec![second];
    while told.last().is_none_or(|event| event.kind != "released") {
        told.push(live.next());
    }
    // git deletes the directory before its own entry, and may be seen in between.
    let kinds: Vec<&str> =
        told.iter().map(|event| event.kind.as_str()).filter(|kind| *kind != "missing").collect();
    assert_eq!(kinds, ["allocated", "stale", "released"]);
    daemon.terminate();

    let daemon = sandbox.daemon();
    let mut resumed = daemon.events(Some(first.id));
    for event in told {
        assert_eq!(resumed.next(), event);
    }
    let two = repo.add("two");
    assert_eq!(resumed.next().data["allocation"]["path"], json!(two), "and then live");
    let bad = "GET /v1/events HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\nLast-Event-ID: x\r\n\r\n";
    daemon.send(bad).is_problem(400, "bad-request");
}

#[test]
fn who_follows_events_of_a_registry_that_was_replaced_hears_of_the_new_one() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let mut events = daemon.events(Some(1_000_000));
    let one = repo.add("one");
    assert_eq!(events.next().data["allocation"]["path"], json!(one));
}

#[test]
fn the_openapi_document_names_every_route() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let document = daemon.get("/v1/openapi.json").ok();
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let described: Vec<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |method| (method.to_uppercase(), path.clone()))
        })
        .collect();
    for (method, path) in [
        ("PUT", "/v1/worktrees"),
        ("GET", "/v1/worktrees"),
        ("POST", "/v1/worktrees/reassign"),
        ("PUT", "/v1/worktrees/compose"),
        ("DELETE", "/v1/worktrees/compose"),
        ("GET", "/v1/repositories"),
        ("PUT", "/v1/repositories"),
        ("DELETE", "/v1/repositories"),
        ("GET", "/v1/trust"),
        ("PUT", "/v1/trust"),
        ("DELETE", "/v1/trust"),
        ("GET", "/v1/events"),
        ("GET", "/v1/health"),
        ("GET", "/v1/checks"),
        ("GET", "/metrics"),
    ] {
        assert!(described.contains(&(method.to_owned(), path.to_owned())), "{method} {path}: {described:?}");
    }
    for (method, path) in described.iter().filter(|(_, path)| path != "/v1/events") {
        let answer = daemon.http(method, path, None);
        assert!(!matches!(answer.status, 404 | 405 | 500), "{method} {path}: {answer:?}");
    }
    let text = document.to_string();
    assert!(text.contains("application/problem+json") && text.contains("Last-Event-ID"));
}

/// Takes Prometheus' text format apart, line by line; gives each series with its value.
fn metrics(daemon: &Daemon<'_>) -> Vec<(String, f64)> {
    let answer = daemon.get("/metrics");
    assert_eq!(answer.status, 200);
    let text = String::from_utf8(answer.body).unwrap();
    let series = text.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    series
        .map(|line| {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("{line}"));
            let bare = name.split('{').next().unwrap();
            assert!(bare.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'), "{line}");
            (name.to_owned(), value.parse().unwrap_or_else(|_| panic!("{line}")))
        })
        .collect()
}

#[test]
fn metrics_count_allocations_and_requests() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    repo.add("one");
    daemon.await_agreement(&repo);
    daemon.get("/v1/nonsense/with/a/path");
    let all = metrics(&daemon);
    let value = |part: &str, label: &str| {
        let found = all.iter().find(|(name, _)| name.contains(part) && name.contains(label));
        found.unwrap_or_else(|| panic!("{part} {label}: {all:?}")).1
    };
    assert!((value("wtd_allocations", "active") - 2.0).abs() < f64::EPSILON);
    assert!((value("wtd_repositories", "") - 1.0).abs() < f64::EPSILON);
    assert!(value("wtd_requests", "route=\"/v1/worktrees\"") >= 1.0);
    assert!(!all.iter().any(|(name, _)| name.contains("nonsense")), "nobody's paths become labels");
}
