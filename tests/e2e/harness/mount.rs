//! File systems that come and go.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ran, require};

/// What is mounted for as long as this lives.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A small file system of its own.
    #[track_caller]
    pub(crate) fn tmpfs(directory: &Path, size: &str) -> Self {
        let option = format!("size={size}");
        let mut mount = Command::new("mount");
        assert!(require::works(mount.args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(directory)));
        Self(directory.to_owned())
    }

    /// A directory, seen at another place too.
    #[track_caller]
    pub(crate) fn bind(from: &Path, to: &Path) -> Self {
        assert!(require::works(Command::new("mount").arg("--bind").args([from, to])));
        Self(to.to_owned())
    }

    /// Nothing can be written there from now on, whoever one is.
    #[track_caller]
    pub(crate) fn make_read_only(&self, is_so: bool) {
        let option = if is_so { "remount,bind,ro" } else { "remount,bind,rw" };
        assert!(require::works(Command::new("mount").args(["-o", option]).arg(&self.0)));
    }

    /// Takes all the room that is left; gives the file that has it.
    #[track_caller]
    pub(crate) fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let of = format!("of={}", filler.display());
        let ran = Ran::of(
            Command::new("dd").args(["if=/dev/zero", "bs=1024", "conv=notrunc", "oflag=append"]).arg(of),
        );
        assert!(ran.stderr.contains("No space left"), "{ran:#?}");
        filler
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        require::works(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
