//! An override is out of date when any file has changed that Compose read for it, be it named or be it led to.

use std::fs;
use std::path::Path;

use crate::compose::{with_files, with_linked};
use crate::harness::{Ran, Sandbox, require};

const COMPOSE: &str = r#"
include:
  - ${PARTS:-parts}/mail.yaml
  - path: [search.yaml, search.more.yaml]
    project_directory: search
    env_file: search.env
x-base: &base
  extends: {file: "base.yaml", service: base}
services:
  web:
    <<: *base
    ports: ["8080:80"]
"#;

/// Files of the project beside its `compose.yaml`, and each with a change.
const FURTHER: [(&str, &str, &str); 9] = [
    (
        "parts/mail.yaml",
        "include: [deep/er.yaml]\nservices: {mail: {image: x, ports: ['${MAIL:-1025}:25']}}\n",
        "ports: ['2025:25']",
    ),
    ("parts/deep/er.yaml", "%YAML 1.1\n---\nservices:\n  deep: {image: x}\n", "image: y"),
    ("parts/.env", "MAIL=1026\n", "MAIL=1027"),
    ("search.yaml", "services: {search: {image: x, ports: ['${SEARCH:?}:9200']}}\n", "'9201:9200'"),
    ("search.more.yaml", "services: {search: {command: [x]}}\n", "command: [y]"),
    ("search.env", "SEARCH=9200\n", "SEARCH=9300"),
    (
        "base.yaml",
        "services:\n  base: {extends: {file: bases/first.yaml, service: first}}\n",
        "service: 'first'",
    ),
    ("bases/first.yaml", "services: {first: {image: x}}\n", "ports: ['9090:90']"),
    (".env", "OTHER=1\n", "PARTS=parts"),
];

/// What `list` says is wrong with the worktree.
fn warnings(sandbox: &Sandbox, worktree: &Path) -> String {
    sandbox.list().at(worktree).warnings.join("\n")
}

#[test]
fn in_a_file_that_is_included_or_extended_or_that_sets_variables() {
    with_files(COMPOSE, FURTHER.map(|(name, text, _)| (name, text)).as_slice(), |sandbox, _, _, linked| {
        for (name, text, change) in FURTHER {
            sandbox.client_in(linked, ["compose", "--write"]).ok();
            assert_eq!(warnings(sandbox, linked), "", "before {name} changes");
            let file = linked.join(name);
            fs::write(&file, format!("{text}# {change}\n{change}\n")).unwrap();
            let warning = warnings(sandbox, linked);
            assert!(warning.contains(name) && warning.contains("compose --write"), "{name}: {warning}");
            fs::write(&file, text).unwrap();
            assert_eq!(warnings(sandbox, linked), "", "{name} is what it was");
        }
        // It is told where nobody runs `list`, too.
        fs::remove_file(linked.join("base.yaml")).unwrap();
        let checks = String::from_utf8(sandbox.client_in(linked, ["doctor"]).stdout).unwrap();
        assert!(checks.contains("base.yaml"), "{checks}");
    });
}

#[test]
fn in_an_env_file_that_was_not_there_but_not_in_wtds_own_block() {
    let text = "services: {web: {image: x, ports: ['${WEB:-8080}:80']}}\n";
    with_files(text, &[], |sandbox, _, _, linked| {
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        sandbox.client_in(linked, ["env", "--write", ".env"]).ok();
        assert_eq!(warnings(sandbox, linked), "");
        let block = fs::read_to_string(linked.join(".env")).unwrap();
        fs::write(linked.join(".env"), format!("{block}\nWEB=9090\n")).unwrap();
        let warning = warnings(sandbox, linked);
        assert!(warning.contains("/.env"), "{warning}");
        // Those that COMPOSE_ENV_FILES names take its place.
        fs::write(linked.join("one.env"), "WEB=7070\n").unwrap();
        let mut command = sandbox.client_command(["compose", "--write"]);
        Ran::of(command.current_dir(linked).env("COMPOSE_ENV_FILES", "one.env")).ok();
        fs::write(linked.join(".env"), "WEB=9091\n").unwrap();
        assert_eq!(warnings(sandbox, linked), "");
        fs::write(linked.join("one.env"), "WEB=7071\n").unwrap();
        let warning = warnings(sandbox, linked);
        assert!(warning.contains("/one.env"), "{warning}");
    });
}

#[test]
fn wherever_the_worktree_has_been_moved_meanwhile() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("shop");
    let base = repo.path.join("base.yaml");
    fs::write(
        repo.path.join("compose.yaml"),
        "services: {web: {extends: {file: base.yaml, service: web}}}\n",
    )
    .unwrap();
    fs::write(&base, "services: {web: {image: x, ports: ['8080:80']}}\n").unwrap();
    let linked = with_linked(&daemon, &repo);
    sandbox.client_in(&linked, ["compose", "--write"]).ok();
    let moved = sandbox.path("elsewhere");
    repo.git(["worktree", "move", linked.to_str().unwrap(), moved.to_str().unwrap()]);
    daemon.await_state(&moved, "active");
    assert_eq!(warnings(&sandbox, &moved), "");
    fs::write(moved.join("base.yaml"), "services: {web: {image: x, ports: ['8081:80']}}\n").unwrap();
    let warning = warnings(&sandbox, &moved);
    assert!(warning.contains(moved.join("base.yaml").to_str().unwrap()), "{warning}");
}
