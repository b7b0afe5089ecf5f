//! A digest of what an observation rests on, from `stat` alone.
//!
//! Opening a file makes an inotify event, and a sweep that opened files would wake the watcher that it is
//! there to double-check. `stat` makes none.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wtd_protocol::{allocation_file, compose};

use super::files;

/// How much younger than a look a change must not be, in nanoseconds: file times are as coarse as a tick of
/// the kernel's clock (10 ms at most), so a later change can carry the same time.
pub(super) const RACY_NS: i64 = 50_000_000;

pub(super) use wtd_protocol::contract::PROJECT_FILE;

/// What a look from the outside saw. Two equal ones mean that nothing has changed, unless the first is racy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// SHA-256 of every mark that was looked at.
    pub digest: [u8; 32],
    /// Something had changed so shortly before that a further change may not show, or could not be looked at: equal
    /// fingerprints prove nothing, look into the files.
    pub racy: bool,
    covered: Arc<Covered>,
}

impl Fingerprint {
    /// Of a look that came to nothing, and proves nothing.
    pub(super) fn unproven(common_dir: &Path) -> Self {
        Self { digest: [0; 32], racy: true, covered: Arc::new(Covered::of(common_dir)) }
    }

    /// Looks at the same files again, with `stat` only.
    #[must_use]
    pub fn again(&self) -> Self {
        let covered = Arc::clone(&self.covered);
        let mut marks = Marks::new();
        marks.repository(&covered.common_dir);
        marks.shared(covered.main.as_deref(), &covered.common_dir);
        if let Some(root) = &covered.main {
            marks.root(root);
        }
        let worktrees = covered.common_dir.join("worktrees");
        for (id, root) in &covered.entries {
            let mut part = marks.part();
            part.entry(&worktrees.join(id));
            if let Some(root) = root {
                part.root(root);
            }
            marks.take_in(part.seal());
        }
        for root in &covered.absent {
            marks.root(root);
        }
        for git_dir in &covered.origins {
            marks.origin(git_dir);
        }
        marks.finish(covered)
    }
}

/// What an observation looked at, in that order.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Covered {
    common_dir: PathBuf,
    /// The root of the main worktree, where there is one.
    pub(super) main: Option<PathBuf>,
    /// Every name in `worktrees/`, with the root that it leads to, if any.
    pub(super) entries: Vec<(OsString, Option<PathBuf>)>,
    /// Recorded roots that no entry answers for.
    pub(super) absent: Vec<PathBuf>,
    /// Git dirs that an allocation file leads back to, and that are not the one with the file.
    pub(super) origins: Vec<PathBuf>,
}

impl Covered {
    /// Nothing but the repository itself.
    pub(super) fn of(common_dir: &Path) -> Self {
        Self {
            common_dir: common_dir.to_owned(),
            main: None,
            entries: Vec::new(),
            absent: Vec::new(),
            origins: Vec::new(),
        }
    }
}

/// What was seen of an entry of `worktrees/`.
#[derive(Debug)]
pub(super) struct EntryMarks {
    /// The entry itself, links not followed.
    pub(super) directory: io::Result<Metadata>,
    /// Its `gitdir`, links not followed.
    pub(super) gitdir: io::Result<Metadata>,
    /// Its `locked`, links not followed.
    pub(super) locked: io::Result<Metadata>,
}

/// The marks of one worktree, or of what several have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) digest: [u8; 32],
    /// As in [`Fingerprint::racy`].
    pub(super) racy: bool,
}

/// Collects marks in the order of the looks.
#[derive(Debug)]
pub(super) struct Marks {
    digest: Sha256,
    racy_from_ns: i64,
    racy: bool,
}

impl Marks {
    /// Begins a look now.
    pub(super) fn new() -> Self {
        Self { digest: Sha256::new(), racy_from_ns: files::now_ns().saturating_sub(RACY_NS), racy: false }
    }

    /// The common dir and what in it bears on every worktree. A commit changes the time of the common dir,
    /// so that does not count.
    pub(super) fn repository(&mut self, common_dir: &Path) {
        self.identity(common_dir);
        let own = [allocation_file::FILE_NAME, compose::FILE_NAME, PROJECT_FILE];
        for name in ["config", "config.worktree", "worktrees"].into_iter().chain(own) {
            self.mark(&common_dir.join(name)).ok();
        }
    }

    /// An entry of `worktrees/`.
    pub(super) fn entry(&mut self, git_dir: &Path) -> EntryMarks {
        for name in [allocation_file::FILE_NAME, compose::FILE_NAME] {
            self.mark(&git_dir.join(name)).ok();
        }
        EntryMarks {
            directory: self.mark(git_dir),
            gitdir: self.mark(&git_dir.join("gitdir")),
            locked: self.mark(&git_dir.join("locked")),
        }
    }

    /// A worktree's root directory. Where nothing is there, the device above it tells whether its disk is.
    pub(super) fn root(&mut self, root: &Path) {
        let dot_git = root.join(".git");
        let found = fs::symlink_metadata(&dot_git);
        self.path(&dot_git);
        match &found {
            // A commit changes the time of a `.git` directory.
            Ok(metadata) if metadata.is_dir() => self.incarnation(metadata),
            found => self.found(&dot_git, found),
        }
        if found.is_err() {
            self.number(files::device_above(root).unwrap_or(u64::MAX));
        }
        self.mark(&root.join(PROJECT_FILE)).ok();
    }

    /// A git dir in another repository.
    pub(super) fn origin(&mut self, git_dir: &Path) {
        self.identity(git_dir);
        self.number(files::device_above(git_dir).unwrap_or(u64::MAX));
    }

    /// Marks of a part of the look, to be told apart from the rest.
    pub(super) fn part(&self) -> Self {
        Self { digest: Sha256::new(), racy_from_ns: self.racy_from_ns, racy: false }
    }

    /// Ends a part.
    pub(super) fn seal(self) -> Part {
        Part { digest: self.digest.finalize().into(), racy: self.racy }
    }

    /// Takes a part in.
    pub(super) fn take_in(&mut self, part: Part) {
        self.digest.update(part.digest);
        self.racy |= part.racy;
    }

    /// What in the main worktree and the common dir bears on every worktree.
    pub(super) fn shared(&mut self, main_root: Option<&Path>, common_dir: &Path) -> Part {
        let mut part = self.part();
        for directory in main_root.into_iter().chain([common_dir]) {
            part.path(directory);
            part.mark(&directory.join(PROJECT_FILE)).ok();
        }
        let part = part.seal();
        self.take_in(part);
        part
    }

    /// Notes whether the look left open what no mark tells of.
    pub(super) fn distrust(&mut self, is_open: bool) {
        self.racy |= is_open;
    }

    /// Ends the look.
    pub(super) fn finish(self, covered: impl Into<Arc<Covered>>) -> Fingerprint {
        Fingerprint { digest: self.digest.finalize().into(), racy: self.racy, covered: covered.into() }
    }

    fn identity(&mut self, path: &Path) {
        self.path(path);
        match fs::symlink_metadata(path) {
            Ok(metadata) => self.incarnation(&metadata),
            Err(error) => self.error(&error),
        }
    }

    fn mark(&mut self, path: &Path) -> io::Result<Metadata> {
        self.path(path);
        let found = fs::symlink_metadata(path);
        self.found(path, &found);
        found
    }

    fn found(&mut self, path: &Path, found: &io::Result<Metadata>) {
        match found {
            Ok(metadata) => {
                self.metadata(metadata);
                if metadata.is_symlink() {
                    match fs::metadata(path) {
                        Ok(target) => self.metadata(&target),
                        Err(error) => self.error(&error),
                    }
                }
            }
            Err(error) => self.error(error),
        }
    }

    fn metadata(&mut self, metadata: &Metadata) {
        self.incarnation(metadata);
        self.number(metadata.len());
        for time in [files::modified_ns(metadata), files::changed_ns(metadata)] {
            self.digest.update(time.to_le_bytes());
            self.racy |= time >= self.racy_from_ns;
        }
    }

    fn incarnation(&mut self, metadata: &Metadata) {
        let identity = files::identity_of(metadata);
        self.number(u64::from(metadata.mode()));
        self.number(identity.device);
        self.number(identity.inode);
        self.digest.update(identity.born_ns.unwrap_or(i64::MIN).to_le_bytes());
    }

    fn error(&mut self, error: &io::Error) {
        self.digest.update(error.raw_os_error().unwrap_or(-1).to_le_bytes());
    }

    fn path(&mut self, path: &Path) {
        self.number(path.as_os_str().len() as u64);
        self.digest.update(path.as_os_str().as_bytes());
    }

    fn number(&mut self, number: u64) {
        self.digest.update(number.to_le_bytes());
    }
}
