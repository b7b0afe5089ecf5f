//! Recorded worktrees that no entry answers for.

use std::fs;
use std::path::PathBuf;

use wtd::domain::observation::{Absence, DirectoryLook, GitAnswer, ObservedRepository, Recorded};

use super::support::*;

struct Known {
    scratch: Scratch,
    common_dir: PathBuf,
    linked: PathBuf,
    recorded: Recorded,
}

impl Known {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (main, linked) = scratch.with_linked();
        let common_dir = main.join(".git");
        let recorded = recorded(only(&look(&common_dir)), 1);
        Self { scratch, common_dir, linked, recorded }
    }

    fn absence(&self) -> Option<Absence> {
        self.absence_of(&self.recorded)
    }

    fn absence_of(&self, recorded: &Recorded) -> Option<Absence> {
        let seen = look_with(&self.common_dir, std::slice::from_ref(recorded)).observation;
        seen.absences.get(&recorded.id).cloned()
    }

    fn remove(&self) {
        git(&self.common_dir, ["worktree".as_ref(), "remove".as_ref(), self.linked.as_os_str()]);
    }
}

#[test]
fn a_worktree_that_git_removed_is_gone_and_git_says_so() {
    let it = Known::new();
    it.remove();
    let expected = Absence {
        git_dir: it.recorded.git_dir.clone(),
        directory: DirectoryLook::Gone { device_above: Some(it.recorded.device) },
        git: GitAnswer::NotListed,
    };
    assert_eq!(it.absence(), Some(expected));
}

#[test]
fn a_worktree_that_is_there_or_listed_is_not_absent() {
    let it = Known::new();
    assert_eq!(it.absence(), None);
    fs::remove_dir_all(&it.linked).unwrap();
    assert_eq!(it.absence(), None);
}

#[test]
fn a_directory_that_still_points_at_a_pruned_entry_is_said_to() {
    let it = Known::new();
    fs::remove_dir_all(&it.recorded.git_dir).unwrap();
    let absence = it.absence().unwrap();
    assert_eq!((absence.directory, absence.git), (DirectoryLook::StillPointsBack, GitAnswer::NotAsked));

    // So it does when git uses the name again for a worktree elsewhere.
    add(&it.common_dir, &it.scratch.path("elsewhere/linked"));
    let absence = it.absence().unwrap();
    assert_eq!((absence.directory, absence.git), (DirectoryLook::StillPointsBack, GitAnswer::NotAsked));
}

#[test]
fn a_directory_that_points_at_nothing_may_still_be_the_worktree() {
    let it = Known::new();
    fs::remove_dir_all(&it.recorded.git_dir).unwrap();
    // As after the repository was moved, the worktree repaired from there, and the entry deleted.
    fs::write(it.linked.join(".git"), "gitdir: /nowhere/.git/worktrees/linked\n").unwrap();
    let absence = it.absence().unwrap();
    assert_eq!((absence.directory, absence.git), (DirectoryLook::StillPointsBack, GitAnswer::NotAsked));
}

#[test]
fn a_successor_at_the_same_path_does_not_keep_a_removed_worktree_listed() {
    let it = Known::new();
    it.remove();
    add(&it.common_dir, &it.linked);
    let absence = it.absence().unwrap();
    assert_eq!(absence.directory, DirectoryLook::PointsElsewhere { device: it.recorded.device });
    assert_eq!(absence.git, GitAnswer::NotListed);
}

#[test]
fn a_directory_that_was_made_another_repository_points_elsewhere() {
    let it = Known::new();
    it.remove();
    it.scratch.repository("linked");
    let absence = it.absence().unwrap();
    assert_eq!(absence.directory, DirectoryLook::PointsElsewhere { device: it.recorded.device });
    assert_eq!(absence.git, GitAnswer::NotListed);
}

#[test]
fn git_is_not_asked_about_a_worktree_whose_disk_may_be_away() {
    let it = Known::new();
    it.remove();
    let elsewhere = Recorded { device: it.recorded.device + 1, ..it.recorded.clone() };
    let absence = it.absence_of(&elsewhere).unwrap();
    assert_eq!(absence.git, GitAnswer::NotAsked);
    assert_eq!(absence.directory, DirectoryLook::Gone { device_above: Some(it.recorded.device) });
}

#[test]
fn a_worktree_pruned_while_its_disk_is_away_is_not_taken_for_removed() {
    let it = Known::new();
    let name = "a_worktree_pruned_while_its_disk_is_away_is_not_taken_for_removed";
    let Some(mut disk) = Disk::mount(&it.scratch.path("disk"), name) else { return };
    let path = disk.path.join("on-disk");
    add(&it.common_dir, &path);
    let seen = look(&it.common_dir);
    let known = recorded(linked_of(&seen).iter().find(|found| found.path == path).unwrap(), 2);
    disk.unmount();
    git(&it.common_dir, ["worktree", "prune"]);
    let absence = it.absence_of(&known).unwrap();
    assert_eq!(absence.git, GitAnswer::NotAsked);
    assert!(
        matches!(absence.directory, DirectoryLook::Gone { device_above: Some(above) } if above != known.device)
    );
}

#[test]
fn git_failing_is_no_answer() {
    let it = Known::new();
    add(&it.common_dir, &it.scratch.path("other"));
    it.remove();
    fs::write(it.common_dir.join("worktrees/other/commondir"), "").unwrap();
    assert!(matches!(it.absence().unwrap().git, GitAnswer::Failed(_)));
}

#[test]
fn an_entry_that_is_old_and_names_no_path_is_gone_once_git_agrees() {
    let it = Known::new();
    let gitdir = it.recorded.git_dir.join("gitdir");
    fs::write(&gitdir, "").unwrap();
    fs::remove_dir_all(&it.linked).unwrap();
    age(&gitdir);
    age(&it.recorded.git_dir);
    assert_eq!(it.absence(), None, "git may be writing it");
    fs::remove_file(&gitdir).unwrap();
    assert_eq!(it.absence(), None, "git may be removing it");
    age(&it.recorded.git_dir);
    assert_eq!(it.absence().unwrap().git, GitAnswer::NotListed);

    // Unless it is locked: its disk may be away for long.
    fs::write(it.recorded.git_dir.join("locked"), "").unwrap();
    age(&it.recorded.git_dir);
    assert_eq!(it.absence(), None);
}

#[test]
fn nothing_is_absent_from_a_repository_that_is_gone_or_listed_in_part() {
    let it = Known::new();
    it.remove();
    fs::write(it.common_dir.join("worktrees"), "a file").unwrap();
    let seen = look_with(&it.common_dir, std::slice::from_ref(&it.recorded)).observation;
    assert!(matches!(seen.repository, ObservedRepository::Present { unlisted: Some(_), .. }));
    assert_eq!(seen.absences[&it.recorded.id].git, GitAnswer::NotAsked);
    fs::remove_dir_all(&it.common_dir).unwrap();
    assert_eq!(it.absence(), None);
}

#[test]
fn a_main_worktree_is_absent_from_a_repository_that_became_bare() {
    let it = Known::new();
    let seen = look(&it.common_dir);
    let main = recorded(main_of(&seen).unwrap(), 2);
    git(&it.common_dir, ["config", "core.bare", "true"]);
    let absence = it.absence_of(&main).unwrap();
    assert_eq!((absence.directory, absence.git), (DirectoryLook::StillPointsBack, GitAnswer::NotAsked));
}

#[test]
fn a_directory_that_may_not_be_looked_at_is_unknown() {
    if !as_nobody("absences::a_directory_that_may_not_be_looked_at_is_unknown") {
        return;
    }
    let it = Known::new();
    let closed = it.scratch.path("closed");
    add(&it.common_dir, &closed.join("in"));
    let seen = look(&it.common_dir);
    let known = recorded(linked_of(&seen).iter().find(|found| found.path.starts_with(&closed)).unwrap(), 2);
    fs::remove_dir_all(&known.git_dir).unwrap();
    run("chmod", ["000".as_ref(), closed.as_os_str()]);
    let absence = it.absence_of(&known).unwrap();
    run("chmod", ["700".as_ref(), closed.as_os_str()]);
    assert!(matches!(absence.directory, DirectoryLook::Unknown(_)), "{absence:?}");
    assert_eq!(absence.git, GitAnswer::NotAsked);
}
