//! Worktrees and repositories as they are at this moment.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wtd_protocol::{PathText, PortConflict, Problem, ProblemType, Repository, State, Worktree};

use super::Service;
use crate::domain::allocation::Allocation;
use crate::domain::identity::RepositoryId;
use crate::git::branch;
use crate::listeners::Listeners;
use crate::problem;
use crate::registry::Snapshot;
use crate::wire;

/// How long a list waits for a look at worktrees that were missing when last seen.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a list waits for git where only git knows the branch (reftable): for all worktrees together, so that one
/// repository that keeps git waiting hides branches and nothing else.
const BRANCHES: Duration = Duration::from_secs(1);

/// How many released allocations are listed: the latest.
const RELEASED: u32 = 1000;

impl Service {
    /// The worktrees whose allocation is in one of `states`, oldest first.
    pub async fn worktrees(&self, states: &HashSet<State>) -> Result<Vec<Worktree>, Problem> {
        self.look_for_the_missing().await;
        let snapshot = self.0.writer.snapshot();
        let wanted: Vec<_> = snapshot
            .ledger
            .allocations()
            .filter(|allocation| states.contains(&allocation.state))
            .cloned()
            .collect();
        let reconciler = self.0.reconciler.clone();
        let look = move || {
            let listeners = Listeners::read().ok();
            let deadline = Instant::now() + BRANCHES;
            wanted
                .iter()
                .map(|allocation| {
                    let mut worktree = worktree(&snapshot, allocation, listeners.as_ref(), deadline);
                    let troubles = reconciler.env_files().troubles(allocation);
                    worktree.allocation.warnings.extend(troubles.into_iter().map(|trouble| trouble.what));
                    worktree
                })
                .collect::<Vec<_>>()
        };
        let mut worktrees = tokio::task::spawn_blocking(look).await.map_err(|_| problem::shutting_down())?;
        for worktree in &mut worktrees {
            let id = worktree.allocation.id.parse().ok();
            worktree.allocation.warnings.extend(id.and_then(|id| self.0.databases.note(id)));
        }
        self.spare_own_containers(&mut worktrees).await;
        if states.contains(&State::Released) {
            let released = self.0.history.released(RELEASED).await.map_err(|error| {
                Problem::new(ProblemType::RegistryUnavailable, error.to_string(), "see `wtd-client doctor`")
            })?;
            // What was stale in the snapshot may have been released since; it is told of once.
            let known: HashSet<String> =
                worktrees.iter().map(|worktree| worktree.allocation.id.clone()).collect();
            let released = released.into_iter().filter(|allocation| !known.contains(&allocation.id));
            let none = || (None, false, Vec::new(), Vec::new());
            worktrees.extend(released.map(|allocation| {
                let (branch, locked, listening, conflicts) = none();
                Worktree { allocation, branch, locked, listening, conflicts }
            }));
        }
        Ok(worktrees)
    }

    /// Who listens for a container works in no worktree; the engine knows whose the container is.
    async fn spare_own_containers(&self, worktrees: &mut [Worktree]) {
        if worktrees.iter().all(|worktree| worktree.conflicts.is_empty()) {
            return;
        }
        let published = self.0.engine.published_ports().await;
        for worktree in worktrees {
            let Ok(root) = worktree.allocation.path() else { continue };
            worktree.conflicts.retain(|conflict| {
                !published.get(&conflict.port).is_some_and(|directory| directory.starts_with(&root))
            });
        }
    }

    /// What is missing can be back without an event, as a disk that is mounted again is.
    async fn look_for_the_missing(&self) {
        let snapshot = self.0.writer.snapshot();
        let missing = snapshot.ledger.in_state(State::Missing);
        let repositories: HashSet<_> = missing.map(|allocation| allocation.repository).collect();
        let watched = repositories
            .iter()
            .filter_map(|id| snapshot.ledger.repository(*id))
            .filter(|known| known.watched);
        let looks: tokio::task::JoinSet<_> = watched
            .map(|repository| {
                let (reconciler, common_dir) = (self.0.reconciler.clone(), repository.common_dir.clone());
                async move { reconciler.look_again(&common_dir).await }
            })
            .collect();
        // Whatever takes longer than this is told of as it was; a list never hangs on a disk that does.
        drop(tokio::time::timeout(PATIENCE, looks.join_all()).await);
    }

    /// The repositories that are watched, by path.
    pub fn repositories(&self) -> Vec<Repository> {
        let snapshot = self.0.writer.snapshot();
        let polled = self.0.reconciler.polled();
        let watched = snapshot.ledger.repositories().filter(|repository| repository.watched);
        let mut repositories: Vec<_> =
            watched.map(|repository| repository_on_the_wire(&snapshot, repository, &polled)).collect();
        repositories.sort_by(|a, b| a.repository.cmp(&b.repository));
        repositories
    }

    /// The repository with this common dir, if it is watched.
    pub fn repository(&self, common_dir: &Path) -> Option<Repository> {
        let snapshot = self.0.writer.snapshot();
        let repository = snapshot.ledger.at_common_dir(common_dir)?;
        Some(repository_on_the_wire(&snapshot, repository, &self.0.reconciler.polled()))
    }
}

fn repository_on_the_wire(
    snapshot: &Snapshot,
    repository: &crate::domain::allocation::Repository,
    polled: &HashSet<PathBuf>,
) -> Repository {
    let PathText { text, base64 } = PathText::of(&repository.common_dir);
    let count =
        |state| snapshot.ledger.of_repository(repository.id).filter(|known| known.state == state).count();
    let watched_by = if polled.contains(&repository.common_dir) { "polling" } else { "inotify" };
    Repository {
        repository: text,
        repository_base64: base64,
        watched_by: watched_by.to_owned(),
        active: count(State::Active),
        missing: count(State::Missing),
        stale: count(State::Stale),
        unallocated: snapshot
            .unallocated(repository.id)
            .iter()
            .map(|without| format!("{}: {}", without.path.display(), without.why))
            .collect(),
        mistakes: mistakes(snapshot, repository.id),
    }
}

/// What is wrong in the `wtd.toml` of a repository's worktrees. One that several use is told of once.
fn mistakes(snapshot: &Snapshot, repository: RepositoryId) -> Vec<String> {
    let live = snapshot.ledger.of_repository(repository).filter(|known| known.is_live());
    let all: BTreeSet<_> = live.flat_map(|known| known.mistakes()).collect();
    all.into_iter().cloned().collect()
}

/// The allocation with what can be seen of its worktree now. Blocks, on git until `deadline`.
fn worktree(
    snapshot: &Snapshot,
    allocation: &Arc<Allocation>,
    listeners: Option<&Listeners>,
    deadline: Instant,
) -> Worktree {
    let common_dir =
        snapshot.ledger.repository(allocation.repository).map(|repository| repository.common_dir.clone());
    let common_dir = common_dir.unwrap_or_else(|| allocation.git_dir.clone());
    let (mut listening, mut conflicts) = (Vec::new(), Vec::new());
    let taken =
        allocation.ports.iter().filter(|(_, port)| listeners.is_some_and(|now| now.listening(port.port)));
    for (variable, port) in taken {
        listening.push(variable.to_string());
        let other = listeners.and_then(|now| now.outsider(port.port, &allocation.path));
        // A port that worktrees share is somebody else's by design.
        if let Some(reason) = other.filter(|_| !port.shared) {
            conflicts.push(PortConflict { variable: variable.to_string(), port: port.port, reason });
        }
    }
    // The git dir of one that is stale can be another worktree's by now.
    let is_live = allocation.is_live();
    let wire = wire::allocation(allocation, &common_dir, false);
    let about_compose = if is_live { super::compose::warning(allocation) } else { None };
    let warnings = wire.warnings.iter().cloned().chain(about_compose).collect();
    let is_locked = || allocation.git_dir.join("locked").symlink_metadata().is_ok();
    Worktree {
        branch: if is_live { branch(&allocation.git_dir, deadline) } else { None },
        // Looked at here, since of a missing worktree nothing was sighted.
        locked: is_live && !allocation.is_main() && is_locked(),
        allocation: wtd_protocol::Allocation { warnings, ..wire },
        listening,
        conflicts,
    }
}
