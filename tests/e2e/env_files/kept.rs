//! Files that the daemon keeps for a trusted `wtd.toml`.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use serde_json::Value;

use super::{block, write};
use crate::harness::{Repo, Sandbox, until};

/// A repository whose trusted configuration has files kept.
fn with_env_files<'s>(sandbox: &'s Sandbox, files: &str) -> Repo<'s> {
    let repo = sandbox.repo("app");
    fs::write(repo.path.join("wtd.toml"), format!("[files]\nenv = {files}\n")).unwrap();
    fs::write(repo.path.join(".gitignore"), "*.env\n").unwrap();
    repo.git(["add", "."]);
    repo.git(["commit", "-q", "-m", "configure"]);
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    repo
}

#[test]
fn files_of_a_trusted_configuration_are_there_when_a_worktree_is() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\".env\", \"env/wtd.env\"]");
    let is_kept = |path: &Path| {
        let expected = block(&sandbox, path);
        for file in [".env", "env/wtd.env"] {
            until(
                "the file is there",
                || fs::read_to_string(path.join(file)).unwrap_or_default(),
                |text| *text == expected,
            );
            assert_eq!(write(&sandbox, path, [file]).quiet(), "", "the client agrees");
        }
    };
    is_kept(&repo.path);
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let one = repo.add("one");
    until("the file is there", || one.join("env/wtd.env").exists(), |there| *there);
    is_kept(&one);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&one.join(".env")), mode(&one) & 0o666, "open to whom the worktree is");
    assert_eq!(mode(&one.join("env")), mode(&one));
    assert_eq!(Repo::at(&sandbox, &one).git(["status", "--porcelain"]), "");
    // Moved, given another offset, and removed.
    let two = sandbox.path("two");
    repo.mv(&one, &two);
    daemon.await_list("it moved", |rows| rows.find(&two).is_some());
    is_kept(&two);
    sandbox.client_in(&two, ["reassign", "--force"]).ok();
    assert!(fs::read_to_string(two.join(".env")).unwrap().contains("\nPORT_OFFSET=20000\n"));
    is_kept(&two);
    repo.git(["worktree", "remove", two.to_str().unwrap()]);
    daemon.await_state(&two, "released");
    assert!(!two.exists());
    // From the start, with nobody asking.
    daemon.terminate();
    let three = repo.add("three");
    let _daemon = sandbox.daemon();
    until("the file is there", || three.join(".env").exists(), |there| *there);
    is_kept(&three);
}

#[test]
fn a_kept_file_comes_back_and_leaves_a_persons_lines_alone() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let _daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\"env/wtd.env\"]");
    let file = repo.path.join("env/wtd.env");
    let expected = block(&sandbox, &repo.path);
    let read = || fs::read_to_string(&file);
    let comes = |expected: &str| {
        until("the file is right", || read().unwrap_or_default(), |text| text == expected);
    };
    comes(&expected);
    fs::remove_file(&file).unwrap();
    comes(&expected);
    fs::remove_dir_all(repo.path.join("env")).unwrap();
    comes(&expected);
    let text = format!("A=1\r\n{}B=2", expected.replace("DB_HOST_PORT=5432", "DB_HOST_PORT=1"));
    fs::write(&file, text).unwrap();
    comes(&format!("A=1\r\n{expected}B=2"));
    // A look does it at once.
    fs::remove_file(&file).unwrap();
    sandbox.client(["add", repo.path.to_str().unwrap()]).ok();
    assert_eq!(read().unwrap(), expected);
}

#[test]
fn a_file_that_cannot_be_kept_is_told_with_its_remedy_and_holds_up_nothing() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\"a.env\", \"b.env\"]");
    let one = repo.add("one");
    until("the file is there", || one.join("b.env").exists(), |there| *there);
    fs::remove_file(one.join("a.env")).unwrap();
    fs::write(sandbox.path("elsewhere"), "A=1\n").unwrap();
    symlink(sandbox.path("elsewhere"), one.join("a.env")).unwrap();
    sandbox.client(["add", one.to_str().unwrap()]).ok();
    assert_eq!(fs::read(sandbox.path("elsewhere")).unwrap(), b"A=1\n");
    assert_eq!(sandbox.offset(&one), 10_000);
    assert_eq!(
        sandbox.list().at(&one).warnings,
        ["a.env is not kept: it is a symbolic link, which is not followed"]
    );
    let checks = sandbox.client(["doctor", "--json"]).text();
    let checks: Vec<Value> = serde_json::from_str(&checks).unwrap();
    let found: Vec<_> = checks.iter().filter(|check| check["check"] == "env files").collect();
    let [check] = found[..] else { panic!("{checks:#?}") };
    assert_eq!(check["status"], "warn");
    assert!(check["detail"].as_str().unwrap().contains("a.env"), "{check:#}");
    assert_eq!(check["remedy"], "name the file that it leads to");
    fs::remove_file(one.join("a.env")).unwrap();
    sandbox.client(["add", one.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(one.join("a.env")).unwrap(), block(&sandbox, &one));
    assert_eq!(sandbox.list().at(&one).warnings, [""; 0]);
}

/// git checks files out until it lets go of the worktree; a file of ours in its way would be lost, or held against it.
#[test]
fn a_file_that_a_branch_has_itself_is_checked_out_first() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    fs::write(repo.path.join("wtd.toml"), "files.env = [\"tracked/x.env\"]\n").unwrap();
    fs::create_dir(repo.path.join("tracked")).unwrap();
    fs::write(repo.path.join("tracked/x.env"), "A=1\n").unwrap();
    repo.git(["add", "."]);
    repo.git(["commit", "-q", "-m", "configure"]);
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    for number in 0..5 {
        let path = repo.add(&format!("w{number}"));
        let expected = format!("A=1\n{}", block(&sandbox, &path));
        until(
            "the file is right",
            || fs::read_to_string(path.join("tracked/x.env")).unwrap_or_default(),
            |text| *text == expected,
        );
    }
}
