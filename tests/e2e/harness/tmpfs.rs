//! A small file system.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ran, require};

/// A small file system that is unmounted again.
pub(crate) struct Tmpfs(PathBuf);

impl Tmpfs {
    pub(crate) fn mount(directory: &Path, size: &str) -> Self {
        let option = format!("size={size}");
        assert!(require::works(
            Command::new("mount").args(["-t", "tmpfs", "-o", &option, "tmpfs"]).arg(directory)
        ));
        Self(directory.to_owned())
    }

    /// Takes all the room that is left.
    pub(crate) fn fill(&self) -> PathBuf {
        let filler = self.0.join("filler");
        let ran = Ran::of(
            Command::new("dd").args(["if=/dev/zero", "bs=1024"]).arg(format!("of={}", filler.display())),
        );
        assert!(ran.stderr.contains("No space left"), "{ran:#?}");
        filler
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        require::works(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
