//! Writing allocation files into git dirs.

use std::fs::OpenOptions;
use std::io::Write;
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
/// By rename, so that no reader meets half of it, and without a sync: the registry is the truth, a file that a crash
/// has emptied is written again at the next look, and until then device, inode and birth time stand in for it. For
/// the same reason a git dir that can't be written is no error.
pub fn write(allocation: &Allocation, claim: &Claim) -> bool {
    let Ok(bytes) = wire::allocation_file(allocation).to_bytes() else { return false };
    if matches!(claim, Claim::Allocation { digest, .. } if *digest == <[u8; 32]>::from(Sha256::digest(&bytes)))
    {
        return true;
    }
    // `git worktree remove` deletes the worktree first, then the git dir; what is new there meanwhile makes it fail.
    if allocation.path.join(".git").symlink_metadata().is_err() {
        return false;
    }
    let written = replace(&allocation.git_dir, FILE_NAME, &bytes);
    if let Err(error) = &written {
        debug!(git_dir = %allocation.git_dir.display(), error = error as &dyn std::error::Error, "allocation file not written");
    }
    written.is_ok()
}

/// Deletes the allocation file, if it is there.
pub fn remove(git_dir: &Path) {
    if let Err(error) = std::fs::remove_file(git_dir.join(FILE_NAME))
        && error.kind() != std::io::ErrorKind::NotFound
    {
        debug!(git_dir = %git_dir.display(), error = &error as &dyn std::error::Error, "allocation file not deleted");
    }
}

/// Puts a file of ours into a git dir, by rename.
pub(super) fn replace(git_dir: &Path, name: &str, bytes: &[u8]) -> std::io::Result<()> {
    // git ignores it, and removes it with the rest of the git dir. Always of the same name, so that one that a killed
    // daemon has left is taken away by the next.
    let draft = git_dir.join(format!("{name}.new"));
    let written = write_new(&draft, bytes).and_then(|()| std::fs::rename(&draft, git_dir.join(name)));
    if written.is_err() {
        match std::fs::remove_file(&draft) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    written
}

fn write_new(draft: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let open = || OpenOptions::new().write(true).create_new(true).mode(0o644).open(draft);
    let mut file = match open() {
        // Left by a daemon that was killed here.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            std::fs::remove_file(draft)?;
            open()?
        }
        other => other?,
    };
    file.write_all(bytes)
}
