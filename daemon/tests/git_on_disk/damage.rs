//! Entries that git was interrupted in, or that something else has damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use wtd::domain::observation::{Observation, ObservedRepository, Presence};

use super::support::*;

struct Damaged {
    scratch: Scratch,
    common_dir: PathBuf,
    git_dir: PathBuf,
    linked: PathBuf,
}

impl Damaged {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (main, linked) = scratch.with_linked();
        let common_dir = main.join(".git");
        Self { git_dir: common_dir.join("worktrees/linked"), common_dir, linked, scratch }
    }

    fn look(&self) -> Observation {
        look(&self.common_dir)
    }
}

fn make_old(git_dir: &Path) {
    for path in [git_dir.to_owned(), git_dir.join("gitdir")] {
        if path.exists() {
            age(&path);
        }
    }
}

#[test]
fn an_entry_that_names_no_path_is_waited_for_while_it_is_fresh() {
    for content in [None, Some(""), Some("\n")] {
        let it = Damaged::new();
        fs::remove_file(it.git_dir.join("gitdir")).unwrap();
        if let Some(content) = content {
            fs::write(it.git_dir.join("gitdir"), content).unwrap();
        }
        let seen = it.look();
        assert!(linked_of(&seen).is_empty() && seen.unsettled);
        make_old(&it.git_dir);
        let seen = it.look();
        assert!(linked_of(&seen).is_empty() && !seen.unsettled, "{content:?}");
    }
}

#[test]
fn an_empty_entry_directory_is_one_that_names_no_path() {
    let it = Damaged::new();
    fs::create_dir(it.common_dir.join("worktrees/empty")).unwrap();
    let seen = it.look();
    assert!(only(&seen).path == it.linked && seen.unsettled);
}

#[test]
fn a_recorded_worktree_in_the_middle_of_a_move_keeps_its_path_and_is_unknown() {
    let it = Damaged::new();
    let known = recorded(only(&it.look()), 1);
    fs::write(it.git_dir.join("gitdir"), "").unwrap();
    let seen = look_with(&it.common_dir, &[known]).observation;
    assert!(is_unknown(only(&seen)) && only(&seen).path == it.linked && seen.unsettled);
    assert!(seen.absences.is_empty());
}

/// `git worktree move` and `repair` empty the file before they write it, and a look can fall in between at any point.
#[test]
fn a_recorded_worktree_is_never_taken_for_removed_while_git_writes_where_it_is() {
    let it = Damaged::new();
    let known = recorded(only(&it.look()), 1);
    fs::remove_dir_all(&it.linked).unwrap();
    let gitdir = it.git_dir.join("gitdir");
    let names = |root: &Path| format!("{}/.git\n", root.display());
    let (old, new) = (names(&it.linked), names(&it.scratch.path("moved")));
    make_old(&it.git_dir);
    let looking = AtomicBool::new(true);
    std::thread::scope(|scope| {
        let git = scope.spawn(|| {
            while looking.load(Ordering::Relaxed) {
                fs::write(&gitdir, &old).unwrap();
                age(&gitdir);
                std::thread::yield_now();
                fs::write(&gitdir, &new).unwrap();
            }
        });
        let removed = (0..3000).find(|_| {
            let seen = look_with(&it.common_dir, std::slice::from_ref(&known)).observation;
            !seen.absences.is_empty()
        });
        looking.store(false, Ordering::Relaxed);
        git.join().unwrap();
        assert_eq!(removed, None, "a look in which there was no entry for it");
    });
}

#[test]
fn other_files_of_an_entry_do_not_bear_on_where_its_worktree_is() {
    for name in ["commondir", "HEAD", "index", "ORIG_HEAD"] {
        let it = Damaged::new();
        fs::remove_file(it.git_dir.join(name)).ok();
        assert!(is_finished(only(&it.look())), "{name}");
        fs::write(it.git_dir.join(name), "").unwrap();
        assert!(is_finished(only(&it.look())), "{name}");
    }
}

#[test]
fn a_path_without_its_usual_ends_is_taken() {
    let it = Damaged::new();
    let linked = it.linked.display();
    for content in
        [format!("{linked}/.git"), format!("{linked}/.git\r\n"), format!("{linked}\n"), linked.to_string()]
    {
        fs::write(it.git_dir.join("gitdir"), &content).unwrap();
        assert!(is_finished(only(&it.look())), "{content:?}");
        assert_eq!(only(&it.look()).path, it.linked);
    }
}

#[test]
fn a_root_that_is_not_there_is_missing() {
    let damages: [&dyn Fn(&Path); 4] = [
        &|linked| fs::remove_dir_all(linked).unwrap(),
        &|linked| fs::remove_file(linked.join(".git")).unwrap(),
        &|linked| {
            fs::remove_dir_all(linked).unwrap();
            fs::create_dir(linked).unwrap();
        },
        &|linked| {
            fs::remove_dir_all(linked).unwrap();
            fs::write(linked, "a file").unwrap();
        },
    ];
    for damage in damages {
        let it = Damaged::new();
        let known = recorded(only(&it.look()), 1);
        damage(&it.linked);
        let seen = it.look();
        assert_eq!(only(&seen).presence, Presence::Missing { device_above: Some(known.device) });
    }
}

#[test]
fn a_root_that_points_elsewhere_is_foreign() {
    let it = Damaged::new();
    let other = it.scratch.repository("other");
    fs::remove_file(it.linked.join(".git")).unwrap();
    fs::write(it.linked.join(".git"), format!("gitdir: {}\n", other.join(".git").display())).unwrap();
    assert_eq!(only(&it.look()).presence, Presence::Foreign);
    fs::write(it.linked.join(".git"), "gitdir: /nowhere\n").unwrap();
    assert_eq!(only(&it.look()).presence, Presence::Foreign);
    fs::remove_file(it.linked.join(".git")).unwrap();
    git(&it.linked, ["init", "-q"]);
    assert_eq!(only(&it.look()).presence, Presence::Foreign);
}

#[test]
fn a_root_whose_dot_git_is_not_written_yet_is_unknown_while_it_is_fresh() {
    let it = Damaged::new();
    for content in ["", "gitd"] {
        fs::write(it.linked.join(".git"), content).unwrap();
        let seen = it.look();
        assert!(is_unknown(only(&seen)) && seen.unsettled);
        age(&it.linked.join(".git"));
        let seen = it.look();
        assert!(only(&seen).presence == Presence::Foreign && !seen.unsettled);
    }
}

#[test]
fn of_two_entries_with_one_root_only_that_which_the_root_names_is_present() {
    let it = Damaged::new();
    let other = it.common_dir.join("worktrees/a-copy");
    run("cp", ["-a".as_ref(), it.git_dir.as_os_str(), other.as_os_str()]);
    let seen = it.look();
    let [copy, original] = linked_of(&seen) else { panic!("{seen:?}") };
    assert_eq!(copy.presence, Presence::Foreign);
    assert!(is_finished(original));
    assert_eq!(listed(&it.common_dir).len(), 3);
}

#[test]
fn strays_in_worktrees_are_not_entries() {
    let it = Damaged::new();
    let worktrees = it.common_dir.join("worktrees");
    fs::write(worktrees.join("file"), "").unwrap();
    std::os::unix::fs::symlink(&it.git_dir, worktrees.join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", worktrees.join("dangling")).unwrap();
    assert_eq!(only(&it.look()).id.as_deref(), Some("linked".as_ref()));
}

#[test]
fn a_worktrees_that_is_no_directory_is_not_taken_for_an_empty_one() {
    let it = Damaged::new();
    let worktrees = it.common_dir.join("worktrees");
    fs::rename(&worktrees, it.scratch.path("moved")).unwrap();
    std::os::unix::fs::symlink(it.scratch.path("moved"), &worktrees).unwrap();
    let seen = it.look();
    assert!(matches!(seen.repository, ObservedRepository::Present { unlisted: Some(_), .. }), "{seen:?}");
}

#[test]
fn a_common_dir_that_is_no_repository_is_gone() {
    let it = Damaged::new();
    fs::remove_file(it.common_dir.join("HEAD")).unwrap();
    assert!(matches!(it.look().repository, ObservedRepository::Gone));
    fs::remove_dir_all(&it.common_dir).unwrap();
    assert!(matches!(it.look().repository, ObservedRepository::Gone));
    fs::write(&it.common_dir, "a file").unwrap();
    assert!(matches!(it.look().repository, ObservedRepository::Gone));
}

/// What `git worktree add` leaves behind when it is killed, in the order of its writes.
#[test]
fn an_interrupted_add_is_unfinished_from_the_moment_it_names_its_path() {
    let it = Damaged::new();
    let (git_dir, root) = (it.common_dir.join("worktrees/new"), it.scratch.path("new"));
    let step = |name: &str, content: &str| fs::write(git_dir.join(name), content).unwrap();
    let new = || {
        let seen = it.look();
        let found = linked_of(&seen).iter().find(|found| found.id.as_deref() == Some("new".as_ref()));
        (found.map(|found| found.presence.clone()), seen.unsettled)
    };
    let unfinished =
        |seen: &(Option<Presence>, bool)| matches!(seen.0, Some(Presence::Present { finished: false, .. }));

    fs::create_dir(&git_dir).unwrap();
    assert_eq!(new(), (None, true));
    step("locked", "initializing\n");
    fs::create_dir(&root).unwrap();
    assert_eq!(new(), (None, true));
    step("gitdir", &format!("{}/.git\n", root.display()));
    assert!(matches!(new(), (Some(Presence::Missing { .. }), true)));
    fs::write(root.join(".git"), format!("gitdir: {}\n", git_dir.display())).unwrap();
    assert!(unfinished(&new()));
    step("commondir", "");
    assert!(unfinished(&new()));
    step("commondir", "../..\n");
    step("HEAD", "ref: refs/heads/main\n");
    step("index.lock", "");
    assert!(unfinished(&new()));
    fs::rename(git_dir.join("index.lock"), git_dir.join("index")).unwrap();
    assert!(matches!(new(), (Some(Presence::Present { finished: true, .. }), false)));
    fs::remove_file(git_dir.join("locked")).unwrap();
    assert!(matches!(new(), (Some(Presence::Present { finished: true, .. }), false)));
}

#[test]
fn what_a_worktree_in_the_making_declares_is_taken_from_one_that_is_made() {
    for bare in [false, true] {
        let it = Damaged::new();
        if bare {
            git(&it.common_dir, ["config", "core.bare", "true"]);
        }
        let (git_dir, root) = (it.common_dir.join("worktrees/a-new"), it.scratch.path("a-new"));
        fs::create_dir(&git_dir).unwrap();
        fs::create_dir(&root).unwrap();
        let step = |name: &str, content: &str| fs::write(git_dir.join(name), content).unwrap();
        step("locked", "initializing\n");
        step("gitdir", &format!("{}/.git\n", root.display()));
        fs::write(root.join(".git"), format!("gitdir: {}\n", git_dir.display())).unwrap();
        step("commondir", "../..\n");
        step("HEAD", "ref: refs/heads/main\n");
        step("index.lock", "");
        let new = || {
            let seen = it.look();
            assert_eq!(main_of(&seen).is_none(), bare);
            let all = linked_of(&seen);
            let of = |id: &str| {
                all.iter().find(|found| found.id.as_deref() == Some(id.as_ref())).unwrap().project.clone()
            };
            let made = main_of(&seen).map_or_else(|| all[1].project.clone(), |main| main.project.clone());
            (of("a-new"), made)
        };
        let (unfinished, made) = new();
        assert_eq!(unfinished, made, "bare: {bare}");
        fs::rename(git_dir.join("index.lock"), git_dir.join("index")).unwrap();
        let (finished, made) = new();
        assert_ne!(finished, made, "it has a say of its own now; bare: {bare}");
    }
}

#[test]
fn a_worktree_without_a_checkout_is_finished() {
    let it = Damaged::new();
    git(&it.common_dir, ["worktree", "add", "-q", "--no-checkout", "--detach", "../../bare-bones"]);
    let seen = it.look();
    assert!(linked_of(&seen).iter().all(is_finished), "{seen:?}");
}

#[test]
fn what_may_not_be_read_is_unknown_and_not_missing() {
    if !as_nobody("damage::what_may_not_be_read_is_unknown_and_not_missing") {
        return;
    }
    let it = Damaged::new();
    let deep = it.scratch.path("deep");
    add(&it.common_dir, &deep.join("er"));
    let known: Vec<_> = linked_of(&it.look()).iter().map(|found| recorded(found, 1)).collect();
    let mode = |mode: &str, path: &Path| run("chmod", [mode.as_ref(), path.as_os_str()]);

    mode("000", &deep);
    let seen = it.look();
    assert!(is_unknown(&linked_of(&seen)[0]) && is_finished(&linked_of(&seen)[1]), "{seen:?}");
    mode("700", &deep);

    mode("000", &it.git_dir.join("gitdir"));
    let seen = look_with(&it.common_dir, &known).observation;
    assert!(is_unknown(&linked_of(&seen)[1]) && linked_of(&seen)[1].path == it.linked, "{seen:?}");
    assert!(seen.absences.is_empty());
    let ObservedRepository::Present { unlisted, .. } = it.look().repository else { panic!("{seen:?}") };
    assert!(unlisted.is_some(), "an entry that nobody knows may be anybody's");
    mode("600", &it.git_dir.join("gitdir"));

    mode("000", &it.common_dir.join("worktrees"));
    let seen = it.look();
    assert!(matches!(seen.repository, ObservedRepository::Present { unlisted: Some(_), .. }), "{seen:?}");
    mode("700", &it.common_dir.join("worktrees"));

    mode("000", &it.common_dir);
    assert!(matches!(it.look().repository, ObservedRepository::Unknown(_)));
    mode("700", &it.common_dir);
    assert_eq!(linked_of(&it.look()).len(), 2);
}
