//! Every command on a page of `docs/` does what the page says.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::services::services;
use crate::harness::{Postgres, Ran, Repo, Sandbox, free_base, on_each_debian_with, page, require};

fn documents() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Runs a page as its reader would: in the home directory, where a repository `shop` is.
#[track_caller]
fn run(name: &str) {
    let sandbox = Sandbox::new();
    Repo::init(&sandbox, &sandbox.path("home/shop"));
    let _daemon = sandbox.daemon();
    let page = fs::read_to_string(documents().join(name)).unwrap();
    page::run(&sandbox, &sandbox.path("home/shop"), &page);
}

#[test]
fn make_has_the_worktrees_values() {
    if require::program("make") {
        run("make.md");
    }
}

#[test]
fn direnv_has_the_worktrees_values() {
    if require::program("direnv") {
        run("direnv.md");
    }
}

#[test]
fn agents_have_the_worktrees_values() {
    run("agents.md");
}

#[test]
fn env_files_have_the_worktrees_values() {
    run("env-files.md");
}

#[test]
fn shells_have_the_worktrees_values() {
    if require::program("zsh") && require::program("fish") {
        run("shells.md");
    }
}

#[test]
fn editors_have_the_worktrees_values() {
    run("editors.md");
}

/// On a machine that was booted, where `me` has just installed wtd.
#[test]
fn systemd_serves_and_says_what_its_page_says() {
    let outputs = tempfile::tempdir().unwrap();
    fs::set_permissions(outputs.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let shared = format!("--bind={}:/page", outputs.path().display());
    on_each_debian_with(&[shared], |machine| {
        machine.root("useradd --create-home --shell /bin/bash me; rm -rf /page/*").ok();
        let me = machine.log_in("me");
        me.says("WTD_DIST=/wtd/dist /wtd/scripts/install");
        let page = fs::read_to_string(documents().join("systemd.md")).unwrap();
        let places = (outputs.path(), Path::new("/page"));
        page::run_elsewhere(&page, "/home/me", places, |script| {
            me.run(&format!("bash {}", script.display()))
        });
    });
}

#[test]
fn compose_is_isolated() {
    if require::compose() {
        run("compose.md");
    }
}

#[test]
fn databases_have_the_worktrees_schemas() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    Repo::init(&sandbox, &sandbox.path("home/shop"));
    let _daemon = crate::database_servers::daemon(&sandbox);
    let page = fs::read_to_string(documents().join("databases.md")).unwrap();
    let page = page.replace("5432", &server.port.to_string());
    page::run(&sandbox, &sandbox.path("home/shop"), &page);
}

#[test]
fn seeding_starts_on_real_data() {
    let Some(services) = services() else { return };
    let sandbox = services.sandbox();
    let shop = Repo::init(&sandbox, &sandbox.path("home/shop"));
    let _daemon = services.daemon(&sandbox);
    let page = fs::read_to_string(documents().join("seeding.md")).unwrap();
    let outputs = tempfile::tempdir().unwrap();
    let home = sandbox.path("home");
    page::run_elsewhere(&page, home.to_str().unwrap(), (outputs.path(), outputs.path()), |script| {
        Ran::of(services.inside(&sandbox, "bash").arg(script).current_dir(&shop.path))
    });
}

/// A page that no test runs would be a page that nobody checks.
#[test]
fn every_page_with_a_command_is_run_by_a_test() {
    let tests = include_str!("docs.rs");
    for page in fs::read_dir(documents()).unwrap() {
        let path = page.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if path.extension().is_none_or(|extension| extension != "md") {
            continue;
        }
        let steps = page::steps(&fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            steps.is_empty()
                || ["run(", "join("].iter().any(|run| tests.contains(&format!("{run}\"{name}\")"))),
            "{name}"
        );
    }
}

#[test]
fn every_test_that_the_page_on_reliability_names_is_there() {
    let page = fs::read_to_string(documents().join("reliability.md")).unwrap();
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let tests = ["e2e", "../daemon/tests/git_on_disk"].map(|directory| crates.join(directory));
    let is_word = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let named: Vec<(&str, &str)> = page
        .split('`')
        .filter_map(|code| code.split_once("::"))
        .filter(|(a, b)| is_word(a) && is_word(b))
        .collect();
    assert!(named.len() > 40, "{named:?}");
    for (module, test) in named {
        let files = [format!("{module}.rs"), format!("{module}/mod.rs")];
        let sources = tests.iter().flat_map(|tests| files.iter().map(|file| tests.join(file)));
        let has_it = |text: String| text.contains(&format!("fn {test}()"));
        assert!(sources.filter_map(|file| fs::read_to_string(file).ok()).any(has_it), "{module}::{test}");
    }
}
