//! From a path to the allocation of the worktree that holds it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use wtd_protocol::{Problem, ProblemType, State};

use super::Service;
use crate::domain::allocation::Allocation;
use crate::domain::identity::FileIdentity;
use crate::domain::reconcile::Unallocated;
use crate::git::discover::{DiscoverError, Discovered, discover, discover_settled};
use crate::git::{files, root};
use crate::problem;
use crate::registry::Snapshot;

/// How long a disk may take to tell what a path is in: longer than a shell waits, and than one takes to spin up.
const PATIENCE: Duration = Duration::from_secs(5);

impl Service {
    /// The allocation of the worktree that holds `path`, made if need be: JSON of a [`wtd_protocol::Allocation`].
    pub async fn allocation(&self, path: PathBuf) -> Result<Bytes, Problem> {
        self.0.databases.asked();
        if let Some(answer) = self.0.writer.glance().answer_at_root(&path) {
            return Ok(answer.clone());
        }
        let found = match self.discover(path.clone()).await {
            Ok(found) => found,
            Err(error) => return self.answer_undiscovered(&path, error),
        };
        self.allocation_of(&path, found).await
    }

    async fn allocation_of(&self, path: &Path, found: Found) -> Result<Bytes, Problem> {
        if let Some(answer) = found.known(&self.0.writer.glance()) {
            return Ok(answer);
        }
        let looked = self.look_at(&found).await;
        let snapshot = self.0.writer.snapshot();
        let common_dir = match looked {
            Ok(common_dir) => common_dir,
            // What could not be recorded can be about any other worktree of the repository.
            Err(problem) if problem.kind == ProblemType::RegistryUnavailable => {
                return found.recorded(&snapshot).ok_or(problem);
            }
            Err(problem) => return Err(problem),
        };
        if let Some(allocation) = snapshot.ledger.of_git_dir(found.identity)
            && allocation.state == State::Active
            && let Some(answer) = snapshot.answer(allocation.id)
        {
            return match &found.discovered.root {
                Some(root) if found.is_copy_of(&allocation.path).await => Err(copied(root, &allocation.path)),
                _ => Ok(answer.clone()),
            };
        }
        let Some(root) = &found.discovered.root else { return Err(no_worktree(path)) };
        let repository = snapshot.ledger.at_common_dir(&common_dir).map(|repository| repository.id);
        let unallocated = repository.map_or(&[][..], |id| snapshot.unallocated(id));
        if let Some(without) = unallocated.iter().find(|without| without.identity == found.identity) {
            return Err(exhausted(&snapshot, without));
        }
        if let Some(problem) = found.has_strange_root().await {
            return Err(problem);
        }
        let elsewhere = snapshot.ledger.of_git_dir(found.identity).filter(|known| known.path != *root);
        let why = match (snapshot.ledger.at_path(root), elsewhere) {
            (Some(known), _) => known.reason.clone(),
            (None, Some(known)) => {
                format!("git still has it at {}, from where it was moved by hand", known.path.display())
            }
            (None, None) => "git is still making or removing it".to_owned(),
        };
        Err(Problem::new(
            ProblemType::PathUnreadable,
            format!("{} has no allocation: {why}", root.display()),
            "run `git worktree list` there, and `git worktree repair` if it is broken",
        ))
    }

    /// What is recorded of the worktree that holds `path`, once it has an allocation.
    pub(super) async fn known(&self, path: &Path) -> Result<Arc<Allocation>, Problem> {
        self.allocation(path.to_owned()).await?;
        let found = self.discover(path.to_owned()).await.map_err(|error| discover_problem(path, error))?;
        self.0.writer.snapshot().ledger.of_git_dir(found.identity).cloned().ok_or_else(|| {
            Problem::new(
                ProblemType::NotRegistered,
                format!("{} has no allocation", path.display()),
                "ask for it with `wtd-client env`",
            )
        })
    }

    /// Learns the repository that `path` is in, and gives its common dir.
    pub async fn add(&self, path: PathBuf) -> Result<PathBuf, Problem> {
        let found = self.discover(path.clone()).await.map_err(|error| discover_problem(&path, error))?;
        self.look_at(&found).await
    }

    /// Has the repository of a git dir that was found looked at, and gives the common dir that the registry has for it.
    pub(super) async fn look_at(&self, found: &Found) -> Result<PathBuf, Problem> {
        // A disk that hangs must not take the thread along on which others are answered.
        let common_dir = tokio::task::block_in_place(|| self.registered_common_dir(found));
        let mut main_root = found.discovered.root.clone().filter(|_| found.discovered.linked_id.is_none());
        let known = self.0.writer.glance().ledger.at_common_dir(&common_dir).cloned();
        if let Some(known) = known.and_then(|repository| repository.main_root.clone())
            && main_root.is_some()
            && found.is_copy_of(&known).await
        {
            main_root = None;
        }
        self.0
            .reconciler
            .reconcile_now(&common_dir, main_root)
            .await
            .map_err(|error| problem::not_written(&error))?;
        Ok(common_dir)
    }

    /// What a path is in, unless its disk doesn't tell within [`PATIENCE`].
    pub(super) async fn discover(&self, path: PathBuf) -> Result<Found, DiscoverError> {
        let look = |path: PathBuf| {
            let discovered = discover_settled(&path)?;
            let identity = files::identity(&discovered.git_dir)
                .map_err(|source| DiscoverError::Unreadable { path: discovered.git_dir.clone(), source })?;
            Ok(Found { discovered, identity })
        };
        let asked = vec![(path.clone(), path.clone())];
        let found = self.0.discoveries.read(asked, Instant::now() + PATIENCE, look).await.pop().flatten();
        found.unwrap_or_else(|| {
            // Unknown, and never nothing.
            let source = std::io::Error::other(format!("no answer within {PATIENCE:?}"));
            Err(DiscoverError::Unreadable { path, source })
        })
    }

    /// The common dir under which the registry knows the repository. A bind mount gives a repository a second name:
    /// as long as the first one stands, it is the one that counts.
    fn registered_common_dir(&self, found: &Found) -> PathBuf {
        let here = &found.discovered.common_dir;
        let snapshot = self.0.writer.glance();
        if snapshot.ledger.at_common_dir(here).is_some() {
            return here.clone();
        }
        let known = files::identity(here).ok().and_then(|identity| snapshot.ledger.repository_of(identity));
        known
            .filter(|known| {
                known.watched && files::identity(&known.common_dir).is_ok_and(|there| there == known.identity)
            })
            .map_or_else(|| here.clone(), |known| known.common_dir.clone())
    }

    /// A worktree whose git dir has vanished is none to git. Its allocation stands as long as it isn't proven removed,
    /// and whoever works there still needs the ports.
    fn answer_undiscovered(&self, path: &Path, error: DiscoverError) -> Result<Bytes, Problem> {
        if let DiscoverError::Broken { root, .. } = &error {
            let snapshot = self.0.writer.snapshot();
            let known = snapshot.ledger.at_path(root).filter(|allocation| allocation.state == State::Missing);
            if let Some(answer) = known.and_then(|allocation| snapshot.answer(allocation.id)) {
                return Ok(answer.clone());
            }
        }
        Err(discover_problem(path, error))
    }
}

/// What helps where no allocation keeps a worktree from having an offset.
pub(super) const BARRED: &str =
    "change the ports in its wtd.toml, or what bars them: `wtd-client gc` would free none that fits";

/// A git dir that was found, with its incarnation.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) discovered: Discovered,
    pub(super) identity: FileIdentity,
}

impl Found {
    /// The allocation of this very git dir, at this path.
    fn allocation<'s>(&self, snapshot: &'s Snapshot) -> Option<&'s Arc<Allocation>> {
        let root = self.discovered.root.as_deref()?;
        snapshot.ledger.of_git_dir(self.identity).filter(|known| {
            known.state == State::Active && known.path == root && known.git_dir == self.discovered.git_dir
        })
    }

    /// Whether the root is a copy of the directory `original`, which still is this git dir's worktree. Git takes either
    /// for it; but they would have one database between them. The same directory under another name is no copy.
    async fn is_copy_of(&self, original: &Path) -> bool {
        let Some(root) = self.discovered.root.clone().filter(|root| root != original) else { return false };
        let (original, git_dir) = (original.to_owned(), self.identity);
        let look = move || {
            let there = files::identity(&original).ok();
            there.is_some()
                && there != files::identity(&root).ok()
                && discover(&original).is_ok_and(|found| {
                    found.root.as_deref() == Some(&*original)
                        && files::identity(&found.git_dir).is_ok_and(|identity| identity == git_dir)
                })
        };
        tokio::task::spawn_blocking(look).await.unwrap_or(false)
    }

    /// What is wrong where `core.worktree` leads to a directory from which git finds no way back.
    async fn has_strange_root(&self) -> Option<Problem> {
        let root = self.discovered.root.clone().filter(|_| self.discovered.linked_id.is_none())?;
        let dot_git = root.join(".git");
        let looked = tokio::task::spawn_blocking(move || dot_git.symlink_metadata()).await.ok()?;
        let is_absent = looked.is_err_and(|error| files::is_absence(&error));
        is_absent.then(|| {
            let (root, git_dir) = (root.display(), self.discovered.git_dir.display());
            Problem::new(
                ProblemType::PathUnreadable,
                format!("core.worktree of {git_dir} leads to {root}, which has no .git"),
                format!("write `gitdir: {git_dir}` into a file .git there, or unset core.worktree"),
            )
        })
    }

    /// The answer for a worktree that is recorded, and whose git dir's birth says that it is the same one.
    fn recorded(&self, snapshot: &Snapshot) -> Option<Bytes> {
        self.identity.born_ns?;
        snapshot.answer(self.allocation(snapshot)?.id).cloned()
    }

    /// The answer for a worktree that is known, at this path, and as it was when last seen.
    fn known(&self, snapshot: &Snapshot) -> Option<Bytes> {
        let allocation = self.allocation(snapshot)?;
        let root = self.discovered.root.as_deref()?;
        let seen = snapshot.sighting(allocation.id)?.stamp;
        let now = root::marks(root, snapshot.configured_elsewhere(allocation)?)?;
        if seen.is_unchanged(now) { snapshot.answer(allocation.id).cloned() } else { None }
    }
}

fn copied(copy: &Path, original: &Path) -> Problem {
    Problem::new(
        ProblemType::PathUnreadable,
        format!(
            "{} has no allocation: it is a copy of the worktree {}, which is still there",
            copy.display(),
            original.display()
        ),
        "make another worktree with `git worktree add`, or remove the original and run `git worktree repair` here",
    )
}

fn no_worktree(path: &Path) -> Problem {
    Problem::new(
        ProblemType::NotInAWorktree,
        format!("{} is not in a git worktree", path.display()),
        "run it in a worktree, or name one",
    )
}

fn exhausted(snapshot: &Snapshot, without: &Unallocated) -> Problem {
    let (active, missing, stale) = (
        snapshot.ledger.count(State::Active),
        snapshot.ledger.count(State::Missing),
        snapshot.ledger.count(State::Stale),
    );
    let total = active + missing + stale;
    let held = snapshot.ledger.held().count();
    let held = if held == 0 {
        String::new()
    } else {
        format!(", and {held} restored volumes hold offsets (`wtd-client doctor` names them)")
    };
    let path = without.path.display();
    let (in_the_way, remedy) = match &without.why.barred {
        Some(_) => (format!(", and none of them is in the way: {}", without.why), BARRED),
        None => (String::new(), "`wtd-client gc` frees the stale ones"),
    };
    Problem::new(
        ProblemType::OffsetsExhausted,
        format!(
            "no offset is left for {path}: there are {total} allocations, {stale} of them stale{held}{in_the_way}"
        ),
        remedy,
    )
}

/// What a failed discovery means for the caller.
pub(super) fn discover_problem(path: &Path, error: DiscoverError) -> Problem {
    match error {
        DiscoverError::NotFound(path) => Problem::new(
            ProblemType::PathNotFound,
            format!("{} does not exist", path.display()),
            "check the path",
        ),
        DiscoverError::Unreadable { path, source } => Problem::new(
            ProblemType::PathUnreadable,
            format!("{} can't be read: {source}", path.display()),
            "check the permissions on the way there",
        ),
        DiscoverError::NotInAWorktree => no_worktree(path),
        DiscoverError::Unfinished { root } => Problem::new(
            ProblemType::NotInAWorktree,
            format!("the .git file of {} is empty or half-written", root.display()),
            "let `git worktree add` finish, or run `git worktree repair`",
        ),
        DiscoverError::Broken { root, git_dir } => Problem::new(
            ProblemType::NotInAWorktree,
            format!("{} belongs to the git dir {}, which is not there", root.display(), git_dir.display()),
            "run `git worktree repair` in the main worktree",
        ),
    }
}
