//! Marks of a worktree's root, from one or two `lstat`s: whether it is still the worktree that was seen, and configured as
//! it was then.

use std::fs::{self, Metadata};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::files;
use super::fingerprint::{PROJECT_FILE, RACY_NS};
use crate::domain::observation::RootMarks;

/// The marks of `root`; none when it has no `.git`, or when that can't be looked at. `elsewhere` is where the configuration
/// is of a worktree that has none of its own.
pub fn marks(root: &Path, elsewhere: &Path) -> Option<RootMarks> {
    let dot_git = fs::symlink_metadata(root.join(".git")).ok()?;
    Some(marks_with(&dot_git, root, elsewhere))
}

/// As [`marks`], where an `lstat` of `.git` has been seen already.
pub(super) fn marks_with(dot_git: &Metadata, root: &Path, elsewhere: &Path) -> RootMarks {
    let modified_ns = (!dot_git.is_dir()).then(|| files::modified_ns(dot_git));
    RootMarks {
        dot_git: files::identity_of(dot_git),
        modified_ns,
        project_file: project_file(root, elsewhere),
    }
}

/// Stands for the configuration's marks. None for one that is too young to be told from a later one, for a symbolic link,
/// and for what can't be looked at.
fn project_file(root: &Path, elsewhere: &Path) -> Option<u64> {
    let there = |directory: &Path| match fs::symlink_metadata(directory.join(PROJECT_FILE)) {
        Err(error) if files::is_absence(&error) => Ok(None),
        other => other.map(Some),
    };
    let own = there(root).ok()?;
    let found = match own {
        None if elsewhere != root => there(elsewhere).ok()?,
        own => own,
    };
    let Some(file) = found else { return Some(0) };
    let changed_ns = file.ctime().saturating_mul(1_000_000_000).saturating_add(file.ctime_nsec());
    let is_racy = files::now_ns().saturating_sub(RACY_NS) < changed_ns;
    if is_racy || file.is_symlink() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    (file.dev(), file.ino(), file.size(), files::modified_ns(&file), changed_ns).hash(&mut hasher);
    Some(hasher.finish())
}
