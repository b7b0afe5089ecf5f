//! Which events say anything about worktrees. Ordinary work in a repository makes hundreds of events in the
//! directories that are watched; all of them but a few end here.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use notify::EventKind;
use notify::event::{AccessKind, AccessMode, ModifyKind, RenameMode};
use wtd_protocol::contract::PROJECT_FILE;

/// Why a directory is watched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A common dir: `worktrees` comes and goes in it.
    CommonDir,
    /// `<common dir>/worktrees`: entries come and go.
    Worktrees,
    /// A linked worktree's git dir: moved, locked, unlocked, finished.
    GitDir,
    /// A worktree's root: its `.git`, its `wtd.toml`, and the directory itself.
    Root,
    /// The nearest directory above something that is not there: the name in it on the way there.
    Awaiting(PathBuf),
    /// A directory below one of the configured `roots`, in which clones appear.
    Roots,
}

impl Role {
    /// Whether an event on `child` (none: on the watched directory itself) can mean that something changed.
    pub fn concerns(&self, child: Option<&OsStr>, kind: EventKind) -> bool {
        let Some(change) = Change::of(kind) else { return false };
        let Some(child) = child else { return change != Change::Content };
        let is = |names: &[&str]| names.iter().any(|name| child == OsStr::new(name));
        match self {
            // The configuration can make a repository bare. The allocation file is our own: what counts is its loss.
            Self::CommonDir => {
                is(&["worktrees", "config", PROJECT_FILE, wtd_protocol::compose::FILE_NAME])
                    || (is(&["wtd.json"]) && change == Change::Removed)
            }
            Self::Worktrees | Self::Roots => change != Change::Content,
            Self::GitDir => {
                is(&["gitdir", "commondir", "locked", "wtd.compose.yaml"])
                    || (is(&["wtd.json"]) && change == Change::Removed)
            }
            Self::Root => is(&[".git", PROJECT_FILE]),
            Self::Awaiting(name) => child == name.as_os_str() && change != Change::Content,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Entry,
    Removed,
    Content,
}

impl Change {
    fn of(kind: EventKind) -> Option<Self> {
        match kind {
            // What is of no known kind can have been the end of the directory, and of its watch.
            EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(RenameMode::From))
            | EventKind::Any
            | EventKind::Other => Some(Self::Removed),
            EventKind::Create(_) | EventKind::Modify(ModifyKind::Name(_) | ModifyKind::Metadata(_)) => {
                Some(Self::Entry)
            }
            EventKind::Modify(_) | EventKind::Access(AccessKind::Close(AccessMode::Write)) => {
                Some(Self::Content)
            }
            // Reading a file, as we do ourselves, is no change.
            EventKind::Access(_) => None,
        }
    }
}

/// Whether an event tells of a change at all.
pub fn is_change(kind: EventKind) -> bool {
    Change::of(kind).is_some()
}

/// Whether an event can mean that the directory which a watch is on has been replaced by another of the same name.
/// Such a watch is set anew: inodes are used again, and a late event for the old directory can have ended the watch on
/// the new one (measured; rule 4 of the watch rules).
pub fn can_replace(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Create(_)
            | EventKind::Remove(_)
            | EventKind::Modify(ModifyKind::Name(_))
            | EventKind::Any
            | EventKind::Other
    )
}

/// The nearest directory above `path` that exists, and the next name on the way to `path`.
pub fn nearest_above(path: &Path) -> Option<(PathBuf, PathBuf)> {
    let mut below = path;
    while let Some(above) = below.parent() {
        if above.is_dir() {
            return Some((above.to_owned(), below.file_name()?.into()));
        }
        below = above;
    }
    None
}

#[cfg(test)]
mod tests {
    use notify::event::{CreateKind, DataChange, RemoveKind};

    use super::*;

    const CREATE: EventKind = EventKind::Create(CreateKind::Any);
    const REMOVE: EventKind = EventKind::Remove(RemoveKind::Any);
    const WRITTEN: EventKind = EventKind::Access(AccessKind::Close(AccessMode::Write));
    const RENAMED: EventKind = EventKind::Modify(ModifyKind::Name(RenameMode::To));
    const DATA: EventKind = EventKind::Modify(ModifyKind::Data(DataChange::Any));
    const OPENED: EventKind = EventKind::Access(AccessKind::Open(AccessMode::Any));

    fn concerns(role: &Role, child: &str, kind: EventKind) -> bool {
        role.concerns((!child.is_empty()).then(|| OsStr::new(child)), kind)
    }

    #[test]
    fn what_git_worktree_does_is_of_interest() {
        assert!(concerns(&Role::CommonDir, "worktrees", CREATE));
        assert!(concerns(&Role::CommonDir, "worktrees", REMOVE));
        assert!(concerns(&Role::Worktrees, "feature", CREATE));
        assert!(concerns(&Role::Worktrees, "feature", REMOVE));
        assert!(concerns(&Role::GitDir, "gitdir", WRITTEN));
        assert!(concerns(&Role::GitDir, "locked", REMOVE));
        assert!(concerns(&Role::GitDir, "wtd.compose.yaml", REMOVE));
        assert!(concerns(&Role::Root, ".git", DATA));
        assert!(concerns(&Role::Root, "", REMOVE));
        assert!(concerns(&Role::Root, "", RENAMED));
        assert!(concerns(&Role::Awaiting("x".into()), "x", CREATE));
    }

    #[test]
    fn ordinary_work_is_not() {
        for (role, child) in [
            (Role::CommonDir, "index"),
            (Role::CommonDir, "packed-refs.lock"),
            (Role::CommonDir, "FETCH_HEAD"),
            (Role::GitDir, "index.lock"),
            (Role::GitDir, "HEAD"),
            (Role::GitDir, "ORIG_HEAD"),
            (Role::Root, "src"),
            (Role::Awaiting("x".into()), "y"),
        ] {
            for kind in [CREATE, REMOVE, WRITTEN, RENAMED, DATA] {
                assert!(!concerns(&role, child, kind), "{role:?} {child} {kind:?}");
            }
        }
        for role in [Role::CommonDir, Role::Worktrees, Role::GitDir, Role::Root] {
            assert!(!concerns(&role, "gitdir", OPENED), "our own reading must not wake us");
            assert!(!concerns(&role, "", OPENED));
        }
    }

    #[test]
    fn an_event_of_an_unknown_kind_can_mean_anything() {
        for kind in [EventKind::Any, EventKind::Other] {
            assert!(concerns(&Role::CommonDir, "", kind));
            assert!(concerns(&Role::GitDir, "wtd.json", kind));
            assert!(is_change(kind) && can_replace(kind));
        }
    }

    #[test]
    fn our_own_allocation_file_is_not() {
        assert!(!concerns(&Role::GitDir, "wtd.json", RENAMED));
        assert!(!concerns(&Role::GitDir, "wtd.json", CREATE));
        assert!(concerns(&Role::GitDir, "wtd.json", REMOVE));
        let moved_away = EventKind::Modify(ModifyKind::Name(RenameMode::From));
        assert!([Role::GitDir, Role::CommonDir].iter().all(|role| concerns(role, "wtd.json", moved_away)));
    }
}
