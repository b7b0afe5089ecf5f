//! The remaining verbs: list, add, forget, reassign, status, doctor, completions, man.

use std::io::Write as _;
use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Sandbox, Server, allocation, answer, problem, run};

fn worktree() -> Value {
    let mut worktree = allocation(Path::new("/w/\u{1b}[2Jx"), &[]);
    worktree["variables"].take();
    worktree.as_object_mut().unwrap().remove("variables");
    worktree["branch"] = "feature/\u{202e}x".into();
    worktree["listening"] = json!(["UI_PORT"]);
    worktree["conflicts"] =
        json!([{"variable": "UI_PORT", "port": 13000, "reason": "node (pid 9) listens on it"}]);
    worktree["passed_over"] = json!([
        {"offset": 0, "variable": "DB_HOST_PORT", "port": 5432, "reason": "postgres (pid 812) listens on it"}
    ]);
    worktree["warnings"] = json!(["[ports] UI_PORT: 70000 is no port"]);
    worktree
}

#[test]
fn list_shows_a_table_and_what_there_is_to_know() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, answer(200, &json!([worktree()])));
    let text = server.run(&sandbox, &["list"]).done().to_owned();
    for words in [
        "REPOSITORY  WORKTREE",
        "/repo ",
        "/w/\\u{1b}[2Jx",
        "feature/\\u{202e}x",
        "DB_HOST_PORT 15432 ",
        "UI_PORT 13000*",
        "db_data_10000",
        "active",
        "10000 feature/\\u{202e}x: port 13000 (UI_PORT) is taken: node (pid 9) listens on it\n",
        "10000 feature/\\u{202e}x: offset 0 was passed over: 5432 (DB_HOST_PORT): postgres (pid 812) listens on it\n",
        "[ports] UI_PORT: 70000 is no port\n",
    ] {
        assert!(text.contains(words), "{text} lacks {words}");
    }
    assert!(!text.contains('\u{1b}'), "{text:?}");
    assert_eq!(server.requests()[0].line, "GET /v1/worktrees?state=active,missing");
}

#[test]
fn list_as_json_hands_on_what_the_daemon_says() {
    let sandbox = Sandbox::new();
    let list = json!([worktree()]);
    let server = Server::saying(&sandbox, answer(200, &list));
    let printed: Value =
        serde_json::from_str(server.run(&sandbox, &["list", "--json", "--all"]).done()).unwrap();
    assert_eq!(printed, list);
    assert_eq!(server.requests()[0].line, "GET /v1/worktrees");
}

#[test]
fn add_and_reassign_say_what_was_done() {
    let sandbox = Sandbox::new();
    let repository = json!({
        "repository": "/repo/.git", "watched_by": "inotify", "active": 2, "missing": 1, "stale": 0,
        "unallocated": ["/repo/x: no offset left"],
    });
    let server = Server::saying(&sandbox, answer(200, &repository));
    let text = server.run(&sandbox, &["add", "."]).done().to_owned();
    assert_eq!(
        text,
        "/repo/.git: watched by inotify; 2 active, 1 missing, 0 stale\nwithout an allocation: /repo/x: no offset left\n"
    );
    assert_eq!(server.requests_for_work()[0].line, "PUT /v1/repositories");
    drop(server);
    std::fs::remove_file(sandbox.path("s")).unwrap();
    let server = Server::saying(&sandbox, answer(200, &allocation(Path::new("/w"), &[])));
    let text = server.run(&sandbox, &["reassign", "--force"]).done().to_owned();
    assert!(text.starts_with("/w now has offset 10000"), "{text}");
    let [before, request] = server.requests_for_work().try_into().unwrap();
    assert_eq!(before.line, "PUT /v1/worktrees");
    assert_eq!(
        (request.line.as_str(), &request.json()["force"]),
        ("POST /v1/worktrees/reassign", &json!(true))
    );
}

#[test]
fn forget_asks_or_is_told() {
    let sandbox = Sandbox::new();
    let forgotten = json!({
        "repository": "/repo/.git", "whole_repository": true, "allocations": [allocation(Path::new("/w"), &[])],
    });
    let server = Server::saying(&sandbox, answer(200, &forgotten));
    server.run(&sandbox, &["forget", "."]).failed(1, "pass -y");
    let text = server.run(&sandbox, &["forget", ".", "-y"]).done().to_owned();
    assert_eq!(
        text,
        "/w: offset 10000 is stale; its volumes stay until `wtd-client gc --missing`: db_data_10000\n/repo/.git is no longer watched\n"
    );
    let [look, request] = server.requests_for_work().try_into().unwrap();
    assert_eq!((look.line.as_str(), &look.json()["dry_run"]), ("DELETE /v1/repositories", &json!(true)));
    assert_eq!((&request.line, &request.json()["dry_run"]), (&look.line, &json!(false)));
    drop(server);
    std::fs::remove_file(sandbox.path("s")).unwrap();
    let unknown =
        problem(404, "not-registered", "/x is in no repository that wtd watches", "list shows them");
    let server = Server::saying(&sandbox, unknown);
    server.run(&sandbox, &["forget", "."]).failed(1, "/x is in no repository");
}

#[test]
fn gc_says_of_what_was_listed_and_is_another_by_now_that_it_is_let_alone() {
    let sandbox = Sandbox::new();
    let plan = json!({
        "engine": "unix:///e", "stacks": [], "offsets": [],
        "items": [{
            "path": "/w", "offset": 10_000, "kind": "volume", "name": "db_data_10000", "action": "drop",
            "reason": "git removed it", "done": false, "since": "2026-01-01T00:00:00Z", "allocation": "a", "token": "t",
        }],
    });
    let report =
        json!({ "event": "report", "engine": "unix:///e", "stacks": [], "offsets": [], "items": [] });
    let server = Server::at(sandbox.path("s"), move |request, stream| {
        // Each event is a line.
        let body = match request.line.as_str() {
            "GET /v1/health" => health().to_string(),
            _ if request.json()["dry_run"] == true => plan.to_string(),
            _ => format!("{report}\n"),
        };
        let head = format!("HTTP/1.1 200 X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
        drop(stream.write_all((head + &body).as_bytes()));
    });
    let text = server.run(&sandbox, &["gc", "-y"]).done().to_owned();
    assert!(text.contains("0 volumes dropped."), "{text}");
    assert!(text.contains("db_data_10000 was not dropped: it has changed since it was listed"), "{text}");
    let json = server.run(&sandbox, &["gc", "-y", "--json"]).done().to_owned();
    let items: Value = serde_json::from_str(&json).unwrap();
    assert!(items[0]["action"] == "keep" && items[0]["done"] == false, "{json}");
}

fn health() -> Value {
    json!({
        "status": "degraded", "version": wtd_protocol::VERSION, "pid": 7, "uptime_seconds": 3_700,
        "registry": "/s/registry.db", "socket": "/r/wtd.sock", "socket_from": "systemd", "repositories": 2,
        "active": 3, "missing": 0, "stale": 1, "engine": "none", "degraded": ["watches are used up"],
    })
}

#[test]
fn status_is_one_screen() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, answer(200, &health()));
    let text = server.run(&sandbox, &["status"]).done().to_owned();
    for words in
        ["pid 7, up 1 h 1 min", "/r/wtd.sock (from systemd)", "3 active, 0 missing, 1 stale", "watches are"]
    {
        assert!(text.contains(words), "{text}");
    }
    let json: Value = serde_json::from_str(server.run(&sandbox, &["status", "--json"]).done()).unwrap();
    assert_eq!(json, health());
}

#[test]
fn doctor_joins_the_clients_checks_and_the_daemons() {
    let sandbox = Sandbox::new();
    let theirs = json!([
        {"check": "git", "status": "fail", "detail": "the client has seen to it", "remedy": ""},
        {"check": "inotify", "status": "warn", "detail": "8192 watches", "remedy": "sysctl"},
    ]);
    let server = Server::at(sandbox.path("s"), move |request, stream| {
        let body = if request.line.ends_with("checks") { theirs.clone() } else { health() };
        std::io::Write::write_all(stream, &answer(200, &body)).unwrap();
    });
    let checks: Vec<Value> =
        serde_json::from_str(server.run(&sandbox, &["doctor", "--json"]).done()).unwrap();
    let status = |name: &str| {
        let mut of_name = checks.iter().filter(|check| check["check"] == name);
        let status = of_name.next().map(|check| check["status"].as_str().unwrap().to_owned());
        assert!(of_name.next().is_none(), "{name} is there twice");
        status.unwrap_or_else(|| panic!("{name} is not there: {checks:?}"))
    };
    assert_eq!(
        ["daemon", "version", "git", "shell hook", "inotify"].map(status),
        ["warn", "ok", "ok", "warn", "warn"]
    );
    let text = server.run(&sandbox, &["doctor"]).done().to_owned();
    assert!(text.contains("warn inotify: 8192 watches\n     sysctl\n"), "{text}");
}

#[test]
fn doctor_fails_when_a_check_does() {
    let sandbox = Sandbox::new();
    let ended = run(&mut sandbox.client(&["doctor", "--json"]));
    assert_eq!((ended.code, ended.stderr.as_str()), (Some(1), ""));
    let checks: Vec<Value> = serde_json::from_str(&ended.stdout).unwrap();
    assert_eq!((&checks[0]["check"], &checks[0]["status"]), (&json!("daemon"), &json!("fail")));
    assert!(checks[0]["remedy"].as_str().is_some_and(|remedy| !remedy.is_empty()), "{checks:?}");
}

#[test]
fn completions_and_pages_are_printed() {
    let sandbox = Sandbox::new();
    let script = run(&mut sandbox.client(&["completions", "bash"])).done().to_owned();
    assert!(script.contains("--no-start") && script.contains("reassign"), "{script}");
    assert!(run(&mut sandbox.client(&["man"])).done().contains(".TH wtd-client 1"));
    assert!(run(&mut sandbox.client(&["man", "env"])).done().contains(".TH wtd-client-env 1"));
    run(&mut sandbox.client(&["man", "nonsense"])).failed(2, "nonsense");
}
