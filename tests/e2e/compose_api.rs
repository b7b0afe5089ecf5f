//! The record of a Compose override: what makes `COMPOSE_FILE` a worktree's variable, and what takes it away.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::harness::{Answer, Daemon, Repo, Sandbox, until};

const OVERRIDE: &str = "wtd.compose.yaml";

/// A daemon's worktree with a Compose file.
struct Worktree<'s> {
    daemon: &'s Daemon<'s>,
    sandbox: &'s Sandbox,
    path: PathBuf,
    git_dir: PathBuf,
}

impl<'s> Worktree<'s> {
    fn of(daemon: &'s Daemon<'s>, repo: &Repo<'s>, path: &Path) -> Self {
        fs::write(path.join("compose.yaml"), "services: {}\n").unwrap();
        Self { daemon, sandbox: repo.sandbox, path: path.to_owned(), git_dir: repo.git_dir(path) }
    }

    fn put(&self, ports: &[u16]) -> Answer {
        let content = fs::read(self.path.join("compose.yaml")).unwrap();
        let body = json!({
            "path": self.path, "allocation": self.daemon.put(&self.path)["id"],
            "files": [self.path.join("compose.yaml")], "separator": ":",
            "files_digest": wtd_protocol::compose::digest([content]),
            "override": format!("# {ports:?}\nservices: {{}}\n"), "ports": ports.iter().map(u16::to_string).collect::<Vec<_>>(), "volumes": [],
        });
        self.daemon.http("PUT", "/v1/worktrees/compose", Some(&body))
    }

    fn delete(&self) -> Answer {
        self.daemon.http("DELETE", "/v1/worktrees/compose", Some(&json!({ "path": self.path })))
    }

    /// `COMPOSE_FILE` as the client prints it, and as the allocation file has it.
    #[track_caller]
    fn compose_file(&self) -> Option<String> {
        let text = self.sandbox.client_in(&self.path, ["env", "--format", "json"]).quiet();
        let printed = serde_json::from_str::<Value>(&text).unwrap()["COMPOSE_FILE"].clone();
        // It is written once the registry has the change.
        let in_file = || {
            let bytes = fs::read(self.git_dir.join("wtd.json")).unwrap();
            serde_json::from_slice::<Value>(&bytes).unwrap()["variables"]["COMPOSE_FILE"].clone()
        };
        until("the allocation file has it", in_file, |value| *value == printed);
        printed.as_str().map(str::to_owned)
    }

    fn expected(&self) -> String {
        let files = [self.path.join("compose.yaml"), self.git_dir.join(OVERRIDE)];
        files.map(|file| file.to_str().unwrap().to_owned()).join(":")
    }

    /// Does something to the git dir, and waits until the daemon has told of a change.
    #[track_caller]
    fn after_change(&self, change: impl FnOnce(&Path)) -> Option<String> {
        let mut events = self.daemon.events(None);
        change(&self.git_dir.join(OVERRIDE));
        assert_eq!(events.next().data["kind"], "configured");
        self.compose_file()
    }

    #[track_caller]
    fn warnings(&self) -> String {
        self.sandbox.list().at(&self.path).warnings.join("\n")
    }
}

#[test]
fn a_recorded_override_makes_compose_file_a_variable_until_it_is_taken_away() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    for path in [repo.path.clone(), repo.add("one")] {
        let worktree = Worktree::of(&daemon, &repo, &path);
        assert_eq!(worktree.compose_file(), None);
        let port = 8080 + sandbox.offset(&path);
        let answer = worktree.put(&[port]).ok();
        assert_eq!(answer["compose"]["ports"], json!([port.to_string()]));
        assert_eq!(worktree.compose_file(), Some(worktree.expected()));
        assert_eq!(answer["variables"]["COMPOSE_FILE"], json!(worktree.expected()));
        assert!(fs::read_to_string(worktree.git_dir.join(OVERRIDE)).unwrap().contains("services"));
        assert_eq!(repo.git(["status", "--porcelain"]).replace("?? compose.yaml\n", ""), "");
        assert_eq!(worktree.warnings(), "");
        worktree.delete().ok();
        assert_eq!(worktree.compose_file(), None);
        assert!(!worktree.git_dir.join(OVERRIDE).exists());
        worktree.delete().ok();
    }
}

#[test]
fn it_outlives_the_daemon_and_moves_with_the_worktree_and_the_repository() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    Worktree::of(&daemon, &repo, &one).put(&[18080]).ok();
    drop(daemon);

    let daemon = sandbox.daemon();
    let worktree = Worktree::of(&daemon, &repo, &one);
    assert_eq!(worktree.compose_file(), Some(worktree.expected()));
    let moved = sandbox.path("elsewhere");
    repo.mv(&one, &moved);
    daemon.await_agreement(&repo);
    let worktree = Worktree::of(&daemon, &repo, &moved);
    assert_eq!(worktree.compose_file(), Some(worktree.expected()));

    let renamed = sandbox.path("renamed");
    fs::rename(&repo.path, &renamed).unwrap();
    let repo = Repo::at(&sandbox, &renamed);
    repo.git(["worktree", "repair", moved.to_str().unwrap()]);
    daemon.put(&renamed);
    daemon.put(&moved);
    let worktree = Worktree::of(&daemon, &repo, &moved);
    assert_eq!(worktree.compose_file(), Some(worktree.expected()));
    assert!(worktree.expected().contains("/renamed/.git/"));
}

#[test]
fn a_file_that_nobody_recorded_is_not_used() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.put(&one);
    let worktree = Worktree::of(&daemon, &repo, &one);
    fs::write(worktree.git_dir.join(OVERRIDE), "services: {}\n").unwrap();
    fs::write(repo.common_dir().join(OVERRIDE), "services: {}\n").unwrap();
    sandbox.client(["add", "app"]).ok();
    assert_eq!(worktree.compose_file(), None);
    assert_eq!(Worktree::of(&daemon, &repo, &repo.path).compose_file(), None);
    assert!(worktree.warnings().contains("compose --write"), "{}", worktree.warnings());
    // A copied repository takes the files along, and none of their meaning.
    worktree.put(&[18080]).ok();
    let copy = sandbox.path("copy");
    crate::harness::Ran::of(sandbox.command("cp").args(["-a", "app", "copy"])).ok();
    let copied = daemon.put(&copy);
    assert_eq!(copied["compose"], Value::Null);
}

#[test]
fn one_that_is_deleted_or_written_over_takes_the_variable_along() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    for path in [repo.path.clone(), repo.add("one")] {
        let worktree = Worktree::of(&daemon, &repo, &path);
        let port = 8080 + sandbox.offset(&path);
        worktree.put(&[port]).ok();
        assert_eq!(worktree.after_change(|file| fs::remove_file(file).unwrap()), None);
        worktree.put(&[port]).ok();
        assert_eq!(worktree.after_change(|file| fs::write(file, "services: {x: {}}\n").unwrap()), None);
        assert!(worktree.warnings().contains("compose --write"));
        worktree.put(&[port]).ok();
        assert_eq!(worktree.compose_file(), Some(worktree.expected()));
    }
}

#[test]
fn one_that_goes_while_the_daemon_is_down_is_missed_when_it_is_back() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let worktree = Worktree::of(&daemon, &repo, &one);
    worktree.put(&[18080]).ok();
    let file = worktree.git_dir.join(OVERRIDE);
    drop(daemon);
    fs::remove_file(file).unwrap();
    let daemon = sandbox.daemon();
    daemon.await_agreement(&repo);
    sandbox.client(["add", "app"]).ok();
    assert_eq!(Worktree::of(&daemon, &repo, &one).compose_file(), None);
}

#[test]
fn no_two_worktrees_publish_one_port() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let (main, linked) = (Worktree::of(&daemon, &repo, &repo.path), Worktree::of(&daemon, &repo, &one));
    daemon.put(&one);
    main.put(&[5432, 8080, 25432]).ok();
    let problem = linked.put(&[15432, 8080]).is_problem(409, "port-taken");
    assert!(problem.to_string().contains("8080"), "{problem}");
    linked.put(&[5432]).is_problem(409, "port-taken");
    assert_eq!(linked.compose_file(), None);
    assert!(!linked.git_dir.join(OVERRIDE).exists(), "nothing is left of what was refused");
    linked.put(&[15432, 18080]).ok();
    let before = fs::read(linked.git_dir.join(OVERRIDE)).unwrap();
    linked.put(&[8080]).is_problem(409, "port-taken");
    assert_eq!(fs::read(linked.git_dir.join(OVERRIDE)).unwrap(), before);
    assert_eq!(linked.compose_file(), Some(linked.expected()));
    // 25432 is published: a new worktree is not given 20000.
    let two = repo.add("two");
    assert_eq!(sandbox.offset(&two), 30_000);
    // And neither after a restart.
    drop(linked);
    drop(main);
    drop(daemon);
    let daemon = sandbox.daemon();
    let linked = Worktree::of(&daemon, &repo, &one);
    linked.put(&[8080]).is_problem(409, "port-taken");
}

#[test]
fn another_offset_or_changed_files_are_told_of() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let worktree = Worktree::of(&daemon, &repo, &one);
    worktree.put(&[18080]).ok();
    fs::write(one.join("compose.yaml"), "services: {x: {image: y}}\n").unwrap();
    assert!(worktree.warnings().contains("have changed"), "{}", worktree.warnings());
    let doctor = sandbox.client_in(&one, ["doctor", "--json"]);
    assert!(doctor.text().contains("have changed") && doctor.text().contains("\"compose\""), "{doctor:#?}");
    worktree.put(&[18080]).ok();
    assert_eq!(worktree.warnings(), "");
    let mut events = daemon.events(None);
    fs::write(one.join("wtd.toml"), "shared = [\"cache\"]\n").unwrap();
    events.next();
    assert!(worktree.warnings().contains("other ports or names"), "{}", worktree.warnings());
    assert_eq!(worktree.compose_file(), Some(worktree.expected()));
    fs::remove_file(one.join("compose.yaml")).unwrap();
    fs::remove_file(one.join("wtd.toml")).unwrap();
    events.next();
    assert!(worktree.warnings().contains("no such file"), "{}", worktree.warnings());

    let before = daemon.put(&one);
    daemon.http("POST", "/v1/worktrees/reassign", Some(&json!({ "path": one }))).ok();
    let after = daemon.put(&one);
    assert_ne!(before["offset"], after["offset"]);
    assert_eq!(worktree.compose_file(), None, "the override has the old offset's ports");
    assert!(worktree.warnings().contains("compose --write"), "{}", worktree.warnings());
}

#[test]
fn what_is_no_override_is_refused() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let id = daemon.put(&repo.path)["id"].clone();
    let good = json!({
        "path": repo.path, "allocation": id, "files": ["/x/compose.yaml"], "separator": ":",
        "files_digest": wtd_protocol::compose::digest(["x"]), "override": "services: {}\n", "ports": ["1", "80-82"], "volumes": ["cache_0"],
    });
    for (key, bad) in [
        ("files", json!([])),
        ("files", json!(["compose.yaml"])),
        ("files", json!(["/x:;,|y/compose.yaml"])),
        ("files", json!(["/x\0"])),
        ("files", json!([format!("/{}", "x".repeat(20_000))])),
        ("separator", json!("x")),
        ("separator", json!("/")),
        ("separator", json!("::")),
        ("files_digest", json!("x")),
        ("further", json!({ "rel.yaml": good["files_digest"] })),
        ("further", json!({ "/x/base.yaml": "x" })),
        ("further", json!({ format!("/{}", "x".repeat(70_000)): good["files_digest"] })),
        ("further", (0..257).map(|n| (format!("/x/{n}"), good["files_digest"].clone())).collect()),
        ("ports", json!(["0"])),
        ("ports", json!([1])),
        ("ports", json!(["82-80"])),
        ("ports", json!(["70000"])),
        ("volumes", json!(["cache_10000"])),
        ("volumes", json!(["../containers/x_0"])),
        ("override", json!("x".repeat(1024 * 1024 + 1))),
    ] {
        let mut body = good.clone();
        body[key] = bad;
        daemon.http("PUT", "/v1/worktrees/compose", Some(&body)).is_problem(400, "bad-request");
    }
    let mut other = good.clone();
    other["allocation"] = json!("01890f5e-7b3c-7cc0-98c4-dc0c0c07398f");
    daemon.http("PUT", "/v1/worktrees/compose", Some(&other)).is_problem(409, "allocation-changed");
    assert!(!repo.common_dir().join(OVERRIDE).exists());
    daemon.http("PUT", "/v1/worktrees/compose", Some(&good)).ok();
}
