//! Real inotify.

use std::sync::mpsc::{self, Sender};
use std::time::Duration;

use super::*;

struct Told(Sender<PathBuf>);

impl Listener for Told {
    fn dirty(&self, key: &Path) {
        drop(self.0.send(key.to_owned()));
    }
    fn overflowed(&self) {}
}

fn roles(wanted: &[(&Path, Role)]) -> BTreeSet<(PathBuf, Role)> {
    wanted.iter().map(|(path, role)| ((*path).to_owned(), role.clone())).collect()
}

#[test]
fn an_event_marks_the_repository_that_wants_it_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let (a, b) = (dir.path().join("a"), dir.path().join("b"));
    for common_dir in [&a, &b] {
        std::fs::create_dir(common_dir).unwrap();
    }
    let (sender, told) = mpsc::channel();
    let watches = Watches::new(Arc::new(Told(sender)));
    watches.set(&a, roles(&[(&a, Role::CommonDir)]));
    watches.set(&b, roles(&[(&b, Role::CommonDir)]));
    std::fs::write(b.join("index"), "").unwrap();
    std::fs::create_dir(b.join("worktrees")).unwrap();
    assert_eq!(told.recv_timeout(Duration::from_secs(10)).unwrap(), b);
}

#[test]
fn a_directory_that_was_made_again_is_watched_again() {
    let dir = tempfile::tempdir().unwrap();
    let worktrees = dir.path().join("worktrees");
    let wanted = roles(&[(dir.path(), Role::CommonDir), (&worktrees, Role::Worktrees)]);
    let (sender, told) = mpsc::channel();
    let watches = Watches::new(Arc::new(Told(sender)));
    std::fs::create_dir(&worktrees).unwrap();
    watches.set(dir.path(), wanted.clone());
    for round in 0..50 {
        std::fs::remove_dir_all(&worktrees).unwrap();
        std::fs::create_dir(&worktrees).unwrap();
        told.recv_timeout(Duration::from_secs(10)).unwrap();
        // As the reconcile step does: set the watches again until nothing is added, with every event taken in.
        while watches.set(dir.path(), wanted.clone()).added
            || told.recv_timeout(Duration::from_millis(20)).is_ok()
        {}
        std::fs::create_dir(worktrees.join("entry")).unwrap();
        assert!(told.recv_timeout(Duration::from_secs(10)).is_ok(), "round {round}");
        while told.recv_timeout(Duration::from_millis(20)).is_ok() {}
    }
}

#[test]
fn a_directory_that_went_before_it_could_be_watched_has_to_be_looked_for_again() {
    let dir = tempfile::tempdir().unwrap();
    let gone = dir.path().join("gone");
    let (sender, _told) = mpsc::channel();
    let watches = Watches::new(Arc::new(Told(sender)));
    let set = watches.set(&gone, roles(&[(&gone, Role::Awaiting(".git".into()))]));
    assert_eq!(set, Set { added: true, complete: true });
}
