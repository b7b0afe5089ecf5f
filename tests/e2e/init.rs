//! `wtd-client init`: a `wtd.toml` from what the project's Compose files say.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::compose::repo_of;
use crate::harness::{Ran, Sandbox, require};

/// What is declared of a project in `compose_files` is taken whole, and at offset 0.
pub(crate) fn declares(kind: &str) {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = repo_of(&sandbox, kind);
    drop(fs::remove_file(repo.path.join("wtd.toml")));
    let text = sandbox.client_in(&repo.path, ["init", "--print"]).quiet();
    assert!(!repo.path.join("wtd.toml").exists(), "it was only to be printed");
    let ran = sandbox.client_in(&repo.path, ["init"]);
    assert!(ran.quiet().starts_with("Wrote "), "{ran:#?}");
    assert_eq!(fs::read_to_string(repo.path.join("wtd.toml")).unwrap(), text);

    let daemon = sandbox.daemon();
    // There may be nothing that takes trust.
    sandbox.client_in(&repo.path, ["trust", "-y"]);
    let answer = daemon.put(&repo.path);
    assert_eq!(answer["offset"], 0, "{text}");
    assert_eq!((answer.get("warnings"), answer["untrusted"] == true), (None, false), "{text}\n{answer:#}");
    // What is declared is what `compose` moves: no port that could be is left out.
    let linked = repo.add("linked");
    let declared = ports(&daemon.put(&linked));
    for (variable, port) in ports(&answer) {
        assert!(declared.contains_key(&variable), "{variable} {port}");
    }
}

fn ports(answer: &Value) -> std::collections::BTreeMap<String, u64> {
    serde_json::from_value(answer["ports"].clone()).unwrap()
}

/// The lines of a file that say something, without remarks.
fn said(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap();
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split(" # ").next().unwrap().trim_end().to_owned()).collect()
}

#[test]
fn ports_volumes_and_the_database_are_declared() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    let text = "services:\n  api: {image: x, ports: ['${API_PORT:-8003}:8003', '${ADMIN_PORT}:90']}\n  ui: {image: x, ports: ['3000:80']}\n  \
                db: {image: 'postgres:17', ports: ['5432:5432'], environment: {POSTGRES_DB: app}, volumes: ['pgdata:/var/lib/postgresql/data']}\n\
                volumes: {pgdata: , redis_data: }\n";
    fs::write(repo.path.join("compose.yaml"), text).unwrap();
    fs::write(repo.path.join(".env"), "ADMIN_PORT=9090\n").unwrap();
    let ran = sandbox.client_in(&repo.path, ["init"]);
    let told = ran.quiet();
    assert!(told.contains("DB_HOST_PORT 5432 (db)") && told.contains("compose --write"), "{told}");
    assert_eq!(
        said(&repo.path.join("wtd.toml")),
        [
            "[ports]",
            "DB_HOST_PORT = 5432",
            "API_PORT = 8003",
            "ADMIN_PORT = 9090",
            "UI_PORT = 3000",
            "[database]",
            "name = \"app\"",
            "name_per_worktree = false",
            "volume = \"pgdata\"",
            "[volumes]",
        ],
        "a volume that no service uses is none of Compose's"
    );
    let daemon = sandbox.daemon();
    daemon.put(&repo.path);
    repo.git(["add", "--all"]);
    repo.git(["commit", "-q", "-m", "second"]);
    let linked = repo.add("linked");
    let answer = daemon.put(&linked);
    assert_eq!(
        answer["ports"],
        json!({ "ADMIN_PORT": 19_090, "API_PORT": 18_003, "DB_HOST_PORT": 15_432, "UI_PORT": 13_000 })
    );
    assert_eq!((&answer["database"], &answer["volume"]), (&json!("app"), &json!("pgdata_10000")));
}

#[test]
fn ports_that_lie_an_offset_apart_are_kept_apart_from_the_start() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    let text = "services: {queue: {image: rabbitmq, ports: ['5672:5672', '15672:15672']}}\n";
    fs::write(repo.path.join("compose.yaml"), text).unwrap();
    sandbox.client_in(&repo.path, ["init"]).quiet();
    repo.git(["add", "--all"]);
    repo.git(["commit", "-q", "-m", "second"]);
    let daemon = sandbox.daemon();
    daemon.put(&repo.path);
    let linked = repo.add("linked");
    assert_eq!(daemon.put(&linked)["offset"], 20_000);
    sandbox.client_in(&linked, ["compose", "--write"]).ok();
}

#[test]
fn a_file_that_is_there_is_not_written_over() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    let file = repo.path.join("wtd.toml");
    fs::write(&file, "project = \"mine\"\n").unwrap();
    let line = sandbox.client_in(&repo.path, ["init"]).fails(1);
    assert!(line.contains("is there already") && line.contains("--print"), "{line}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "project = \"mine\"\n");
    assert!(sandbox.client_in(&repo.path, ["init", "--print"]).ok().contains("[ports]"));
    // Not through a symbolic link either, wherever it leads.
    fs::remove_file(&file).unwrap();
    let outside = sandbox.path("outside");
    std::os::unix::fs::symlink(&outside, &file).unwrap();
    sandbox.client_in(&repo.path, ["init"]).fails(1);
    assert!(!outside.exists());
}

#[test]
fn without_compose_files_or_without_docker_it_is_a_template_that_says_so() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    std::os::unix::fs::symlink(require::find("git").unwrap(), bin.join("git")).unwrap();
    let mut command = sandbox.client_command(["init"]);
    let ran = Ran::of(command.current_dir(&repo.path).env("PATH", &bin));
    ran.ok();
    assert!(ran.stderr.contains("template") && ran.stderr.contains("no `docker`"), "{ran:#?}");
    let text = fs::read_to_string(repo.path.join("wtd.toml")).unwrap();
    assert!(text.contains("no `docker`") && text.contains("# project = \"shop\""), "{text}");
    assert_eq!(said(&repo.path.join("wtd.toml")), ["[ports]", "[database]", "[volumes]"]);
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.path).get("warnings"), None);

    // In a linked worktree the project is called after the main one.
    fs::create_dir(repo.path.join("sub")).unwrap();
    fs::write(repo.path.join("sub/keep"), "").unwrap();
    repo.git(["add", "sub"]);
    repo.git(["commit", "-q", "-m", "second"]);
    let linked = repo.add("linked");
    let ran = sandbox.client_in(&linked.join("sub"), ["init"]);
    ran.ok();
    let main = repo.path.join("wtd.toml");
    assert!(ran.stderr.contains(&format!("in place of {} from now on", main.display())), "{ran:#?}");
    assert!(
        fs::read_to_string(linked.join("wtd.toml")).unwrap().contains("# project = \"shop\""),
        "{ran:#?}"
    );
    sandbox.client(["init"]).fails(3);
}

#[test]
fn compose_files_that_can_not_be_read_are_told_and_no_template_is_written() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    fs::write(repo.path.join("compose.yaml"), "services: [").unwrap();
    let line = sandbox.client_in(&repo.path, ["init"]).fails(1);
    assert!(line.contains("yaml"), "{line}");
    assert!(!repo.path.join("wtd.toml").exists());
}

#[test]
fn what_a_template_mentions_can_be_used_as_it_stands() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("shop");
    sandbox.client_in(&repo.path, ["init"]).ok();
    let file = repo.path.join("wtd.toml");
    let text = fs::read_to_string(&file).unwrap();
    let used = |line: &str| {
        line.strip_prefix("# ")
            .filter(|rest| rest.starts_with('[') || rest.contains(" = "))
            .map(str::to_owned)
    };
    let used: Vec<_> = text.lines().map(|line| used(line).unwrap_or_else(|| line.to_owned())).collect();
    fs::write(&file, used.join("\n")).unwrap();
    let daemon = sandbox.daemon();
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    let answer = daemon.put(&repo.path);
    assert_eq!(answer.get("warnings"), None, "{}\n{answer:#}", used.join("\n"));
    assert_eq!(answer["ports"]["UI_PORT"], 3000);
    assert_eq!(answer["shared_volumes"], json!(["pip_cache"]));
}
