//! Whether a repository is as it was, told from `stat` alone.

use std::fs;
use std::path::Path;

use wtd::git::fingerprint::Fingerprint;

use super::support::*;

struct Taken {
    scratch: Scratch,
    main: std::path::PathBuf,
    linked: std::path::PathBuf,
}

impl Taken {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (main, linked) = scratch.with_linked();
        Self { scratch, main, linked }
    }

    fn fingerprint(&self) -> Fingerprint {
        look_with(&self.main.join(".git"), &[]).fingerprint
    }
}

#[test]
fn looking_again_sees_the_same_when_nothing_has_changed() {
    let it = Taken::new();
    let other = it.scratch.path("other");
    add(&it.main, &other);
    fs::remove_dir_all(other).unwrap();
    fs::create_dir(it.main.join(".git/worktrees/half-made")).unwrap();
    fs::write(it.main.join(".git/worktrees/stray"), "").unwrap();
    std::os::unix::fs::symlink("nowhere", it.main.join(".git/worktrees/link")).unwrap();
    let before = it.fingerprint();
    assert_eq!(before.again().digest, before.digest);
    assert_eq!(it.fingerprint().digest, before.digest);
    assert!(before.racy, "it was all made just now");
}

#[test]
fn ordinary_work_in_the_main_worktree_does_not_show() {
    let it = Taken::new();
    let before = it.fingerprint();
    fs::write(it.main.join("file"), "").unwrap();
    git(&it.main, ["add", "file"]);
    commit(&it.main);
    git(&it.main, ["branch", "new"]);
    assert_eq!(before.again().digest, before.digest);
}

/// What is done, and how.
type Change = (&'static str, fn(&Taken));

/// Everything that an observation rests on, changed.
fn changes() -> [Change; 16] {
    [
        ("add", |it| add(&it.main, &it.scratch.path("new"))),
        ("remove", |it| {
            drop(git(&it.main, ["worktree".as_ref(), "remove".as_ref(), it.linked.as_os_str()]));
        }),
        ("lock", |it| drop(git(&it.main, ["worktree".as_ref(), "lock".as_ref(), it.linked.as_os_str()]))),
        ("move", |it| {
            let to = it.scratch.path("moved");
            git(&it.main, ["worktree".as_ref(), "move".as_ref(), it.linked.as_os_str(), to.as_os_str()]);
        }),
        ("move by hand", |it| fs::rename(&it.linked, it.scratch.path("moved")).unwrap()),
        ("rm -rf", |it| fs::remove_dir_all(&it.linked).unwrap()),
        ("rm .git", |it| fs::remove_file(it.linked.join(".git")).unwrap()),
        ("a rewritten .git", |it| rewrite(&it.linked.join(".git"))),
        ("a rewritten gitdir", |it| rewrite(&it.main.join(".git/worktrees/linked/gitdir"))),
        ("a configuration", |it| drop(git(&it.main, ["config", "core.bare", "true"]))),
        ("a project file", |it| fs::write(it.main.join("wtd.toml"), "").unwrap()),
        ("a linked worktree's", |it| fs::write(it.linked.join("wtd.toml"), "").unwrap()),
        ("a common dir's", |it| fs::write(it.main.join(".git/wtd.toml"), "").unwrap()),
        ("an allocation file", |it| fs::write(it.main.join(".git/worktrees/linked/wtd.json"), "").unwrap()),
        ("the main worktree's", |it| fs::write(it.main.join(".git/wtd.json"), "").unwrap()),
        ("the repository moved away", |it| fs::rename(&it.main, it.scratch.path("moved")).unwrap()),
    ]
}

#[test]
fn every_change_that_an_observation_rests_on_shows() {
    for (what, change) in changes() {
        let it = Taken::new();
        let before = it.fingerprint();
        change(&it);
        assert_ne!(before.again().digest, before.digest, "{what}");
    }
}

/// The same content, at the same size and in the same file.
fn rewrite(path: &Path) {
    let content = fs::read(path).unwrap();
    let before = fs::metadata(path).unwrap().modified().unwrap();
    // File times have the grain of a clock tick.
    while fs::metadata(path).unwrap().modified().unwrap() == before {
        fs::write(path, &content).unwrap();
    }
}

#[test]
fn what_was_recorded_and_is_absent_is_looked_at_again_too() {
    let it = Taken::new();
    let common_dir = it.main.join(".git");
    let known = recorded(only(&look(&common_dir)), 1);
    fs::remove_dir_all(&known.git_dir).unwrap();
    let before = look_with(&common_dir, &[known]).fingerprint;
    assert_eq!(before.again().digest, before.digest);
    fs::remove_dir_all(&it.linked).unwrap();
    assert_ne!(before.again().digest, before.digest);
}

#[test]
fn an_unmounted_disk_shows_where_nothing_else_does() {
    let it = Taken::new();
    let Some(mut disk) =
        Disk::mount(&it.scratch.path("disk"), "an_unmounted_disk_shows_where_nothing_else_does")
    else {
        return;
    };
    let path = disk.path.join("linked-2");
    add(&it.main, &path);
    fs::remove_dir_all(&path).unwrap();
    let before = it.fingerprint();
    disk.unmount();
    assert_ne!(before.again().digest, before.digest);
}

#[test]
fn a_repository_that_is_not_there_proves_nothing() {
    let scratch = Scratch::new();
    assert!(look_with(&scratch.path("none"), &[]).fingerprint.racy);
}

#[test]
fn what_is_remembered_never_hides_a_change() {
    for (what, change) in changes() {
        let it = Taken::new();
        let common_dir = it.main.join(".git");
        // What was changed just now is not remembered yet: file times have the grain of a clock tick.
        let mut remembered = look_with(&common_dir, &[]);
        while remembered.fingerprint.racy {
            remembered = look_with(&common_dir, &[]);
        }
        let unchanged = look_remembering(&common_dir, remembered.memory.clone());
        assert_eq!(
            format!("{:?}", unchanged.observation),
            format!("{:?}", remembered.observation),
            "before {what}"
        );
        change(&it);
        let mut is_settled = false;
        loop {
            let recalled = look_remembering(&common_dir, remembered.memory.clone()).observation;
            let now = look_with(&common_dir, &[]);
            let (recalled, seen) = (format!("{recalled:?}"), format!("{:?}", now.observation));
            if recalled == seen {
                break;
            }
            // A file can be too young for its marks at the first of the two, and old enough at the second.
            assert!(!is_settled, "{what}\nrecalled: {recalled}\nseen: {seen}");
            is_settled = !now.fingerprint.racy;
        }
    }
}
