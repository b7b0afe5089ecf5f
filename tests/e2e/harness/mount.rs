//! File systems that come and go.

use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Ran, require, until};

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

    /// A file system of its own that outlasts being mounted: in a file, which is made here. None where the system has
    /// no loop device to spare.
    pub(crate) fn image(image: &Path, directory: &Path) -> Option<Self> {
        let made = File::create(image).and_then(|file| file.set_len(16 << 20)).is_ok()
            && require::works(Command::new("mkfs.ext4").arg("-q").arg(image));
        let mounted = made.then(|| Self::from_image(image, directory)).flatten();
        require::wish(mounted.is_some(), "no file system can be mounted from a file");
        mounted
    }

    /// The file system that [`Mount::image`] made.
    pub(crate) fn from_image(image: &Path, directory: &Path) -> Option<Self> {
        let mut mount = Command::new("mount");
        require::works(mount.args(["-o", "loop"]).args([image, directory]))
            .then(|| Self(directory.to_owned()))
    }

    /// Unmounts it, and nothing of it is left in the kernel.
    #[track_caller]
    pub(crate) fn unmount(self) {
        let unmount = || require::works(Command::new("umount").arg(&self.0));
        until(&format!("nobody uses {}", self.0.display()), unmount, |done| *done);
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

/// A disk that hangs: whoever looks at what is there waits until this goes, and then hears of an error.
pub(crate) struct Frozen {
    /// The end of a FUSE connection at which nobody answers; the kernel gives up when it is closed (fuse(4)).
    _server: File,
    _mount: Mount,
}

impl Frozen {
    /// From now on whatever is at `directory` hangs. None where the system can't mount such a thing.
    pub(crate) fn at(directory: &Path) -> Option<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse");
        let mounted = device.ok().filter(|device| {
            let mut mount = Command::new("mount");
            mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0", "frozen"]);
            mount.arg(directory).stdin(device.try_clone().unwrap());
            mount.output().is_ok_and(|output| output.status.success())
        });
        let frozen = mounted.map(|server| Self { _server: server, _mount: Mount(directory.to_owned()) });
        require::wish(frozen.is_some(), "no file system can be mounted by FUSE");
        frozen
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        require::works(Command::new("umount").arg("--lazy").arg(&self.0));
    }
}
