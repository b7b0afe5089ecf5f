//! Whether git ignores the files.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::{with_worktree, write};
use crate::harness::{Ran, Repo, Sandbox};

#[test]
fn git_is_asked_whether_it_ignores_the_file_and_told_to_on_request() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox);
    let exclude = repo.path.join(".git/info/exclude");
    fs::write(&exclude, "# mine\n*.swp").unwrap();
    let ran = write(&sandbox, &one, ["env/wtd.env"]);
    let path = exclude.display().to_string();
    assert!(ran.code == Some(0) && ran.stdout.is_empty(), "{ran:#?}");
    assert!(ran.stderr.contains("/env/wtd.env") && ran.stderr.contains(&path), "{ran:#?}");
    assert!(ran.stderr.contains("--exclude") && ran.stderr.matches('\n').count() == 1, "{ran:#?}");
    assert_eq!(fs::read(&exclude).unwrap(), b"# mine\n*.swp", "a suggestion changes nothing");
    for _ in 0..2 {
        assert_eq!(write(&sandbox, &one.join("env"), ["wtd.env", "--exclude"]).quiet(), "");
        assert_eq!(fs::read(&exclude).unwrap(), b"# mine\n*.swp\n/env/wtd.env\n");
    }
    assert_eq!(Repo::at(&sandbox, &one).git(["status", "--porcelain"]), "");
    // The entry is for all worktrees; and what is ignored does not hinder a removal.
    assert_eq!(write(&sandbox, &repo.path, ["env/wtd.env"]).quiet(), "");
    repo.git(["worktree", "remove", one.to_str().unwrap()]);

    // Where a pattern could mean more, it means one file; info/ may be missing.
    fs::remove_dir_all(exclude.parent().unwrap()).unwrap();
    fs::remove_dir_all(repo.path.join("env")).unwrap();
    for name in [":(top)a.env", "a*b.env", "!x.env", "#x.env", "br[a]c.env", "back\\slash.env", "end "] {
        fs::write(repo.path.join("axb.env"), "").unwrap();
        assert_eq!(write(&sandbox, &repo.path, [name, "--exclude"]).quiet(), "", "{name}");
    }
    let status = repo.git(["status", "--porcelain"]);
    assert_eq!(status, "?? axb.env\n", "{}", fs::read_to_string(&exclude).unwrap());

    let line = write(&sandbox, &repo.path, ["file", "--exclude"]).fails(1);
    assert!(line.contains("tracked by git") && line.contains("git rm --cached"), "{line}");
    fs::write(repo.path.join(".gitignore"), "!no.env\n*.ignored\n").unwrap();
    let line = write(&sandbox, &repo.path, ["no.env", "--exclude"]).fails(1);
    assert!(line.contains(".gitignore"), "{line}");
    assert_eq!(write(&sandbox, &repo.path, ["x.ignored"]).quiet(), "");
    // A link is a person's own arrangement.
    fs::rename(&exclude, sandbox.path("dotfile")).unwrap();
    symlink(sandbox.path("dotfile"), &exclude).unwrap();
    let before = fs::read(sandbox.path("dotfile")).unwrap();
    let line = write(&sandbox, &repo.path, ["more.env", "--exclude"]).fails(1);
    assert!(line.contains("symbolic link"), "{line}");
    assert_eq!(fs::read(sandbox.path("dotfile")).unwrap(), before);
}

#[test]
fn asking_git_runs_nothing_of_the_repository_and_is_not_misled_by_a_hooks_environment() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let canary = sandbox.path("PWNED");
    let script = sandbox.path("evil");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let evil = script.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "alias.check-ignore",
        "filter.x.clean",
        "diff.external",
    ] {
        repo.git(["config", key, evil]);
    }
    repo.git(["config", "core.hooksPath", sandbox.root().to_str().unwrap()]);
    fs::write(repo.path.join(".gitattributes"), "* filter=x\n").unwrap();
    fs::write(repo.path.join("file"), "changed\n").unwrap();
    let ran = write(&sandbox, &repo.path, [".env"]);
    assert!(ran.stderr.contains("does not ignore .env"), "{ran:#?}");
    assert_eq!(write(&sandbox, &repo.path, [".env", "--exclude"]).quiet(), "");
    assert!(!canary.exists());

    let other = sandbox.repo("other");
    let mut command = sandbox.client_command(["env", "--exclude", "--write", "x.env"]);
    command
        .env("GIT_DIR", repo.path.join(".git"))
        .env("GIT_INDEX_FILE", "/nonexistent")
        .current_dir(&other.path);
    Ran::of(&mut command).quiet();
    let exclude = fs::read_to_string(other.path.join(".git/info/exclude")).unwrap();
    assert!(exclude.ends_with("/x.env\n"), "{exclude}");
    assert!(!canary.exists());
}
