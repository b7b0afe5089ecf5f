//! Writing allocation files into git dirs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tracing::debug;
use wtd_protocol::allocation_file::FILE_NAME;

use crate::domain::allocation::Allocation;
use crate::domain::observation::Claim;
use crate::wire;

/// Bytes of the longest way to a git dir that leaves room for the names of our files: Linux takes 4096 (`PATH_MAX`).
const LONGEST_WAY: usize = 4000;

/// Makes the allocation file in the worktree's git dir say what the registry says, unless it does already. Gives
/// whether it says so.
///
/// Whole, so that no reader meets half of it, and without a sync: the registry is the truth, a file that a crash
/// has emptied is written again at the next look, and until then device, inode and birth time stand in for it. For
/// the same reason a git dir that can't be written is no error.
pub fn write(allocation: &Allocation, claim: &Claim) -> bool {
    let Ok(bytes) = wire::allocation_file(allocation).to_bytes() else { return false };
    if matches!(claim, Claim::Allocation { digest, .. } if *digest == <[u8; 32]>::from(Sha256::digest(&bytes)))
    {
        return true;
    }
    let dot_git = allocation.path.join(".git");
    let is_standing = || dot_git.symlink_metadata().is_ok();
    if !is_standing() {
        return false;
    }
    let git_dir = &allocation.git_dir;
    let written = place(git_dir, &by_way_of(&allocation.path, git_dir), FILE_NAME, &bytes);
    // The kernel may have found its way just before the worktree went.
    if written.is_ok() && !is_standing() {
        remove(git_dir);
        return false;
    }
    if let Err(error) = &written {
        debug!(git_dir = %git_dir.display(), error = error as &dyn std::error::Error, "allocation file not written");
    }
    written.is_ok()
}

/// Deletes the allocation file, if it is there.
pub fn remove(git_dir: &Path) {
    if let Err(error) = delete(&git_dir.join(FILE_NAME)) {
        debug!(git_dir = %git_dir.display(), error = &error as &dyn std::error::Error, "allocation file not deleted");
    }
}

/// Puts a file of ours into a git dir, whole, in the place of one that may be there.
pub(super) fn replace(git_dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    place(git_dir, git_dir, name, bytes)
}

/// A name of the git dir that leads through its worktree, whose path is canonical: the root's parent is the root
/// (`path_resolution(7)`).
///
/// `git worktree remove` deletes the worktree first, then the git dir, and fails when something new has come to be in
/// there meanwhile. By this name nothing can: the kernel finds no way through a worktree that is gone. A look whether it
/// is there would be a call of its own, and git might run between the two. Where the name would be too long, the git
/// dir's own has to do.
fn by_way_of(worktree: &Path, git_dir: &Path) -> PathBuf {
    let up = worktree.components().map(|_| "..").collect::<PathBuf>();
    let way = worktree.join(up).join(git_dir.strip_prefix("/").unwrap_or(git_dir));
    if way.as_os_str().len() < LONGEST_WAY { way } else { git_dir.to_owned() }
}

/// As [`replace`]; `way` is the git dir's name for whatever makes a name in it.
fn place(git_dir: &Path, way: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    // Always of the same name, so that one that a killed daemon has left is taken away by the next.
    let draft = format!("{name}.new");
    let nameless = match write_nameless(way, bytes) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(error),
        nameless => nameless,
    };
    // Waits, as nothing else here does, for whoever is changing the directory: a name that waited for that itself would
    // have found its way before, and be made after.
    delete(&way.join(&draft))?;
    let replace_by = |write: &dyn Fn(&Path) -> io::Result<()>| {
        let at = way.join(&draft);
        write(&at).and_then(|()| std::fs::rename(&at, way.join(name)))
    };
    let placed = match nameless {
        Ok(file) => match name_it(&file, &way.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                replace_by(&|draft| name_it(&file, draft))
            }
            named => return named,
        },
        // Not every file system has files without a name.
        Err(_) => replace_by(&|draft| write_new(draft, bytes)),
    };
    if placed.is_err() {
        delete(&git_dir.join(draft))?;
    }
    placed
}

/// Deletes a file, if it is there.
fn delete(file: &Path) -> io::Result<()> {
    match std::fs::remove_file(file) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// A file in `directory` that has no name (open(2), `O_TMPFILE`): nobody finds it, and it ends with this process.
#[cfg(target_os = "linux")]
fn write_nameless(directory: &Path, bytes: &[u8]) -> io::Result<File> {
    use rustix::fs::{Mode, OFlags};
    let mode = Mode::from_bits_truncate(0o644);
    let file = rustix::fs::open(directory, OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC, mode)?;
    let mut file = File::from(file);
    file.write_all(bytes)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn write_nameless(_directory: &Path, _bytes: &[u8]) -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Gives a nameless file its name; one that is there is left alone (linkat(2)).
fn name_it(file: &File, path: &Path) -> io::Result<()> {
    use rustix::fs::{AtFlags, CWD};
    let nameless = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(rustix::fs::linkat(CWD, nameless, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?.write_all(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(directory).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    #[test]
    fn nothing_comes_to_be_where_git_has_deleted_the_worktree() {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().canonicalize().unwrap();
        let (worktree, git_dir) = (root.join("some/where"), root.join("git dir"));
        std::fs::create_dir_all(&worktree).unwrap();
        std::fs::create_dir(&git_dir).unwrap();
        let way = by_way_of(&worktree, &git_dir);
        for bytes in ["first", "second"] {
            place(&git_dir, &way, FILE_NAME, bytes.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(git_dir.join(FILE_NAME)).unwrap(), bytes);
        }
        assert_eq!(names(&git_dir), [FILE_NAME]);
        std::fs::remove_file(git_dir.join(FILE_NAME)).unwrap();
        let (nameless, name) = (write_nameless(&way, b"late"), way.join(FILE_NAME));
        std::fs::remove_dir(&worktree).unwrap();
        assert!(name_it(&nameless.unwrap(), &name).is_err());
        assert!(write_new(&name, b"late").is_err());
        assert!(place(&git_dir, &way, FILE_NAME, b"late").is_err());
        assert_eq!(names(&git_dir), [""; 0]);
    }

    #[test]
    fn a_draft_that_a_killed_daemon_has_left_is_in_nobodys_way() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(FILE_NAME);
        std::fs::write(file.with_extension("json.new"), "half").unwrap();
        for bytes in ["first", "second"] {
            replace(directory.path(), FILE_NAME, bytes.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), bytes);
        }
        assert_eq!(names(directory.path()), [FILE_NAME]);
    }
}
