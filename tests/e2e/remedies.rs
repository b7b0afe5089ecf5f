//! What is told to be done about something is what helps.

use std::fs;

use serde_json::{Value, json};

use crate::harness::{Sandbox, until};

/// The findings of one of `doctor`'s checks.
fn findings(sandbox: &Sandbox, check: &str) -> Vec<(String, String)> {
    let all: Vec<Value> = serde_json::from_str(&sandbox.client(["doctor", "--json"]).text()).unwrap();
    let of_check = all.into_iter().filter(|finding| finding["check"] == check);
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    of_check.map(|finding| (text(&finding["detail"]), text(&finding["remedy"]))).collect()
}

#[test]
fn a_port_that_a_worktree_cannot_have_is_told_with_its_path_and_no_fault_of_the_file() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    // Below 1024 at offset 0, and right for any other worktree.
    fs::write(repo.path.join("wtd.toml"), "[ports]\nWEB_PORT = 80\n").unwrap();
    let line = sandbox.client_in(&repo.path, ["get", "WEB_PORT"]).fails(1);
    assert!(line.contains("`wtd-client list` tells"), "{line}");
    assert!(sandbox.client(["list"]).ok().contains("WEB_PORT can't be had at offset 0"));
    let told = findings(&sandbox, "wtd.toml");
    let [(detail, remedy)] = told.as_slice() else { panic!("{told:?}") };
    assert!(detail.starts_with(&format!("{}: WEB_PORT", repo.path.display())), "{detail}");
    assert_eq!(remedy, "`wtd-client reassign` finds an offset for all ports");
    let answer = daemon.put(&repo.path);
    assert!(answer["warnings"][0].is_string() && answer["mistakes"].is_null(), "{answer}");

    fs::write(repo.path.join("wtd.toml"), "[ports]\nWEB_PORT = \"80\"\n").unwrap();
    let told = until(
        "the mistake is told",
        || findings(&sandbox, "wtd.toml"),
        |told| told.iter().any(|(detail, _)| detail.contains("wtd.toml:2: ")),
    );
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1, "correct the file");
    let answer = daemon.put(&repo.path);
    assert_eq!(answer["mistakes"], json!([told[0].0]), "{answer}");
}

#[test]
fn a_variable_that_only_wants_trust_is_told_so() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    fs::write(repo.path.join("wtd.toml"), "[env]\nURL = \"http://localhost:{DB_HOST_PORT}\"\n").unwrap();
    for arguments in [["get", "URL"], ["env", "URL"]] {
        let line = sandbox.client_in(&repo.path, arguments).fails(1);
        assert!(line.contains("`wtd-client trust` shows"), "{line}");
    }
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    assert_eq!(sandbox.client_in(&repo.path, ["get", "URL"]).quiet(), "http://localhost:5432\n");
    let line = sandbox.client_in(&repo.path, ["get", "NOTHING"]).fails(1);
    assert!(!line.contains("trust"), "{line}");
}

#[test]
fn an_engine_that_is_configured_away_is_not_to_be_installed() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\n");
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    fs::write(sandbox.path("backup.tar"), "").unwrap();
    for arguments in [["seed", one.to_str().unwrap()], ["restore", "backup.tar"]] {
        let line = sandbox.client(arguments).fails(1);
        assert!(line.contains("as the daemon's configuration says; change `engine` there"), "{line}");
    }
    let told = findings(&sandbox, "container engine");
    assert_eq!(told, [("there is none, as the daemon's configuration says".to_owned(), String::new())]);
}

#[test]
fn ports_that_no_offset_fits_are_told_as_such_and_not_to_be_collected() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let file = repo.path.join("wtd.toml");
    fs::write(&file, "[ports]\nWEB_PORT = 80\nLAST_PORT = 65535\n").unwrap();
    let line = sandbox.client_in(&repo.path, ["get", "PORT_OFFSET"]).fails(5);
    let (why, remedy) = line.rsplit_once("; ").unwrap();
    assert!(why.ends_with("since WEB_PORT would be 80: ports below 1024 are not given"), "{line}");
    assert!(remedy.starts_with("change the ports in its wtd.toml"), "{line}");
    let told = sandbox.client(["add", "app"]).ok();
    assert!(told.contains("ports below 1024 are not given"), "{told}");
    fs::write(&file, "[ports]\nWEB_PORT = 80\n").unwrap();
    assert_eq!(sandbox.client_in(&repo.path, ["get", "WEB_PORT"]).quiet(), "10080\n");
}
