//! Looks at single worktrees: the main one and each entry of `worktrees/`.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::claim;
use super::files::{self, ReadError, Unreadable};
use super::fingerprint::{Marks, Part};
use super::links::{self, DotGit};
use super::memory::{self, Memory, Remembered};
use super::request::ObserveRequest;
use super::root;
use crate::domain::identity::FileIdentity;
use crate::domain::observation::{Claim, ObservedWorktree, Presence, Recorded, RootStamp};
use crate::domain::project::Project;

/// How long an empty file may be one that git is about to fill: git takes microseconds, a loaded machine
/// longer.
const FRESH: Duration = Duration::from_secs(5);

/// Looks at the worktrees of one repository.
#[derive(Debug)]
pub(super) struct Looker<'a> {
    /// Marks of everything looked at.
    pub(super) marks: Marks,
    /// Whether something was met in the middle of being written.
    pub(super) unsettled: bool,
    /// The root of the main worktree.
    pub(super) main_root: Option<PathBuf>,
    /// What the next look need not read again.
    pub(super) memory: Memory,
    /// Marks of what bears on every worktree.
    pub(super) shared: Option<Part>,
    common_dir: &'a Path,
    worktrees: PathBuf,
    request: &'a ObserveRequest<'a>,
    now_ns: i64,
    local: HashMap<u64, bool>,
    /// The project that was loaded last; most worktrees of a repository have the same.
    project: Option<Arc<Project>>,
}

impl<'a> Looker<'a> {
    /// Begins a look at the repository `common_dir`.
    pub(super) fn new(common_dir: &'a Path, request: &'a ObserveRequest<'a>) -> Self {
        Self {
            marks: Marks::new(),
            unsettled: false,
            main_root: None,
            memory: Memory::default(),
            shared: None,
            common_dir,
            worktrees: common_dir.join("worktrees"),
            request,
            now_ns: files::now_ns(),
            local: HashMap::new(),
            project: None,
        }
    }

    /// The main worktree, whose git dir is the common dir.
    pub(super) fn main(&mut self, root: &Path, identity: FileIdentity) -> ObservedWorktree {
        self.marks.root(root);
        let presence = self.presence(root, identity, true);
        let mut worktree = ObservedWorktree {
            id: None,
            git_dir: self.common_dir.to_owned(),
            identity,
            path: root.to_owned(),
            project: self.project(root, &presence),
            presence,
            locked: false,
            claim: claim::read(self.common_dir),
            lost_override: None,
        };
        worktree.lost_override = self.lost_override(&worktree);
        worktree
    }

    /// The entry `id` of `worktrees/`; none when it is none of git's, has just gone, or names no path.
    pub(super) fn entry(&mut self, id: &OsStr) -> Result<Option<ObservedWorktree>, Unreadable> {
        if let Some(known) = self.recall(id) {
            return Ok(Some(known));
        }
        let mut part = self.marks.part();
        let found = self.read_entry(id, &mut part);
        let part = part.seal();
        self.marks.take_in(part);
        if let Ok(Some(worktree)) = &found
            && !part.racy
            && memory::is_lasting(worktree)
        {
            let known = Remembered { marks: part.digest, worktree: Arc::new(worktree.clone()) };
            self.memory.entries.insert(id.to_owned(), known);
        }
        found
    }

    /// The entry as it was when last read, if nothing that it was read from has changed.
    fn recall(&mut self, id: &OsStr) -> Option<ObservedWorktree> {
        let known = self.request.memory.recall(id, self.shared?)?;
        let mut part = self.marks.part();
        part.entry(&self.worktrees.join(id));
        part.root(&known.worktree.path);
        let part = part.seal();
        if part.racy || part.digest != known.marks {
            return None;
        }
        self.marks.take_in(part);
        self.memory.entries.insert(id.to_owned(), known.clone());
        Some((*known.worktree).clone())
    }

    fn read_entry(&mut self, id: &OsStr, part: &mut Marks) -> Result<Option<ObservedWorktree>, Unreadable> {
        let git_dir = self.worktrees.join(id);
        let marks = part.entry(&git_dir);
        // Git makes no symbolic link here. One that was put here leads out of the repository.
        let directory = match links::present(marks.directory) {
            Ok(Some(metadata)) if metadata.is_dir() => metadata,
            Ok(_) => return Ok(None),
            Err(error) => return Err(Unreadable::new(&git_dir, error)),
        };
        // A lock that can't be looked at may be there.
        let locked = !matches!(links::present(marks.locked), Ok(None));
        let identity = files::identity_of(&directory);
        let recorded = self.request.recorded.iter().find(|recorded| is_same(recorded, &git_dir, identity));
        let fresh = self.is_fresh(&directory) || marks.gitdir.as_ref().is_ok_and(|file| self.is_fresh(file));
        // Git writes `gitdir` in place: it is empty for a moment while a worktree is made or moved. No time tells how long
        // ago that was, since a kernel can show that a file is empty well before it shows when it was emptied; so one that
        // is recorded stays as long as the file is there. A removal takes the file away.
        let is_written = marks.gitdir.is_ok();
        let (path, unknown) = match (read_gitdir(&git_dir, marks.gitdir), recorded) {
            (Ok(Some(root)), _) => (links::canonical(&root), None),
            (Ok(None), recorded) => {
                self.unsettled |= fresh;
                let kept = recorded.filter(|_| fresh || locked || is_written);
                let Some(recorded) = kept else { return Ok(None) };
                (recorded.path.clone(), Some(format!("{}: its gitdir is empty", git_dir.display())))
            }
            (Err(error), Some(recorded)) => {
                let reason = format!("{}: {error}", git_dir.join("gitdir").display());
                (recorded.path.clone(), Some(reason))
            }
            (Err(ReadError::Io(error)), None) => return Err(Unreadable::new(&git_dir.join("gitdir"), error)),
            // Git can make nothing of it either.
            (Err(_), None) => return Ok(None),
        };
        part.root(&path);
        let finished = !locked || (exists(&git_dir, "index") && !exists(&git_dir, "index.lock"));
        let presence = match unknown {
            Some(reason) => Presence::Unknown(reason),
            None => self.presence(&path, identity, finished),
        };
        if matches!(presence, Presence::Missing { .. }) && !finished && self.is_fresh(&directory) {
            self.unsettled = true;
        }
        let mut worktree = ObservedWorktree {
            id: Some(id.to_owned()),
            identity,
            project: self.project(&path, &presence),
            path,
            presence,
            locked,
            claim: claim::read(&git_dir),
            git_dir,
            lost_override: None,
        };
        worktree.lost_override = self.lost_override(&worktree);
        Ok(Some(worktree))
    }

    /// The recorded Compose override of a worktree, if it is not in its git dir.
    fn lost_override(&self, worktree: &ObservedWorktree) -> Option<[u8; 32]> {
        let recorded = self.request.recorded.iter().find(|recorded| answers_for(worktree, recorded))?;
        recorded.override_digest.filter(|digest| !claim::has_override(&worktree.git_dir, digest))
    }

    /// What is at `root`, for the git dir with this identity.
    fn presence(&mut self, root: &Path, git_dir: FileIdentity, finished: bool) -> Presence {
        let found = match links::dot_git(root) {
            Ok(DotGit::Directory { own, directory }) => Ok((own, Some(files::identity_of(&directory)))),
            Ok(DotGit::File { own, git_dir: named }) => {
                links::identity_at(&named).map(|identity| (own, identity))
            }
            Ok(DotGit::Absent) => return Presence::Missing { device_above: files::device_above(root) },
            Ok(DotGit::Unfinished { own }) if self.is_fresh(&own) => {
                self.unsettled = true;
                return Presence::Unknown(format!("{}: it is not written yet", root.join(".git").display()));
            }
            Ok(DotGit::Unfinished { .. } | DotGit::Other) => return Presence::Foreign,
            Err(error) => Err(error),
        };
        match found {
            Ok((own, Some(identity))) if identity == git_dir => match fs::metadata(root) {
                Ok(metadata) => {
                    Presence::Present { device: metadata.dev(), stamp: self.stamp(root, &own), finished }
                }
                Err(error) => Presence::Unknown(Unreadable::new(root, error).to_string()),
            },
            Ok(_) => Presence::Foreign,
            Err(error) => Presence::Unknown(error.to_string()),
        }
    }

    /// Before the configuration is read: what is written after is told from it.
    fn stamp(&mut self, root: &Path, dot_git: &Metadata) -> RootStamp {
        RootStamp {
            marks: root::marks_with(dot_git, root, self.main_root.as_deref().unwrap_or(self.common_dir)),
            local: *self.local.entry(dot_git.dev()).or_insert_with(|| files::is_local_file_system(root)),
        }
    }

    /// A directory that isn't the worktree's has no say in what the project declares; nor has one that git is still
    /// filling, where the file may be half there.
    fn project(&mut self, root: &Path, presence: &Presence) -> Arc<Project> {
        let main_root = self.main_root.as_deref();
        let root = match presence {
            Presence::Present { finished: true, .. } => root,
            _ => main_root.unwrap_or(self.common_dir),
        };
        let project = (self.request.load_project)(root, main_root, self.common_dir);
        match &self.project {
            Some(last) if **last == project => Arc::clone(last),
            _ => Arc::clone(self.project.insert(Arc::new(project))),
        }
    }

    /// A time in the future is a clock's that was set back: nothing to wait for.
    fn is_fresh(&self, metadata: &Metadata) -> bool {
        u128::from(self.now_ns.abs_diff(files::modified_ns(metadata))) < FRESH.as_nanos()
    }
}

/// Whether the git dir is the incarnation that is recorded.
pub(super) fn is_same(recorded: &Recorded, git_dir: &Path, identity: FileIdentity) -> bool {
    identity == recorded.identity
        || (git_dir == recorded.git_dir && identity.is_same_after_remount(&recorded.identity))
}

/// Whether `worktree` is the one that is recorded, by its git dir or by its allocation file.
pub(super) fn answers_for(worktree: &ObservedWorktree, recorded: &Recorded) -> bool {
    is_same(recorded, &worktree.git_dir, worktree.identity)
        || matches!(worktree.claim, Claim::Allocation { id, .. } if id == recorded.id)
}

/// The root that the entry names; none when it names none.
fn read_gitdir(git_dir: &Path, seen: io::Result<Metadata>) -> Result<Option<PathBuf>, ReadError> {
    match seen.map_err(ReadError::from).and_then(|seen| files::read_seen(&git_dir.join("gitdir"), &seen)) {
        Ok(bytes) => Ok(links::root_from_gitdir(&bytes, git_dir)),
        Err(ReadError::NotFound) => Ok(None),
        Err(error) => Err(error),
    }
}

fn exists(git_dir: &Path, name: &str) -> bool {
    !matches!(fs::symlink_metadata(git_dir.join(name)), Err(error) if error.kind() == io::ErrorKind::NotFound)
}
