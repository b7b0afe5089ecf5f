//! Worktrees and repositories as they are at this moment.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use wtd_protocol::{PathText, PortConflict, Problem, ProblemType, Repository, State, Worktree};

use super::Service;
use crate::domain::allocation::Allocation;
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::git::{branch, root};
use crate::listeners::Listeners;
use crate::problem;
use crate::registry::Snapshot;
use crate::text::plain;
use crate::wire;

/// How long a list waits for a look at worktrees that were missing when last seen.
const PATIENCE: Duration = Duration::from_millis(200);

/// How long a list waits for what is on the disks of repositories.
const LOOK: Duration = Duration::from_secs(1);

/// How long a list waits for git where only git knows the branch (reftable): less than for all else, so that a repository
/// that keeps git waiting hides branches and nothing else.
const BRANCHES: Duration = Duration::from_millis(750);

/// What is said of a worktree when its disk hangs.
const UNREAD: &str = "its disk does not answer: the branch, whether git has it locked, who has its ports and whether its \
                      Compose override is right are unknown";

/// How many released allocations are listed: the latest.
const RELEASED: u32 = 1000;

impl Service {
    /// The worktrees whose allocation is in one of `states`, oldest first.
    pub async fn worktrees(&self, states: &HashSet<State>) -> Result<Vec<Worktree>, Problem> {
        let shown = self.shown(states).await?;
        let mut worktrees: Vec<_> = shown.worktrees.into_iter().map(|shown| shown.worktree).collect();
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

    /// The worktrees in the registry whose allocation is in one of `states`, oldest first.
    pub(super) async fn shown(&self, states: &HashSet<State>) -> Result<All, Problem> {
        self.look_where_no_event_tells().await;
        let snapshot = self.0.writer.snapshot();
        let wanted = snapshot.ledger.allocations().filter(|allocation| states.contains(&allocation.state));
        let mut by_repository: HashMap<RepositoryId, Vec<_>> = HashMap::new();
        for (place, allocation) in wanted.cloned().enumerate() {
            by_repository.entry(allocation.repository).or_default().push((place, allocation));
        }
        let listeners = tokio::task::spawn_blocking(listening_now);
        let listeners = Arc::new(listeners.await.map_err(|_| problem::shutting_down())?);
        let branches = Instant::now() + BRANCHES;
        let read = {
            let (snapshot, listeners) = (Arc::clone(&snapshot), Arc::clone(&listeners));
            move |all: Vec<(usize, Arc<Allocation>)>| {
                let show = |(place, allocation): (usize, Arc<Allocation>)| {
                    let seen = Seen::now(&allocation, &listeners, branches);
                    (place, show(&snapshot, &allocation, &listeners, Some(seen)))
                };
                all.into_iter().map(show).collect::<Vec<_>>()
            }
        };
        let all: Vec<_> = by_repository.into_iter().collect();
        let looks = self.0.sight.read(all.clone(), tokio::time::Instant::now() + LOOK, read).await;
        let mut shown: Vec<_> = Vec::new();
        for ((_, all), look) in all.into_iter().zip(looks) {
            match look {
                Some(look) => shown.extend(look),
                None => shown.extend(
                    all.into_iter()
                        .map(|(place, allocation)| (place, show(&snapshot, &allocation, &listeners, None))),
                ),
            }
        }
        shown.sort_unstable_by_key(|(place, _)| *place);
        let mut shown: Vec<_> = shown.into_iter().map(|(_, shown)| shown).collect();
        for Shown { id, worktree, .. } in &mut shown {
            let troubles =
                snapshot.ledger.allocation(*id).map(|it| self.0.reconciler.env_files().troubles(it));
            let troubles = troubles.into_iter().flatten().map(|trouble| trouble.what);
            worktree.allocation.warnings.extend(troubles.chain(self.0.databases.note(*id)));
        }
        self.spare_own_containers(&mut shown).await;
        Ok(All { worktrees: shown, unheard: (*listeners).as_ref().err().cloned() })
    }

    /// Who listens for a container works in no worktree; the engine knows whose the container is.
    async fn spare_own_containers(&self, shown: &mut [Shown]) {
        if shown.iter().all(|shown| shown.worktree.conflicts.is_empty()) {
            return;
        }
        let published = self.0.engine.published_ports().await;
        for Shown { worktree, .. } in shown {
            let Ok(root) = worktree.allocation.path() else { continue };
            worktree.conflicts.retain(|conflict| {
                !published.get(&conflict.port).is_some_and(|directory| directory.starts_with(&root))
            });
        }
    }

    /// What is missing can be back without an event, as a disk that is mounted again is; and work trees are not watched, so
    /// a `wtd.toml` can be another one.
    async fn look_where_no_event_tells(&self) {
        let snapshot = self.0.writer.snapshot();
        let missing = snapshot.ledger.in_state(State::Missing);
        let mut repositories: HashSet<_> = missing.map(|allocation| allocation.repository).collect();
        repositories.extend(self.reconfigured(&snapshot).await);
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

    /// The repositories of worktrees that are configured otherwise than when they were seen.
    async fn reconfigured(&self, snapshot: &Arc<Snapshot>) -> Vec<RepositoryId> {
        let mut by_repository: HashMap<RepositoryId, Vec<Arc<Allocation>>> = HashMap::new();
        for allocation in snapshot.ledger.in_state(State::Active) {
            by_repository.entry(allocation.repository).or_default().push(Arc::clone(allocation));
        }
        let all: Vec<_> = by_repository.into_iter().collect();
        let ids: Vec<_> = all.iter().map(|(id, _)| *id).collect();
        let seen = Arc::clone(snapshot);
        let is_so = move |all: Vec<Arc<Allocation>>| all.iter().any(|it| is_reconfigured(&seen, it));
        let looks = self.0.sight.read(all, tokio::time::Instant::now() + PATIENCE, is_so).await;
        ids.into_iter().zip(looks).filter_map(|(id, is_so)| is_so?.then_some(id)).collect()
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

/// By two `lstat`s, as whoever asks for its variables would find out.
fn is_reconfigured(snapshot: &Snapshot, allocation: &Allocation) -> bool {
    let Some(elsewhere) = snapshot.configured_elsewhere(allocation) else { return false };
    let Some(seen) = snapshot.sighting(allocation.id) else { return false };
    root::marks(&allocation.path, elsewhere).is_some_and(|now| !seen.stamp.is_unchanged(now))
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

/// Who listens on which port, or why that is unknown.
type Listening = Result<Listeners, String>;

fn listening_now() -> Listening {
    Listeners::read().map_err(|error| plain(&error.to_string()))
}

/// What is told of, and of all of it together.
#[derive(Debug)]
pub(super) struct All {
    pub(super) worktrees: Vec<Shown>,
    /// Why it is unknown who listens on which port.
    pub(super) unheard: Option<String>,
}

/// A worktree as it is told of.
#[derive(Debug)]
pub(super) struct Shown {
    pub(super) id: AllocationId,
    pub(super) worktree: Worktree,
    /// What is wrong with its Compose override, which is among its warnings too.
    pub(super) compose: Option<String>,
    /// Its disk did not answer.
    pub(super) is_unread: bool,
}

/// What is on a worktree's disk.
#[derive(Default)]
struct Seen {
    branch: Option<String>,
    /// Why the branch is unknown.
    branch_unknown: Option<String>,
    locked: bool,
    compose: Option<String>,
    conflicts: Vec<PortConflict>,
}

impl Seen {
    /// Blocks, on git until `branches`.
    fn now(allocation: &Allocation, listeners: &Listening, branches: Instant) -> Self {
        let mut conflicts = Vec::new();
        // A port that worktrees share is somebody else's by design.
        for (variable, port) in allocation.ports.iter().filter(|(_, port)| !port.shared) {
            let outsider = |now: &Listeners| now.outsider(port.port, &allocation.path);
            if let Some(reason) = listeners.as_ref().ok().and_then(outsider) {
                conflicts.push(PortConflict { variable: variable.to_string(), port: port.port, reason });
            }
        }
        // The git dir of one that is stale can be another worktree's by now.
        if !allocation.is_live() {
            return Self { conflicts, ..Self::default() };
        }
        let is_locked = || allocation.git_dir.join("locked").symlink_metadata().is_ok();
        let (branch, branch_unknown) = match branch(&allocation.git_dir, branches) {
            Ok(branch) => (branch, None),
            Err(why) => (None, Some(why.to_string())),
        };
        Self {
            branch,
            branch_unknown,
            // Looked at here, since of a missing worktree nothing was sighted.
            locked: !allocation.is_main() && is_locked(),
            compose: super::compose::what_is_wrong(allocation),
            conflicts,
        }
    }
}

/// The allocation with what can be seen of its worktree now; `seen` is none where its disk did not answer.
fn show(
    snapshot: &Snapshot,
    allocation: &Arc<Allocation>,
    listeners: &Listening,
    seen: Option<Seen>,
) -> Shown {
    let common_dir = snapshot
        .ledger
        .repository(allocation.repository)
        .map_or_else(|| allocation.git_dir.clone(), |repository| repository.common_dir.clone());
    let is_taken = |port| listeners.as_ref().is_ok_and(|now| now.listening(port));
    let taken = allocation.ports.iter().filter(|(_, port)| is_taken(port.port));
    let listening = taken.map(|(variable, _)| variable.to_string()).collect();
    let mut wire = wire::allocation(allocation, &common_dir, false);
    let is_unread = seen.is_none() && allocation.is_live();
    if is_unread {
        wire.warnings.push(UNREAD.to_owned());
    }
    let Seen { branch, branch_unknown, locked, compose, conflicts } = seen.unwrap_or_default();
    wire.warnings.extend(compose.as_ref().map(|why| format!("{why}; {}", super::compose::REMEDY)));
    wire.warnings.extend(branch_unknown.map(|why| format!("its branch is unknown: {why}")));
    if let Err(why) = listeners {
        wire.warnings.push(format!("who listens on its ports is unknown: {why}"));
    }
    let worktree = Worktree { allocation: wire, branch, locked, listening, conflicts };
    Shown { id: allocation.id, worktree, compose, is_unread }
}
