//! Kinds of repositories and worktrees.

use std::fs;
use std::os::unix::fs::symlink;

use wtd::domain::observation::{ObservedRepository, Presence};
use wtd::git::discover;

use super::support::*;

#[test]
fn a_repository_has_its_main_worktree_and_every_linked_one() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let other = scratch.path("deep/er/other");
    add(&main, &other);
    let seen = look(&main.join(".git"));
    let root = main_of(&seen).unwrap();
    assert!(is_finished(root) && root.id.is_none() && root.path == main && root.git_dir == main.join(".git"));
    let [first, second] = linked_of(&seen) else { panic!("{seen:?}") };
    assert!(
        is_finished(first) && first.path == linked && first.git_dir == main.join(".git/worktrees/linked")
    );
    assert!(is_finished(second) && second.path == other && second.id.as_deref() == Some("other".as_ref()));
    assert!(!seen.unsettled);
    assert_eq!(first.project.name, wtd::domain::project::Project::named(&linked.to_string_lossy()).name);
}

#[test]
fn a_repository_without_linked_worktrees_is_listed_whole() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    assert!(linked_of(&look(&main.join(".git"))).is_empty());
}

#[test]
fn a_bare_repository_has_no_main_worktree() {
    let scratch = Scratch::new();
    scratch.repository("main");
    git(&scratch.path(""), ["clone", "-q", "--bare", "main", "bare"]);
    add(&scratch.path("bare"), &scratch.path("linked"));
    let seen = look(&scratch.path("bare"));
    assert!(main_of(&seen).is_none());
    assert!(is_finished(only(&seen)));
}

#[test]
fn a_separate_git_dir_has_the_main_worktree_that_is_named_to_it() {
    let scratch = Scratch::new();
    let (root, common_dir) = (scratch.path("root"), scratch.path("elsewhere"));
    git(&scratch.path(""), ["init", "-q", "--separate-git-dir", "elsewhere", "root"]);
    assert!(main_of(&look(&common_dir)).is_none());
    let seen = look_hinted(&common_dir, Some(&root), &[]).observation;
    let main = main_of(&seen).unwrap();
    assert!(is_finished(main) && main.path == root);

    let known = recorded(main, 1);
    assert_eq!(main_of(&look_with(&common_dir, &[known]).observation).unwrap().path, root);
    // One that does not lead here is none.
    let elsewhere = scratch.repository("other");
    let seen = look_hinted(&common_dir, Some(&elsewhere), &[]).observation;
    assert_eq!(main_of(&seen).unwrap().presence, Presence::Foreign);
}

#[test]
fn a_submodule_has_linked_worktrees_of_its_own() {
    let scratch = Scratch::new();
    scratch.repository("library");
    let main = scratch.repository("main");
    git(&main, ["submodule", "add", "-q", "../library", "sub"]);
    let linked = scratch.path("linked");
    add(&main.join("sub"), &linked);
    let seen = look(&main.join(".git/modules/sub"));
    assert_eq!(main_of(&seen).unwrap().path, main.join("sub"));
    assert!(is_finished(main_of(&seen).unwrap()) && is_finished(only(&seen)));
    assert!(linked_of(&look(&main.join(".git"))).is_empty());
}

#[test]
fn a_common_dir_reached_through_a_symbolic_link_is_the_one_behind_it() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    symlink(&main, scratch.path("link")).unwrap();
    let seen = look(&scratch.path("link/.git"));
    assert_eq!(seen.common_dir, main.join(".git"));
    assert_eq!(only(&seen).path, linked);
}

#[test]
fn a_copied_repositorys_entries_are_the_originals() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let copy = scratch.path("copy");
    run("cp", ["-a".as_ref(), main.as_os_str(), copy.as_os_str()]);
    let seen = look(&copy.join(".git"));
    assert!(is_finished(main_of(&seen).unwrap()) && main_of(&seen).unwrap().path == copy);
    assert_eq!((&only(&seen).presence, &only(&seen).path), (&Presence::Foreign, &linked));
}

#[test]
fn a_moved_repositorys_worktrees_do_not_point_back_until_they_are_repaired() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let before = look(&main.join(".git"));
    let moved = scratch.path("moved");
    fs::rename(&main, &moved).unwrap();
    assert!(matches!(look(&main.join(".git")).repository, ObservedRepository::Gone));
    let seen = look(&moved.join(".git"));
    assert_eq!(only(&seen).presence, Presence::Foreign);
    assert_eq!(only(&seen).identity, only(&before).identity);
    git(&moved, ["worktree", "repair"]);
    let seen = look(&moved.join(".git"));
    assert!(is_finished(only(&seen)) && only(&seen).path == linked);
}

#[test]
fn a_worktree_that_git_moves_is_the_same_at_another_path() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let before = look(&main.join(".git"));
    let moved = scratch.path("deep/moved");
    fs::create_dir(scratch.path("deep")).unwrap();
    git(&main, ["worktree".as_ref(), "move".as_ref(), linked.as_os_str(), moved.as_os_str()]);
    let after = look(&main.join(".git"));
    assert_eq!((only(&after).identity, &only(&after).path), (only(&before).identity, &moved));
    assert!(is_finished(only(&after)));
}

#[test]
fn a_worktree_moved_by_hand_is_missing_until_it_is_repaired() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let moved = scratch.path("moved");
    fs::rename(&linked, &moved).unwrap();
    assert!(is_missing(only(&look(&main.join(".git")))));
    // Whoever works there is told where git's files are, and that the root is another one.
    let found = discover(&moved).unwrap();
    assert_eq!((found.root.as_ref(), &found.git_dir), (Some(&moved), &main.join(".git/worktrees/linked")));
    git(&moved, ["worktree", "repair"]);
    assert!(is_finished(only(&look(&main.join(".git")))));
}

#[test]
fn a_worktree_and_repository_moved_together_are_missing_unless_their_links_are_relative() {
    let scratch = Scratch::new();
    let main = scratch.repository("together/main");
    add(&main, &scratch.path("together/linked"));
    let git_dir = main.join(".git/worktrees/linked");
    fs::rename(scratch.path("together"), scratch.path("moved")).unwrap();
    let common_dir = scratch.path("moved/main/.git");
    assert!(is_missing(only(&look(&common_dir))));

    let git_dir = scratch.path("moved").join(git_dir.strip_prefix(scratch.path("together")).unwrap());
    fs::write(git_dir.join("gitdir"), "../../../../linked/.git\n").unwrap();
    fs::write(scratch.path("moved/linked/.git"), "gitdir: ../main/.git/worktrees/linked\n").unwrap();
    let seen = look(&common_dir);
    assert!(is_finished(only(&seen)));
    assert_eq!(only(&seen).path, scratch.path("moved/linked"));
}

#[test]
fn relative_worktrees_of_newer_git_are_read() {
    if !has_git(2, 48, "relative_worktrees_of_newer_git_are_read") {
        return;
    }
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    git(&main, ["worktree", "add", "-q", "--relative-paths", "--detach", "../linked"]);
    assert!(is_finished(only(&look(&main.join(".git")))));
    assert_eq!(only(&look(&main.join(".git"))).path, scratch.path("linked"));
}

#[test]
fn a_repository_with_sha256_names_is_read_like_any_other() {
    let scratch = Scratch::new();
    git(&scratch.path(""), ["init", "-q", "--object-format=sha256", "main"]);
    let (main, linked) = (scratch.path("main"), scratch.path("linked"));
    commit(&main);
    add(&main, &linked);
    git(&main, ["checkout", "-q", "--detach"]);
    assert!(is_finished(only(&look(&main.join(".git")))));
    assert_eq!(discover(&main).unwrap().root, Some(main));
    assert_eq!(discover(&linked).unwrap().root, Some(linked));
}

#[test]
fn a_replaced_worktree_of_the_same_name_is_another_incarnation() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let before = look(&main.join(".git"));
    git(&main, ["worktree".as_ref(), "remove".as_ref(), linked.as_os_str()]);
    add(&main, &linked);
    let after = look(&main.join(".git"));
    assert_eq!(only(&before).git_dir, only(&after).git_dir);
    assert_ne!(only(&before).identity, only(&after).identity);
}

#[test]
fn locks_are_seen() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    assert!(!only(&look(&main.join(".git"))).locked);
    git(&main, ["worktree".as_ref(), "lock".as_ref(), linked.as_os_str()]);
    let seen = look(&main.join(".git"));
    assert!(only(&seen).locked && is_finished(only(&seen)));
}

#[test]
fn a_worktree_on_an_unmounted_disk_is_missing_on_another_device() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    let name = "a_worktree_on_an_unmounted_disk_is_missing_on_another_device";
    let Some(mut disk) = Disk::mount(&scratch.path("disk"), name) else { return };
    add(&main, &disk.path.join("linked"));
    let seen = look(&main.join(".git"));
    let Presence::Present { device, stamp, .. } = only(&seen).presence else { panic!("{seen:?}") };
    assert!(stamp.local);
    disk.unmount();
    let seen = look(&main.join(".git"));
    let Presence::Missing { device_above: Some(above) } = only(&seen).presence else { panic!("{seen:?}") };
    assert_ne!(above, device);
}

#[test]
fn branches_are_read_from_head() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let branch = |root| wtd::git::branch(&rev_parse(root, "--absolute-git-dir"), soon()).unwrap();
    assert_eq!(branch(&main).as_deref(), Some("main"));
    assert_eq!(branch(&linked), None);
    git(&linked, ["checkout", "-q", "-b", "it's/a`b$(c)"]);
    assert_eq!(branch(&linked).as_deref(), Some("it's/a`b$(c)"));
}

#[test]
fn branches_of_a_reftable_repository_are_asked_of_git() {
    if !has_git(2, 45, "branches_of_a_reftable_repository_are_asked_of_git") {
        return;
    }
    let scratch = Scratch::new();
    let main = scratch.path("main");
    git(&scratch.path(""), ["init", "-q", "--ref-format=reftable", "main"]);
    commit(&main);
    git(&main, ["worktree", "add", "-q", "-b", "feature", "../linked"]);
    let seen = look(&main.join(".git"));
    assert!(is_finished(only(&seen)));
    assert_eq!(wtd::git::branch(&only(&seen).git_dir, soon()).unwrap().as_deref(), Some("feature"));
    assert_eq!(wtd::git::branch(&main.join(".git"), soon()).unwrap().as_deref(), Some("main"));
    assert_eq!(discover(&scratch.path("linked")).unwrap().git_dir, only(&seen).git_dir);
}
