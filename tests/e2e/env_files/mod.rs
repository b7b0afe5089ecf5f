//! Files with a worktree's variables: `env --write`, and those that the daemon keeps for a trusted `wtd.toml`.

mod ignored;
mod kept;
mod readers;
mod written;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::harness::{Ran, Repo, Sandbox, tree};

const BEGIN: &str = "# >>> wtd >>> kept by wtd: what stands between these two lines is replaced";
const END: &str = "# <<< wtd <<<";

/// A sandbox with a repository whose worktree `one` has offset 10000.
fn with_worktree(sandbox: &Sandbox) -> (Repo<'_>, PathBuf) {
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    sandbox.offset(&repo.path);
    assert_eq!(sandbox.offset(&one), 10_000);
    (repo, one)
}

/// The block that belongs in the files of the worktree at `path`.
fn block(sandbox: &Sandbox, path: &Path) -> String {
    let json = sandbox.client_in(path, ["env", "--format", "json"]).quiet();
    let variables: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!("{BEGIN}\n{}{END}\n", lines.concat())
}

/// `env --write` with these arguments.
fn write<S: AsRef<OsStr>>(
    sandbox: &Sandbox,
    directory: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Ran {
    let mut command = sandbox.client_command(["env", "--write"]);
    Ran::of(command.args(arguments).env("WTD_NO_START", "1").current_dir(directory))
}

/// Everything in the sandbox that only tests and git change.
fn world(sandbox: &Sandbox) -> crate::harness::Tree {
    let own = ["state", "run", "home"].map(|name| sandbox.path(name));
    tree(sandbox.root(), &|path| {
        own.iter().any(|own| path == own)
            || path.file_name().is_some_and(|name| name == "wtd.json")
            || path.extension().is_some_and(|extension| extension == "log")
    })
}
