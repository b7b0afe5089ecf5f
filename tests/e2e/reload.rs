//! The daemon's configuration, read again while it runs.

use std::fs;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use crate::harness::{Daemon, Sandbox, free_base, free_port, require, until};

const PLAIN: &str = "engine = \"none\"\nprobe = false\n";

/// What `doctor` finds about the configuration: status, detail and remedy.
#[track_caller]
fn doctor(sandbox: &Sandbox) -> (String, String, String) {
    let ran = sandbox.client(["doctor", "--json"]);
    let checks: Value = serde_json::from_str(&ran.text()).unwrap_or_else(|error| panic!("{error}: {ran:#?}"));
    let check = checks.as_array().unwrap().iter().find(|check| check["check"] == "configuration").unwrap();
    let text = |key: &str| check[key].as_str().unwrap().to_owned();
    assert_eq!(ran.code == Some(0), text("status") != "fail", "{ran:#?}");
    (text("status"), text("detail"), text("remedy"))
}

#[track_caller]
fn reload(sandbox: &Sandbox) -> Value {
    serde_json::from_str(&sandbox.client(["reload", "--json"]).ok()).unwrap()
}

#[test]
fn sighup_puts_a_changed_file_in_force_and_tells_systemd() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    sandbox.configure(&format!("{PLAIN}reserved_ports = [15432]\n"));
    assert_eq!(doctor(&sandbox).0, "warn", "what is written is not in force yet");
    let said = daemon.sighup();
    assert_eq!(said.first().map(String::as_str), Some("RELOADING=1"));
    let time = said.iter().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).unwrap();
    assert!(time.parse::<u64>().unwrap() > 0);
    assert_eq!(said.last().map(String::as_str), Some("READY=1"));
    let one = repo.add("one");
    assert_eq!(daemon.await_agreement(&repo).at(&one).offset, 20_000, "15432 is reserved");
    assert_eq!(doctor(&sandbox).0, "ok");
    daemon.terminate();
}

#[test]
fn no_offset_changes_by_a_reload() {
    let sandbox = Sandbox::new();
    let mut daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let before = sandbox.client_in(&one, ["env", "--format", "json"]).ok();
    sandbox.configure(&format!("{PLAIN}reserved_ports = [\"5000-60000\"]\nstep = 7\nresync = \"1s\"\n"));
    daemon.sighup();
    assert_eq!(sandbox.client_in(&one, ["env", "--format", "json"]).ok(), before);
    fs::write(one.join("wtd.toml"), "[ports]\nUI_PORT = 100\n").unwrap();
    let rows = daemon.await_list("the new port is looked at", |rows| !rows.at(&one).warnings.is_empty());
    assert_eq!((rows.at(&repo.path).offset, rows.at(&one).offset), (0, 10_000));
}

#[test]
fn a_broken_file_is_told_in_one_line_and_the_configuration_of_before_stays() {
    let sandbox = Sandbox::with_config(&format!("{PLAIN}step = 5000\n"));
    let mut daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    for (broken, why) in [
        ("step = 0\n", "config.toml:1: \"0\" is not a step"),
        ("\nport = 1\n", "config.toml:2: unknown field"),
        ("roots = [\n", "config.toml:1: unclosed array"),
        ("log = \"[\"\n", "is not a log filter"),
    ] {
        sandbox.configure(broken);
        let said = daemon.sighup();
        let status = said.iter().find_map(|line| line.strip_prefix("STATUS=")).unwrap();
        assert!(status.contains(why), "{status}");
        assert_eq!(said.last().map(String::as_str), Some("READY=1"), "it goes on");
        let (status, detail, remedy) = doctor(&sandbox);
        assert_eq!(status, "fail");
        assert!(detail.contains(why) && remedy.contains("wtd-client reload"), "{detail}; {remedy}");
        let line = sandbox.client(["reload"]).fails(1);
        assert!(line.contains(why), "{line}");
        daemon.await_reload();
        let status = sandbox.client(["status"]).ok();
        assert!(status.contains("degraded") && status.contains(why), "{status}");
        let problem = daemon.http("POST", "/v1/reload", Some(&json!({})));
        problem.is_problem(409, "invalid-configuration");
        daemon.await_reload();
        let log = daemon.log();
        let told = log.lines().filter(|line| line.contains("not reloaded") && line.contains(why)).count();
        assert_eq!(told, 3, "a line for each try: {log}");
    }
    let one = repo.add("one");
    assert_eq!(daemon.await_agreement(&repo).at(&one).offset, 5000);

    // A file that was removed says nothing, which is right.
    fs::remove_file(sandbox.path("config/wtd/config.toml")).unwrap();
    let said = daemon.sighup();
    assert!(said.contains(&"STATUS=".to_owned()), "the complaint is taken back: {said:?}");
    assert_eq!(doctor(&sandbox).0, "ok");
    assert!(!sandbox.client(["status"]).ok().contains("degraded"));
}

#[test]
fn what_takes_a_restart_is_told_until_there_is_one() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let port = free_base();
    sandbox.configure(&format!("{PLAIN}listen = \"127.0.0.1:{port}\"\nresync = \"10m\"\n"));
    let reloaded = reload(&sandbox);
    assert_eq!((&reloaded["changed"], &reloaded["needs_restart"]), (&json!(["resync"]), &json!(["listen"])));
    assert_eq!(reload(&sandbox)["needs_restart"], json!(["listen"]), "as long as it is so");
    assert_eq!(reload(&sandbox)["changed"], json!([]));
    let (status, detail, remedy) = doctor(&sandbox);
    assert_eq!(status, "warn");
    assert!(detail.contains("listen") && remedy.contains("restart"), "{detail}; {remedy}");
    assert!(daemon.log().contains("takes a restart"), "{}", daemon.log());
    assert!(free_port(port));
    daemon.terminate();
    let _daemon = sandbox.daemon();
    assert!(!free_port(port));
    assert_eq!(doctor(&sandbox).0, "ok");
}

#[test]
fn a_flag_goes_before_the_file_at_a_reload_too() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(Sandbox::program("wtd"));
    command.args(["--step", "3000", "--config", "config/wtd/config.toml"]);
    let daemon = Daemon::start_command(&sandbox, command);
    sandbox.configure(&format!("{PLAIN}step = 4000\n"));
    let reloaded = reload(&sandbox);
    assert_eq!(reloaded["changed"], json!([]));
    assert_eq!(
        reloaded["file"].as_str(),
        sandbox.path("config/wtd/config.toml").to_str(),
        "relative to where it began"
    );
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    assert_eq!(daemon.await_agreement(&repo).at(&one).offset, 3000);
}

#[test]
fn a_new_root_is_searched_and_one_that_is_dropped_no_more() {
    let sandbox = Sandbox::new();
    let (old, new) = (sandbox.path("old"), sandbox.path("new"));
    for root in [&old, &new] {
        fs::create_dir(root).unwrap();
    }
    let with_root = |root| format!("{PLAIN}roots = [{root:?}]\n");
    sandbox.configure(&with_root(&old));
    let daemon = sandbox.daemon();
    let first = sandbox.repo("old/first");
    daemon.await_agreement(&first);
    let waiting = sandbox.repo("new/waiting");
    sandbox.configure(&with_root(&new));
    assert_eq!(reload(&sandbox)["changed"], json!(["roots"]));
    daemon.await_agreement(&waiting);
    let unseen = sandbox.repo("old/unseen");
    for name in ["new/one", "new/two"] {
        daemon.await_agreement(&sandbox.repo(name));
    }
    let linked = first.add("linked");
    let rows = daemon.await_agreement(&first);
    assert!(rows.find(&linked).is_some(), "what was found stays watched");
    assert!(rows.find(&unseen.path).is_none());
    // And back again.
    sandbox.configure(&with_root(&old));
    reload(&sandbox);
    daemon.await_agreement(&unseen);
}

#[test]
fn probe_and_log_change_at_once() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let base = free_base();
    fs::write(repo.path.join("wtd.toml"), format!("[ports]\nDB_HOST_PORT = {base}\n")).unwrap();
    let _listener = std::net::TcpListener::bind(("127.0.0.1", base)).unwrap();
    sandbox.configure("engine = \"none\"\nprobe = true\nlog = \"wtd=debug\"\n");
    assert_eq!(reload(&sandbox)["changed"], json!(["probe", "log"]));
    assert_eq!(daemon.put(&repo.path)["offset"], 10_000, "something listens on {base}");
    assert!(daemon.log().contains("DEBUG"), "{}", daemon.log());
    sandbox.configure("engine = \"none\"\nprobe = true\nlog = \"warn\"\n");
    reload(&sandbox);
    let length = daemon.log().len();
    daemon.put(&sandbox.repo("other").path);
    assert_eq!(daemon.log().len(), length, "{}", daemon.log());
}

#[test]
fn an_engine_that_is_named_is_asked_at_once() {
    let sandbox = Sandbox::with_config("engine = \"unix:///nonexistent/engine.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    repo.remove(&one);
    daemon.await_state(&one, "stale");
    sandbox.configure(PLAIN);
    reload(&sandbox);
    daemon.await_state(&one, "released");
    assert_eq!(daemon.get("/v1/health").ok()["engine"], "none");
}

#[test]
fn the_time_between_looks_changes_at_once() {
    let sandbox = Sandbox::with_config(&format!("{PLAIN}resync = \"1h\"\n"));
    let above = sandbox.path("above");
    fs::create_dir(&above).unwrap();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let linked = above.join("linked");
    repo.add_at(&linked, "linked");
    daemon.await_agreement(&repo);
    // No event tells of this: the worktree's own directory is where it was in the one above it.
    fs::rename(&above, sandbox.path("elsewhere")).unwrap();
    assert!(sandbox.list_all().at(&linked).is("active"));
    sandbox.configure(&format!("{PLAIN}resync = \"1s\"\n"));
    reload(&sandbox);
    daemon.await_state(&linked, "missing");
}

#[test]
fn clients_notice_nothing_of_reloads() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let done = AtomicBool::new(false);
    let one = std::thread::scope(|scope| {
        let asking = || {
            scope.spawn(|| {
                let mut asked = 0;
                while !done.load(Ordering::Relaxed) {
                    assert_eq!(daemon.put(&repo.path)["offset"], 0);
                    asked += 1;
                }
                asked
            })
        };
        let clients = [asking(), asking(), asking(), asking()];
        let reloading = scope.spawn(|| {
            for step in 1..=50 {
                sandbox.configure(&format!("{PLAIN}step = {step}\n"));
                daemon.http("POST", "/v1/reload", Some(&json!({}))).ok();
            }
            done.store(true, Ordering::Relaxed);
        });
        let one = repo.add("one");
        reloading.join().unwrap();
        for client in clients {
            assert!(client.join().unwrap() > 0);
        }
        one
    });
    let rows = daemon.await_agreement(&repo);
    assert!((1..=10_000).contains(&rows.at(&one).offset), "by the step that was in force then");
    assert_eq!(reload(&sandbox)["changed"], json!([]));
}

#[test]
fn a_reload_is_asked_for_in_json_and_by_the_owner() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let post = |head: &str, body: &str| {
        let length = body.len();
        daemon.send(&format!(
            "POST /v1/reload HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\n{head}Content-Length: {length}\r\n\r\n{body}"
        ))
    };
    post("", "").is_problem(400, "bad-request");
    post("Content-Type: application/json\r\n", "").is_problem(400, "bad-request");
    post("Content-Type: application/json\r\n", "[]").is_problem(400, "bad-request");
    post("Content-Type: application/json\r\nOrigin: http://localhost\r\n", "{}").is_problem(403, "forbidden");
    post("Content-Type: application/json\r\n", "{}").ok();
    daemon.terminate();
    let line = sandbox.client(["reload"]).fails(4);
    assert!(line.contains("wtd.sock"), "{line}");
}

#[test]
fn the_end_of_its_terminal_ends_a_daemon_that_was_started_on_one() {
    if !require::program("script") {
        return;
    }
    let sandbox = Sandbox::new();
    let mut command = sandbox.command("script");
    command
        .args(["--quiet", "--return", "--command"])
        .arg(format!("exec {}", Sandbox::program("wtd").display()));
    command.arg("/dev/null");
    let terminal = Daemon::start_with_stdin(&sandbox, command, Stdio::null());
    let pid = terminal.get("/v1/health").ok()["pid"].as_u64().unwrap();
    assert_ne!(pid, u64::from(terminal.pid()));
    terminal.kill9();
    until("it has ended", || sandbox.socket().exists(), |exists| !exists);
}
