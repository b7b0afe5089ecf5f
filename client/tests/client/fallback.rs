//! With no daemon to be had, the allocation file answers.

use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use crate::support::{Ended, Sandbox, Server, allocation_file, run};

/// A repository with a linked worktree; gives both roots.
fn worktrees(sandbox: &Sandbox) -> (PathBuf, PathBuf) {
    let main = sandbox.repository("main");
    let linked = sandbox.path("linked").join("x y");
    sandbox.git(&main, &["worktree", "add", "--quiet", "-b", "x", linked.to_str().unwrap()]);
    (main, linked.canonicalize().unwrap())
}

fn offset(sandbox: &Sandbox, dir: &Path) -> Ended {
    run(sandbox.client(&["get", "PORT_OFFSET"]).current_dir(dir))
}

#[test]
fn the_file_of_this_worktree_answers() {
    let sandbox = Sandbox::new();
    let (main, linked) = worktrees(&sandbox);
    fs::write(main.join(".git/worktrees/x-y/wtd.json"), allocation_file(&linked)).unwrap();
    fs::create_dir(linked.join("deep")).unwrap();
    std::os::unix::fs::symlink(&linked, sandbox.path("link")).unwrap();
    for dir in [linked.clone(), linked.join("deep"), sandbox.path("link")] {
        assert_eq!(offset(&sandbox, &dir).done(), "10000\n");
    }
    let env = run(sandbox.client(&["env", "--shell=sh", "WTD_WORKTREE"]).current_dir(&linked));
    assert_eq!(
        env.done(),
        format!(
            "export WTD_WORKTREE={}/linked/x' y'\n",
            sandbox.path("").to_str().unwrap().trim_end_matches('/')
        )
    );
    let exec = run(sandbox.client(&["exec", "sh", "-c", "echo $DB_HOST_PORT"]).current_dir(&linked));
    assert_eq!(exec.done(), "15432\n");
    run(sandbox.client(&["check"]).current_dir(&linked)).failed(1, "no variables");
    offset(&sandbox, &main).failed(4, "wtd.json");
    fs::write(main.join(".git/wtd.json"), allocation_file(&main)).unwrap();
    assert_eq!(offset(&sandbox, &main).done(), "10000\n");
}

#[test]
fn relative_links_and_separate_git_dirs_are_followed() {
    let sandbox = Sandbox::new();
    let root = sandbox.path("r");
    fs::create_dir(&root).unwrap();
    let git_dir = sandbox.path("elsewhere.git");
    sandbox.git(&root, &["init", "--quiet", "--separate-git-dir", git_dir.to_str().unwrap()]);
    let root = root.canonicalize().unwrap();
    fs::write(git_dir.join("wtd.json"), allocation_file(&root)).unwrap();
    assert_eq!(offset(&sandbox, &root).done(), "10000\n");
    fs::write(root.join(".git"), "gitdir: ../elsewhere.git\n").unwrap();
    assert_eq!(offset(&sandbox, &root).done(), "10000\n");
}

#[test]
fn a_file_about_another_worktree_is_not_taken() {
    let sandbox = Sandbox::new();
    let (main, linked) = worktrees(&sandbox);
    fs::write(main.join(".git/wtd.json"), allocation_file(&main)).unwrap();
    fs::write(main.join(".git/worktrees/x-y/wtd.json"), allocation_file(&main)).unwrap();
    offset(&sandbox, &linked).failed(4, "another worktree");
    let moved = sandbox.path("moved");
    fs::rename(&main, &moved).unwrap();
    offset(&sandbox, &moved).failed(4, "another worktree");
    run(sandbox.client(&["env"]).current_dir(&moved)).failed(4, "another worktree");
}

#[test]
fn a_file_that_is_not_well_formed_is_not_taken() {
    let sandbox = Sandbox::new();
    let main = sandbox.repository("main");
    let file = main.join(".git/wtd.json");
    let good = allocation_file(&main);
    for bad in [
        String::new(),
        "{}".into(),
        good[..good.len() - 2].into(),
        good.replace("\"format\":1", "\"format\":2"),
        good.replace("DB_HOST_PORT", "LD_PRELOAD"),
        good.replace("\"PORT_OFFSET\":\"10000\"", "\"PORT_OFFSET\":\"0\""),
        " ".repeat(1 << 20),
    ] {
        fs::write(&file, &bad).unwrap();
        offset(&sandbox, &main).failed(4, "wtd.json");
    }
    fs::remove_file(&file).unwrap();
    assert!(sandbox.command("mkfifo").arg(&file).status().unwrap().success());
    offset(&sandbox, &main).failed(4, "not a regular file");
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    offset(&sandbox, &main).failed(4, "not a regular file");
}

#[test]
fn outside_of_every_worktree_env_prints_nothing() {
    let sandbox = Sandbox::new();
    let main = sandbox.repository("main");
    fs::write(main.join(".git/wtd.json"), allocation_file(&main)).unwrap();
    sandbox.git(&sandbox.path(""), &["init", "--quiet", "--bare", "bare.git"]);
    for dir in [sandbox.path(""), main.join(".git"), main.join(".git/hooks"), sandbox.path("bare.git/refs")] {
        assert_eq!(run(sandbox.client(&["env"]).current_dir(&dir)).done(), "", "{}", dir.display());
        run(sandbox.client(&["env", "--strict"]).current_dir(&dir)).failed(3, "not in a git worktree");
        assert_eq!(run(sandbox.client(&["check"]).current_dir(&dir)).done(), "");
    }
}

#[test]
fn a_daemon_that_never_answers_does_not_keep_the_file_from_answering() {
    let sandbox = Sandbox::new();
    let main = sandbox.repository("main");
    fs::write(main.join(".git/wtd.json"), allocation_file(&main)).unwrap();
    let listener = UnixListener::bind(sandbox.path("mute")).unwrap();
    let mut client = sandbox.client(&["get", "PORT_OFFSET", "--timeout", "100ms"]);
    client.env("WTD_SOCKET", sandbox.path("mute")).current_dir(&main);
    assert_eq!(run(&mut client).done(), "10000\n");
    drop(listener);
    let server = Server::saying(&sandbox, b"nonsense\r\n\r\n".to_vec());
    assert_eq!(run(server.client(&sandbox, &["get", "PORT_OFFSET"]).current_dir(&main)).done(), "10000\n");
}

#[test]
fn commands_that_need_the_daemon_fail_without_one() {
    let sandbox = Sandbox::new();
    let main = sandbox.repository("main");
    fs::write(main.join(".git/wtd.json"), allocation_file(&main)).unwrap();
    for verb in [
        &["list"][..],
        &["list", "--json"],
        &["status"],
        &["status", "--json"],
        &["events"],
        &["add", "."],
        &["forget", ".", "-y"],
        &["reassign"],
    ] {
        run(sandbox.client(verb).current_dir(&main)).failed(4, "no daemon answers");
    }
}
