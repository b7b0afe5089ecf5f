//! Whatever is done to a repository, the worktrees seen are those that git lists.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use proptest::prelude::*;
use wtd::domain::observation::{Observation, ObservedRepository};

use super::support::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Add,
    AddLocked,
    Remove,
    RemoveForced,
    Lock,
    Unlock,
    Move,
    Prune,
    Delete,
    DeleteDotGit,
    MoveByHand,
    Repair,
}

fn paths(seen: &Observation) -> Vec<PathBuf> {
    let mut paths: Vec<PathBuf> =
        main_of(seen).into_iter().chain(linked_of(seen)).map(|found| found.path.clone()).collect();
    paths.sort();
    paths
}

fn apply(scratch: &Scratch, step: Step, which: u8) {
    let main = scratch.path("main");
    let (path, elsewhere) = (scratch.path(format!("w{which}")), scratch.path(format!("m{which}")));
    let worktree = |arguments: &[&str]| drop(try_git(&main, [&["worktree"], arguments].concat()));
    let (text, other) = (path.to_str().unwrap(), elsewhere.to_str().unwrap());
    match step {
        Step::Add => worktree(&["add", "--detach", text]),
        Step::AddLocked => worktree(&["add", "--lock", "--detach", "--no-checkout", text]),
        Step::Remove => worktree(&["remove", text]),
        Step::RemoveForced => worktree(&["remove", "-f", "-f", text]),
        Step::Lock => worktree(&["lock", text]),
        Step::Unlock => worktree(&["unlock", text]),
        Step::Move => worktree(&["move", text, other]),
        Step::Prune => worktree(&["prune"]),
        Step::Delete => drop(fs::remove_dir_all(&path)),
        Step::DeleteDotGit => drop(fs::remove_file(path.join(".git"))),
        Step::MoveByHand => drop(fs::rename(&path, &elsewhere)),
        Step::Repair => worktree(&["repair", text, other]),
    }
}

fn step() -> impl Strategy<Value = (Step, u8)> {
    use Step::*;
    let steps = prop::sample::select(vec![
        Add,
        Add,
        Add,
        AddLocked,
        Remove,
        RemoveForced,
        Lock,
        Unlock,
        Move,
        Prune,
        Delete,
        DeleteDotGit,
        MoveByHand,
        Repair,
    ]);
    (steps, 0..3_u8)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_worktrees_seen_are_those_that_git_lists(steps in prop::collection::vec(step(), 1..14)) {
        let scratch = Scratch::new();
        let main = scratch.repository("main");
        for (step, which) in steps {
            apply(&scratch, step, which);
        }
        let seen = look(&main.join(".git"));
        prop_assert_eq!(paths(&seen), listed(&main));
        // Git marks as prunable what is missing and not locked.
        let list = git(&main, ["worktree", "list", "--porcelain", "-z"]);
        let prunable = list.split(|&byte| byte == 0).filter(|line| line.starts_with(b"prunable")).count();
        let missing = linked_of(&seen).iter().filter(|found| is_missing(found) && !found.locked).count();
        prop_assert_eq!(missing, prunable);
    }
}

#[test]
fn a_look_while_worktrees_come_and_go_neither_fails_nor_lies() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    let steady = scratch.path("steady");
    add(&main, &steady);
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writers: Vec<_> = ["one", "two"]
            .map(|name| {
                let (path, main) = (scratch.path(name), &main);
                scope.spawn(move || {
                    let path = path.to_str().unwrap();
                    for _ in 0..30 {
                        try_git(main, ["worktree", "add", "-q", "--detach", path]);
                        try_git(main, ["worktree", "remove", "--force", path]);
                    }
                })
            })
            .into();
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let seen = look(&main.join(".git"));
                assert!(
                    matches!(seen.repository, ObservedRepository::Present { unlisted: None, .. }),
                    "{seen:?}"
                );
                assert!(linked_of(&seen).iter().any(|found| found.path == steady && is_finished(found)));
            }
        });
        for writer in writers {
            writer.join().unwrap();
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(paths(&look(&main.join(".git"))), listed(&main));
}
