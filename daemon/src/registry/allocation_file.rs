//! Writing allocation files into git dirs.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};
use tracing::debug;
use wtd_protocol::allocation_file::FILE_NAME;

use crate::domain::allocation::Allocation;
use crate::domain::observation::Claim;
use crate::wire;

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
    // `git worktree remove` deletes the worktree first, then the git dir; what is new there meanwhile makes it fail.
    let is_standing = || allocation.path.join(".git").symlink_metadata().is_ok();
    if !is_standing() {
        return false;
    }
    let written = place(&allocation.git_dir, FILE_NAME, &bytes, is_standing);
    if let Err(error) = &written {
        debug!(git_dir = %allocation.git_dir.display(), error = error as &dyn std::error::Error, "allocation file not written");
    }
    written.is_ok()
}

/// Deletes the allocation file, if it is there.
pub fn remove(git_dir: &Path) {
    if let Err(error) = std::fs::remove_file(git_dir.join(FILE_NAME))
        && error.kind() != io::ErrorKind::NotFound
    {
        debug!(git_dir = %git_dir.display(), error = &error as &dyn std::error::Error, "allocation file not deleted");
    }
}

/// Puts a file of ours into a git dir, whole, in the place of one that may be there.
pub(super) fn replace(git_dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    place(git_dir, name, bytes, || true)
}

/// As [`replace`], if it `may_be_placed` at the very moment when it gets its name: until then nothing is in the directory
/// that git could find in its way.
fn place(git_dir: &Path, name: &str, bytes: &[u8], may_be_placed: impl Fn() -> bool) -> io::Result<()> {
    let path = git_dir.join(name);
    match write_nameless(git_dir, bytes) {
        Ok(_) if !may_be_placed() => Err(io::ErrorKind::NotFound.into()),
        Ok(file) => match name_it(&file, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => rename_over(&path, bytes),
            named => named,
        },
        // Not every file system has files without a name.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(error),
        Err(_) => rename_over(&path, bytes),
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

fn rename_over(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // git ignores it, and removes it with the rest of the git dir. Always of the same name, so that one that a killed
    // daemon has left is taken away by the next.
    let mut draft = path.as_os_str().to_owned();
    draft.push(".new");
    let draft = Path::new(&draft);
    let written = write_new(draft, bytes).and_then(|()| std::fs::rename(draft, path));
    if written.is_err() {
        match std::fs::remove_file(draft) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    written
}

fn write_new(draft: &Path, bytes: &[u8]) -> io::Result<()> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(0o644).open(draft);
    let mut file = match open() {
        // Left by a daemon that was killed here.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(draft)?;
            open()?
        }
        other => other?,
    };
    file.write_all(bytes)
}
