//! An allocation belongs to one incarnation of a worktree, whatever its path, its id or its repository's place;
//! and what happens while the daemon is down counts as much as what it sees.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Daemon, Nobody, Ran, Repo, Row, Rows, Sandbox, require, until};

/// A repository with two linked worktrees, and what `change` does to it while the daemon runs, is stopped in its
/// tracks, or is down after a crash. `check` gets the row of the first linked worktree of before.
fn however_the_daemon_fares<T>(
    change: impl Fn(&Repo<'_>, &[PathBuf; 2]) -> T,
    check: impl Fn(&Daemon<'_>, &Repo<'_>, &[PathBuf; 2], &Row, T),
) {
    for fare in ["running", "stopped", "down"] {
        eprintln!("the daemon is {fare}");
        let sandbox = Sandbox::new();
        let mut daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let worktrees = [repo.add("one"), repo.add("two")];
        let before = daemon.await_agreement(&repo).at(&worktrees[0]).clone();
        let changed;
        match fare {
            "stopped" => {
                daemon.sigstop();
                changed = change(&repo, &worktrees);
                daemon.sigcont();
            }
            "down" => {
                daemon.kill9();
                changed = change(&repo, &worktrees);
                daemon = sandbox.daemon();
            }
            _ => changed = change(&repo, &worktrees),
        }
        check(&daemon, &repo, &worktrees, &before, changed);
        sandbox.list_all().assert_disjoint();
    }
}

#[test]
fn git_worktree_move_keeps_the_allocation() {
    however_the_daemon_fares(
        |repo, [one, _]| {
            let moved = repo.sandbox.path("moved");
            repo.mv(one, &moved);
            moved
        },
        |daemon, repo, [one, _], before, moved| {
            let rows = daemon.await_state(&moved, "active");
            assert_eq!((&rows.at(&moved).id, rows.at(&moved).offset), (&before.id, before.offset));
            assert!(rows.find(one).is_none());
            assert_eq!(repo.sandbox.get(&moved, "WTD_WORKTREE"), moved.display().to_string());
            let file = fs::read_to_string(repo.git_dir(&moved).join("wtd.json")).unwrap();
            assert!(file.contains(&before.id), "{file}");
        },
    );
}

#[test]
fn a_worktree_moved_by_hand_is_missing_until_git_repairs_it() {
    however_the_daemon_fares(
        |repo, [one, _]| {
            let moved = repo.sandbox.path("moved");
            fs::rename(one, &moved).unwrap();
            moved
        },
        |daemon, repo, [one, _], before, moved| {
            let rows = daemon.await_state(one, "missing");
            assert_eq!(rows.at(one).id, before.id);
            Repo::at(repo.sandbox, &moved).git(["worktree", "repair"]);
            let rows = daemon.await_state(&moved, "active");
            assert_eq!((&rows.at(&moved).id, rows.at(&moved).offset), (&before.id, before.offset));
        },
    );
}

#[test]
fn a_copy_of_a_worktrees_directory_is_refused_for_as_long_as_the_original_stands() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let separate = Repo::at(&sandbox, &sandbox.path("separate"));
    fs::create_dir(&separate.path).unwrap();
    separate.git(["init", "-q", "--separate-git-dir", "../elsewhere"]);
    let linked = repo.add("linked");
    let offsets = [(linked, 10_000), (separate.path, 20_000)];
    for (original, offset) in &offsets {
        assert_eq!(sandbox.offset(original), *offset);
    }
    let copy_of = |path: &Path| path.with_extension("copy");
    let refused = |code| {
        for (original, _) in &offsets {
            let copy = copy_of(original);
            let line = sandbox.client_in(&copy, ["env"]).fails(code);
            let words = format!("it is a copy of the worktree {}", original.display());
            assert!(line.contains(&words) && line.contains(copy.to_str().unwrap()), "{line}");
        }
    };
    for (original, _) in &offsets {
        Ran::of(sandbox.command("cp").arg("-a").args([original, &copy_of(original)])).ok();
    }
    refused(1);
    for (original, offset) in &offsets {
        assert_eq!(sandbox.offset(original), *offset);
        assert_eq!(sandbox.get(original, "WTD_WORKTREE"), original.display().to_string());
    }
    daemon.terminate();
    refused(4);
    let daemon = sandbox.daemon();
    refused(1);
    // Without the original it is a worktree that was moved by hand.
    for (original, offset) in offsets {
        fs::remove_dir_all(&original).unwrap();
        let moved = Repo::at(&sandbox, &copy_of(&original));
        if offset == 10_000 {
            daemon.await_state(&original, "missing");
            moved.git(["worktree", "repair"]);
        }
        assert_eq!(sandbox.offset(&moved.path), offset);
    }
}

#[test]
fn a_repository_that_was_moved_keeps_its_allocations_at_the_first_request_from_there() {
    however_the_daemon_fares(
        |repo, _| {
            let moved = repo.sandbox.path("renamed");
            fs::rename(&repo.path, &moved).unwrap();
            moved
        },
        |daemon, repo, [one, two], before, moved| {
            assert_eq!(repo.sandbox.offset(&moved), 0);
            let moved = Repo::at(repo.sandbox, &moved);
            moved.git([std::ffi::OsStr::new("worktree"), "repair".as_ref(), one.as_ref(), two.as_ref()]);
            let rows = daemon.await_agreement(&moved);
            assert_eq!((&rows.at(one).id, rows.at(one).offset), (&before.id, before.offset));
            assert_eq!((rows.at(&moved.path).offset, rows.at(two).offset), (0, 20_000));
            assert_eq!(rows.at(&moved.path).project, "app", "its database keeps its name");
        },
    );
}

#[test]
fn a_repository_that_is_asked_about_the_moment_it_was_moved_is_watched() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let mut repo = sandbox.repo("app");
    let before = daemon.put(&repo.path)["id"].clone();
    for round in 0..20 {
        let moved = sandbox.path(format!("app-{round}"));
        fs::rename(&repo.path, &moved).unwrap();
        assert_eq!(daemon.put(&moved)["id"], before);
        repo = Repo::at(&sandbox, &moved);
        let one = repo.add(&format!("one-{round}"));
        daemon.await_state(&one, "active");
        repo.remove(&one);
        daemon.await_state(&one, "released");
    }
}

#[test]
fn a_renamed_directory_above_everything_changes_no_offset() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    fs::create_dir(sandbox.path("code")).unwrap();
    let repo = sandbox.repo("code/app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo).at(&one).clone();
    fs::rename(sandbox.path("code"), sandbox.path("work")).unwrap();
    let repo = Repo::at(&sandbox, &sandbox.path("work/app"));
    let one = sandbox.path("work/app-one");
    assert_eq!(sandbox.offset(&repo.path), 0);
    repo.git([std::ffi::OsStr::new("worktree"), "repair".as_ref(), one.as_ref()]);
    let rows = daemon.await_agreement(&repo);
    assert_eq!((&rows.at(&one).id, rows.at(&one).offset), (&before.id, 10_000));
}

#[test]
fn remove_and_add_under_the_same_name_is_a_new_allocation() {
    however_the_daemon_fares(
        |repo, [one, _]| {
            repo.remove(one);
            repo.git(["branch", "-q", "-D", "one"]);
            repo.add_at(one, "one");
        },
        |daemon, repo, [one, _], before, ()| {
            assert_eq!(
                repo.sandbox.client_in(one, ["get", "WTD_WORKTREE"]).ok().trim_end(),
                one.to_str().unwrap()
            );
            let rows = daemon.await_agreement(repo);
            assert_ne!(rows.at(one).id, before.id);
            let rows = daemon.await_list("the old one is released", |rows| {
                rows.id(&before.id).is_some_and(|row| row.is("released"))
            });
            assert_eq!(rows.id(&before.id).unwrap().offset, before.offset);
        },
    );
}

#[test]
fn git_worktree_remove_releases_what_nothing_is_left_of() {
    however_the_daemon_fares(
        |repo, [one, _]| repo.remove(one),
        |daemon, repo, [one, two], before, ()| {
            let rows = daemon.await_list("it is released", |rows| {
                rows.id(&before.id).is_some_and(|row| row.is("released"))
            });
            assert!(rows.find(one).is_none());
            assert_eq!(daemon.await_agreement(repo).at(two).offset, 20_000);
        },
    );
}

#[test]
fn a_deleted_directory_is_missing_until_git_prunes_it() {
    however_the_daemon_fares(
        |_, [one, _]| fs::remove_dir_all(one).unwrap(),
        |daemon, repo, [one, _], before, ()| {
            let rows = daemon.await_state(one, "missing");
            assert_eq!((&rows.at(one).id, rows.at(one).offset), (&before.id, 10_000));
            assert!(!rows.at(one).reason.is_empty(), "it says why");
            repo.git(["worktree", "prune"]);
            daemon.await_list("it is released", |rows| {
                rows.id(&before.id).is_some_and(|row| row.is("released"))
            });
        },
    );
}

#[test]
fn a_locked_worktree_whose_directory_is_gone_is_missing_for_as_long_as_it_is_locked() {
    however_the_daemon_fares(
        |repo, [one, _]| {
            repo.git(["worktree", "lock", one.to_str().unwrap()]);
            fs::remove_dir_all(one).unwrap();
            repo.git(["worktree", "prune"]);
        },
        |daemon, repo, [one, _], before, ()| {
            let rows = daemon.await_state(one, "missing");
            assert_eq!((&rows.at(one).id, rows.at(one).offset), (&before.id, 10_000));
            assert!(rows.at(one).locked, "{rows:#?}");
            repo.git(["worktree", "unlock", one.to_str().unwrap()]);
            repo.git(["worktree", "prune"]);
            daemon.await_list("it is released", |rows| {
                rows.id(&before.id).is_some_and(|row| row.is("released"))
            });
        },
    );
}

#[test]
fn lock_and_unlock_show_and_change_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo).at(&one).clone();
    for (verb, locked) in [("lock", true), ("unlock", false)] {
        repo.git(["worktree", verb, one.to_str().unwrap()]);
        let row = until(verb, || sandbox.list().at(&one).clone(), |row| row.locked == locked);
        assert_eq!((row.id, row.offset, row.state), (before.id.clone(), 10_000, "active".to_owned()));
    }
}

#[test]
fn a_main_worktree_that_is_deleted_is_missing_and_comes_back() {
    however_the_daemon_fares(
        |repo, _| {
            let away = repo.sandbox.path("away");
            fs::rename(&repo.path, &away).unwrap();
            away
        },
        |daemon, repo, [one, _], before, away| {
            let rows = repo.sandbox.list();
            let rows = if rows.at(one).is("missing") { rows } else { daemon.await_state(one, "missing") };
            assert_eq!((rows.at(&repo.path).state.as_str(), &rows.at(one).id), ("missing", &before.id));
            fs::rename(&away, &repo.path).unwrap();
            let rows = daemon.await_agreement(repo);
            assert_eq!((rows.at(&repo.path).offset, &rows.at(one).id), (0, &before.id));
        },
    );
}

#[test]
fn an_entry_that_vanished_while_its_directory_stands_is_missing() {
    however_the_daemon_fares(
        // As `git worktree prune` does it in a container that sees other paths.
        |repo, [one, _]| fs::remove_dir_all(repo.git_dir(one)).unwrap(),
        |daemon, repo, [one, two], before, ()| {
            let rows = daemon.await_state(one, "missing");
            assert_eq!((&rows.at(one).id, rows.at(one).offset), (&before.id, 10_000));
            let three = repo.add("three");
            let rows = daemon.await_agreement(repo);
            assert_eq!(
                (rows.at(two).offset, rows.at(&three).offset),
                (20_000, 30_000),
                "its offset is not given away"
            );
            repo.sandbox.client(["forget", "-y", one.to_str().unwrap()]).ok();
            let rows = repo.sandbox.list_all();
            let row = rows.id(&before.id).unwrap();
            assert!(row.is("stale") || row.is("released"), "{row:#?}");
            assert_eq!(rows.at(two).offset, 20_000, "forgetting it forgets nothing else");
        },
    );
}

#[test]
fn forget_makes_stale_and_the_next_request_begins_anew() {
    let sandbox = Sandbox::with_config("engine = \"unix:///nonexistent/engine.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo);
    let line = sandbox.client(["forget", "app"]).fails(1);
    assert!(line.contains("-y"), "without a terminal to ask on it is refused: {line}");
    assert_eq!(sandbox.list().active(None).len(), 2);

    sandbox.client(["forget", "-y", "app"]).ok();
    let rows = sandbox.list_all();
    for path in [&repo.path, &one] {
        let row = rows.id(&before.at(path).id).unwrap();
        assert_eq!(row.state, "stale");
        assert!(row.reason.contains("forgotten"), "{}", row.reason);
        assert!(!repo.git_dir(path).join("wtd.json").exists());
    }
    assert_eq!(daemon.get("/v1/repositories").ok(), serde_json::json!([]));
    repo.add("two");
    daemon.terminate();
    let daemon = sandbox.daemon();
    assert_eq!(sandbox.list().len(), 0, "nobody asked for it since");
    sandbox.client(["forget", "-y", "app"]).fails(1);
    assert_eq!(daemon.put(&repo.path)["offset"], 20_000);
    assert_eq!(daemon.await_agreement(&repo).offsets(), [20_000, 30_000, 40_000]);
}

#[test]
fn what_git_has_removed_stays_removed_when_its_repository_is_forgotten() {
    // An engine that is down keeps it stale.
    let sandbox = Sandbox::with_config("engine = \"unix:///nonexistent/docker.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_state(&one, "active");
    repo.remove(&one);
    daemon.await_state(&one, "stale");
    sandbox.client(["forget", "-y", repo.path.to_str().unwrap()]).ok();
    let rows = sandbox.list_all();
    let reason = |path: &Path| rows.iter().find(|row| row.exact_path() == path).unwrap().reason.clone();
    assert_eq!(reason(&one), "git removed it");
    assert_eq!(reason(&repo.path), "forgotten by a person");
}

#[test]
fn a_git_dir_that_cannot_be_written_is_known_by_its_birth() {
    if !require::unprivileged() {
        return;
    }
    let sandbox = Sandbox::new();
    let nobody = Nobody::of(&sandbox);
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    let git_dirs = [repo.path.join(".git"), repo.git_dir(&one)];
    nobody.own(sandbox.root());
    let set_mode = |mode| {
        for dir in &git_dirs {
            fs::set_permissions(dir, Permissions::from_mode(mode)).unwrap();
        }
    };
    let git =
        |arguments: &[&str]| Ran::of(nobody.command("git").args(arguments).current_dir(&repo.path)).ok();
    let rows = || Rows::parse(&nobody.client(["list", "--json"]).ok());
    set_mode(0o555);
    let mut daemon = nobody.daemon();
    nobody.client(["add", repo.path.to_str().unwrap()]).ok();
    let before = rows();
    assert_eq!((before.at(&repo.path).offset, before.at(&one).offset), (0, 10_000));
    assert!(git_dirs.iter().all(|dir| !dir.join("wtd.json").exists()));
    for _ in 0..2 {
        daemon.kill9();
        daemon = nobody.daemon();
        let after = rows();
        for path in [&repo.path, &one] {
            assert_eq!((&after.at(path).id, after.at(path).is("active")), (&before.at(path).id, true));
        }
    }
    daemon.kill9();
    set_mode(0o755);
    git(&["worktree", "remove", "--force", one.to_str().unwrap()]);
    git(&["worktree", "add", "-q", one.to_str().unwrap(), "one"]);
    set_mode(0o555);
    let _daemon = nobody.daemon();
    // A daemon is ready before it has seen everything, where that takes long.
    let is_another = |after: &Rows| after.at(&one).id != before.at(&one).id;
    let after = until("another incarnation, though its name and path are the same", rows, is_another);
    assert_eq!(after.at(&repo.path).id, before.at(&repo.path).id);
    set_mode(0o755);
}
