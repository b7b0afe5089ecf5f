//! Repositories that are made to hold up, mislead or overwhelm whoever reads them. What would hang here hangs the
//! test.

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use wtd::domain::observation::{Claim, ObservedRepository, Presence};
use wtd::git::{DiscoverError, discover, files};

use super::support::*;

/// What is put in a file's place, and how.
type Trap = (&'static str, fn(&Path));

/// Things that a reader of an ordinary file may be made to open: each puts itself in the file's place.
fn traps() -> Vec<Trap> {
    vec![
        ("a FIFO", |path| run("mkfifo", [path])),
        ("a link to a FIFO", |path| {
            let fifo = path.with_extension("fifo");
            run("mkfifo", [&fifo]);
            symlink(fifo, path).unwrap();
        }),
        ("an endless device", |path| symlink("/dev/zero", path).unwrap()),
        ("a terminal", |path| symlink("/dev/tty", path).unwrap()),
        ("a file of a terabyte", |path| File::create(path).unwrap().set_len(1 << 40).unwrap()),
        ("a directory", |path| fs::create_dir(path).unwrap()),
        ("a link to itself", |path| symlink(path.file_name().unwrap(), path).unwrap()),
        ("random bytes", |path| fs::write(path, [0, 255, 10, 0, 7, 200]).unwrap()),
        ("a long path", |path| fs::write(path, format!("gitdir: /{}\n", "x/".repeat(30_000))).unwrap()),
    ]
}

fn put(trap: fn(&Path), path: &Path) {
    fs::remove_file(path).ok();
    trap(path);
}

#[test]
fn no_file_of_a_repository_can_hold_up_a_look() {
    for name in ["gitdir", "commondir", "HEAD", "locked", "index", "wtd.json"] {
        for (what, trap) in traps() {
            let scratch = Scratch::new();
            let (main, linked) = scratch.with_linked();
            let git_dir = main.join(".git/worktrees/linked");
            put(trap, &git_dir.join(name));
            let seen = look(&main.join(".git"));
            assert!(main_of(&seen).is_some_and(is_finished), "{name} is {what}");
            assert_eq!(discover(&main).unwrap().root, Some(main.clone()), "{name} is {what}");
            // Whatever comes of these is an answer, and comes at once.
            drop(discover(&linked));
            drop(discover(&git_dir));
            drop(wtd::git::branch(&git_dir, soon()));
        }
    }
}

#[test]
fn no_dot_git_can_hold_up_a_look() {
    for (what, trap) in traps() {
        let scratch = Scratch::new();
        let (main, linked) = scratch.with_linked();
        put(trap, &linked.join(".git"));
        let seen = look(&main.join(".git"));
        assert!(!is_present(only(&seen)), "{what}: {seen:?}");
        assert!(discover(&linked).is_err(), "{what}");
    }
}

#[test]
fn no_file_of_the_common_dir_can_hold_up_a_look() {
    for name in ["HEAD", "config", "config.worktree", "commondir", "gitdir", "wtd.json"] {
        for (what, trap) in traps() {
            let scratch = Scratch::new();
            let main = scratch.repository("main");
            git(&main, ["config", "extensions.worktreeConfig", "true"]);
            put(trap, &main.join(".git").join(name));
            let seen = look(&main.join(".git"));
            assert!(
                !matches!(&seen.repository, ObservedRepository::Present { main: None, .. }),
                "{name} is {what}"
            );
            drop(discover(&main));
        }
    }
}

#[test]
fn a_path_that_cannot_be_one_is_not_present() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    let gitdir = main.join(".git/worktrees/linked/gitdir");
    for content in
        ["/a\0b/.git\n".to_owned(), format!("/{}/.git\n", "x".repeat(300)), "/\n".into(), "/.git\n".into()]
    {
        fs::write(&gitdir, &content).unwrap();
        assert!(!is_present(only(&look(&main.join(".git")))), "{content:?}");
    }
}

#[test]
fn a_loop_of_git_dirs_ends() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    let git_dir = main.join(".git");
    fs::write(git_dir.join("commondir"), ".\n").unwrap();
    fs::write(git_dir.join("gitdir"), format!("{}/.git\n", main.display())).unwrap();
    drop(look(&git_dir));
    drop(discover(&main));
    fs::create_dir(scratch.path("a")).unwrap();
    fs::write(scratch.path("a/.git"), "gitdir: .\n").unwrap();
    assert!(matches!(discover(&scratch.path("a")), Err(DiscoverError::Unfinished { .. })));
}

#[test]
fn a_git_dir_that_claims_another_repository_is_not_its_worktree() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    let forged = scratch.path("forged");
    fs::create_dir_all(forged.join("git")).unwrap();
    fs::write(forged.join("git/HEAD"), "ref: refs/heads/main\n").unwrap();
    fs::write(forged.join("git/commondir"), format!("{}\n", main.join(".git").display())).unwrap();
    fs::write(forged.join(".git"), "gitdir: git\n").unwrap();
    let found = discover(&forged);
    assert!(matches!(&found, Err(DiscoverError::Broken { root, .. }) if *root == forged), "{found:?}");
}

#[test]
fn an_entry_that_leads_out_of_the_repository_is_none() {
    let scratch = Scratch::new();
    let (other, _) = scratch.with_linked();
    let main = scratch.repository("second");
    fs::create_dir(main.join(".git/worktrees")).unwrap();
    symlink(other.join(".git/worktrees/linked"), main.join(".git/worktrees/linked")).unwrap();
    assert!(linked_of(&look(&main.join(".git"))).is_empty());
}

#[test]
fn an_allocation_file_is_not_read_through_a_link() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    fs::write(scratch.path("elsewhere"), "{}").unwrap();
    symlink(scratch.path("elsewhere"), main.join(".git/worktrees/linked/wtd.json")).unwrap();
    assert!(matches!(only(&look(&main.join(".git"))).claim, Claim::Unusable(_)));
}

#[test]
fn too_many_entries_are_not_taken_for_a_whole_list() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    for index in 0..files::MAX_ENTRIES {
        symlink("nowhere", main.join(format!(".git/worktrees/{index}"))).unwrap();
    }
    let seen = look(&main.join(".git"));
    assert!(matches!(seen.repository, ObservedRepository::Present { unlisted: Some(_), .. }));
}

#[test]
fn includes_of_a_configuration_are_not_followed() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    fs::write(scratch.path("bare"), "[core]\n\tbare = true\n").unwrap();
    git(&main, ["config", "include.path", "../../bare"]);
    assert_eq!(discover(&main).unwrap().root, Some(main));
}

#[test]
fn nothing_that_a_repository_names_is_run_when_git_is_asked() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    let run_by_git: PathBuf = scratch.path("run");
    let script = scratch.path("script");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", run_by_git.display())).unwrap();
    run("chmod", ["755".as_ref(), script.as_os_str()]);
    let script = script.to_str().unwrap();
    for key in
        ["core.fsmonitor", "core.pager", "core.sshCommand", "core.gitProxy", "core.alternateRefsCommand"]
    {
        git(&main, ["config", key, script]);
    }
    git(&main, ["config", "alias.worktree", &format!("!{script}")]);
    git(&main, ["config", "core.hooksPath", scratch.path("").to_str().unwrap()]);
    assert_eq!(wtd::git::ask::worktree_paths(&main.join(".git")).unwrap(), std::slice::from_ref(&main));
    assert!(!run_by_git.exists());
}

#[test]
fn a_presence_is_told_by_the_root_and_not_by_what_the_entry_says() {
    let scratch = Scratch::new();
    let (main, _) = scratch.with_linked();
    let other = scratch.repository("other");
    fs::write(main.join(".git/worktrees/linked/gitdir"), format!("{}/.git\n", other.display())).unwrap();
    assert_eq!(only(&look(&main.join(".git"))).presence, Presence::Foreign);
}
