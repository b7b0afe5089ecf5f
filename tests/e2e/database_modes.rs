//! One database server for many worktrees: what each of them is told in each mode.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use crate::harness::{Ran, Repo, Sandbox};

/// The variables of the worktree at `path`.
fn variables(sandbox: &Sandbox, path: &Path) -> BTreeMap<String, String> {
    let json = sandbox.client_in(path, ["env", "--format", "json"]).ok();
    serde_json::from_str(&json).unwrap()
}

/// The port of a server that nobody runs: what is said does not wait for one.
const PORT: u16 = 10_970;

fn declare(repo: &Repo<'_>, mode: &str) {
    let text = format!("[ports]\nDB_HOST_PORT = {PORT}\nUI_PORT = 3000\n[database]\nmode = \"{mode}\"\n");
    fs::write(repo.path.join("wtd.toml"), text).unwrap();
}

/// A repository in this mode, known to a daemon, with one linked worktree.
fn with_worktree<'s>(sandbox: &'s Sandbox, mode: &str) -> (Repo<'s>, PathBuf) {
    let repo = sandbox.repo("shop");
    declare(&repo, mode);
    sandbox.client_in(&repo.path, ["env"]).ok();
    let one = repo.add("one");
    (repo, one)
}

#[test]
fn in_shared_mode_only_ports_beside_the_databases_move() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox, "shared");
    daemon.await_agreement(&repo);
    let (main, linked) = (variables(&sandbox, &repo.path), variables(&sandbox, &one));
    for name in ["DB_HOST_PORT", "DB_VOLUME", "POSTGRES_DB", "DB_MODE"] {
        assert_eq!(main[name], linked[name], "{name}");
    }
    let shown = ["DB_HOST_PORT", "DB_VOLUME", "POSTGRES_DB", "DB_MODE"].map(|name| linked[name].as_str());
    assert_eq!(shown, ["10970", "shop_db_data", "shop", "shared"]);
    assert_eq!((main["UI_PORT"].as_str(), linked["UI_PORT"].as_str()), ("3000", "13000"));
    assert!(linked["REDIS_PREFIX"].starts_with("shop-10000-"), "{linked:#?}");
    assert_ne!(main["REDIS_PREFIX"], linked["REDIS_PREFIX"]);
    assert!(!linked.contains_key("DB_SCHEMA") && !linked.contains_key("PGOPTIONS"), "{linked:#?}");

    // The volume is nobody's own: it stands in nobody's way when a worktree goes, and when another one comes.
    repo.remove(&one);
    daemon.await_state(&one, "released");
    let two = repo.add("two");
    let rows = daemon.await_agreement(&repo);
    assert_eq!((rows.at(&two).offset, rows.at(&two).volume.as_str()), (10_000, "shop_db_data"));
    assert_ne!(variables(&sandbox, &two)["REDIS_PREFIX"], linked["REDIS_PREFIX"], "another worktree's keys");
}

#[test]
fn in_shared_mode_a_configured_volume_and_name_are_taken_as_they_are() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("shop");
    let text = "[database]\nmode = \"shared\"\nname = \"Store\"\nvolume = \"pgdata\"\n";
    fs::write(repo.path.join("wtd.toml"), text).unwrap();
    daemon.put(&repo.path);
    let one = repo.add("one");
    let rows = daemon.await_agreement(&repo);
    for path in [&repo.path, &one] {
        let row = rows.at(path);
        assert_eq!((row.volume.as_str(), row.database.as_str()), ("pgdata", "Store"));
    }
}

#[test]
fn in_schema_mode_each_worktree_is_told_its_own_schema_of_one_database() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox, "schema");
    let rows = daemon.await_agreement(&repo);
    let (main, linked) = (variables(&sandbox, &repo.path), variables(&sandbox, &one));
    for name in ["DB_HOST_PORT", "DB_VOLUME", "POSTGRES_DB"] {
        assert_eq!(main[name], linked[name], "{name}");
    }
    let names = ["DB_MODE", "POSTGRES_DB", "DB_SCHEMA", "PGOPTIONS", "DB_URL_OPTIONS"];
    assert_eq!(
        names.map(|name| linked[name].as_str()),
        ["schema", "shop", "shop_10000", "-csearch_path=shop_10000", "options=-csearch_path%3Dshop_10000"]
    );
    assert_eq!(main["DB_SCHEMA"], "shop_0");
    assert_eq!(rows.at(&one).schema.as_deref(), Some("shop_10000"));
    // A command in a worktree without a schema does not run in the schema of the shell's worktree.
    let isolated = sandbox.repo("isolated");
    let mut command =
        sandbox.client_command(["exec", "--", "sh", "-c", "echo \"${PGOPTIONS-none} ${DB_SCHEMA-none}\""]);
    let left =
        [("WTD_NO_START", "1"), ("DB_MODE", "schema"), ("DB_SCHEMA", "s"), ("PGOPTIONS", "-csearch_path=s")];
    let ran = Ran::of(command.envs(left).current_dir(&isolated.path));
    assert_eq!(ran.ok(), "none none\n");
}

#[test]
fn in_database_mode_each_worktree_is_told_its_own_database_of_one_server() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox, "database");
    daemon.await_agreement(&repo);
    let (main, linked) = (variables(&sandbox, &repo.path), variables(&sandbox, &one));
    for name in ["DB_HOST_PORT", "DB_VOLUME"] {
        assert_eq!(main[name], linked[name], "{name}");
    }
    assert_eq!((main["POSTGRES_DB"].as_str(), linked["POSTGRES_DB"].as_str()), ("shop-0", "shop-10000"));
    assert!(!linked.contains_key("DB_SCHEMA"), "{linked:#?}");
}

#[test]
fn a_changed_mode_is_for_new_worktrees_and_the_old_ones_are_told() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox, "isolated");
    daemon.await_agreement(&repo);
    let before = variables(&sandbox, &one);
    assert!(!before.contains_key("DB_MODE"), "nothing is shared, so nothing is said: {before:#?}");

    declare(&repo, "schema");
    let two = repo.add("two");
    let rows = daemon.await_agreement(&repo);
    assert_eq!((rows.at(&one).mode.as_str(), rows.at(&two).mode.as_str()), ("isolated", "schema"));
    assert_eq!(variables(&sandbox, &one), before);
    let warnings = rows.at(&one).warnings.join("\n");
    assert!(warnings.contains("\"schema\"") && warnings.contains("\"isolated\""), "{warnings}");
    let warnings = rows.at(&two).warnings.join("\n");
    assert!(!warnings.contains("database.mode"), "{warnings}");
    assert_eq!(variables(&sandbox, &two)["DB_SCHEMA"], "shop_20000");

    // And a person can have it otherwise: by a new allocation.
    sandbox.client_in(&one, ["reassign"]).ok();
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).mode, "schema");
    // Back again: what was made in a mode stays in it.
    declare(&repo, "isolated");
    let three = repo.add("three");
    let rows = daemon.await_agreement(&repo);
    assert_eq!(
        [&repo.path, &one, &two, &three].map(|path| rows.at(path).mode.as_str()),
        ["isolated", "schema", "schema", "isolated"]
    );
    assert_eq!(rows.at(&two).schema.as_deref(), Some("shop_20000"));
}
