//! Brings the registry in line with the disk: repositories that are marked dirty are looked at again, one look at a
//! time for each, and what the look comes to is committed.

mod allocation_files;
mod each;
mod mounts;
mod observing;
mod queue;
mod sweep;
mod wanted;

use std::collections::{HashMap, HashSet};
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, oneshot};
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info_span, warn};

use self::queue::{Due, Queue};
use crate::domain::allocation::Allocation;
use crate::domain::draft::{Record, Surroundings};
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::{Ledger, Overlap};
use crate::domain::observation::{Claim, Observation, Recorded};
use crate::domain::project::Project;
use crate::domain::reconcile::{Outcome, reconcile};
use crate::env_files::EnvFiles;
use crate::git::{Fingerprint, Memory};
use crate::permit::Permit;
use crate::registry::writer::System;
use crate::registry::{Decision, Snapshot, WriteError, Writer};
use crate::watch::{Listener, Watches};

/// How long events of one operation are gathered before the repository is looked at: `git worktree add` makes its
/// files within 1 ms of each other (measured).
const GATHER: Duration = Duration::from_millis(5);

/// How many repositories are looked at together.
const AT_ONCE: usize = 8;

/// How long a look may take before another one is let in besides. One at a disk that hangs goes on for as long as that
/// does, and its repository is not looked at again meanwhile.
const LONG: Duration = Duration::from_secs(2);

/// How many of them may wait for git's answer besides. Others come again.
const ASKING: usize = 8;

/// The reconciler; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Reconciler(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writer: Writer,
    watches: OnceLock<Watches>,
    queue: Mutex<Queue>,
    wake: Notify,
    overflowed: Notify,
    /// Watches may have ended of which no event has told.
    lost_events: AtomicBool,
    permits: Arc<Semaphore>,
    /// For those of them that have git asked.
    asking: Semaphore,
    /// Where git did not answer in time, and when.
    hung: Mutex<HashMap<PathBuf, Instant>>,
    /// Repositories that are being compared with what the last look at them rests on.
    comparing: Mutex<HashSet<PathBuf>>,
    /// Repositories and roots whose watches are being set anew.
    renewing: Mutex<HashSet<PathBuf>>,
    /// What the last look at each repository rests on.
    looks: Mutex<HashMap<PathBuf, LastLook>>,
    /// Allocation files that were seen or written, with the moment that they were found to be gone.
    files: Mutex<HashMap<AllocationId, Option<Instant>>>,
    /// Repositories that can't be watched.
    polled: Mutex<HashSet<PathBuf>>,
    env_files: EnvFiles,
    /// Roots of the configuration whose directories have to be searched again.
    roots: Mutex<Option<Arc<dyn RootsListener>>>,
    stale: Notify,
}

/// Hears of events below configured roots.
pub trait RootsListener: Send + Sync + std::fmt::Debug {
    /// Something came or went below the root whose watches have this key; false when they are no root's.
    fn changed(&self, key: &Path) -> bool;
    /// Something may have come or gone below every root.
    fn all_changed(&self);
}

/// What the last look at a repository left behind.
#[derive(Debug, Clone)]
struct LastLook {
    /// What the look rests on.
    fingerprint: Fingerprint,
    memory: Arc<Memory>,
}

impl Listener for Inner {
    fn dirty(&self, key: &Path) {
        let is_root = self.roots.lock().as_ref().is_some_and(|roots| roots.changed(key));
        if !is_root {
            self.queue.lock().mark(key, Instant::now() + GATHER);
            self.wake.notify_one();
        }
    }

    fn overflowed(&self) {
        warn!("inotify lost events, looking everywhere");
        self.lost_events.store(true, Ordering::Release);
        self.overflowed.notify_one();
    }
}

impl Reconciler {
    /// A reconciler that commits through `writer`; it works once [`Reconciler::run`] does.
    pub fn new(writer: Writer) -> Self {
        let inner = Arc::new(Inner {
            writer,
            watches: OnceLock::new(),
            queue: Mutex::default(),
            wake: Notify::new(),
            overflowed: Notify::new(),
            lost_events: AtomicBool::new(false),
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            asking: Semaphore::new(ASKING),
            hung: Mutex::default(),
            comparing: Mutex::default(),
            renewing: Mutex::default(),
            looks: Mutex::default(),
            files: Mutex::default(),
            polled: Mutex::default(),
            env_files: EnvFiles::default(),
            roots: Mutex::default(),
            stale: Notify::new(),
        });
        let watches = Watches::new(Arc::clone(&inner) as Arc<dyn Listener>);
        drop(inner.watches.set(watches));
        Self(inner)
    }

    /// The watches, for roots and for `doctor`.
    pub fn watches(&self) -> Option<&Watches> {
        self.0.watches.get()
    }

    /// Who hears of events below configured roots.
    pub fn set_roots_listener(&self, listener: Arc<dyn RootsListener>) {
        *self.0.roots.lock() = Some(listener);
    }

    /// The repositories that are polled.
    pub fn polled(&self) -> HashSet<PathBuf> {
        self.0.polled.lock().clone()
    }

    /// The env files that are kept.
    pub fn env_files(&self) -> &EnvFiles {
        &self.0.env_files
    }

    /// Resolves when an allocation may have become stale.
    pub async fn stale(&self) {
        self.0.stale.notified().await;
    }

    /// Says that an allocation may have become stale.
    pub fn notice_stale(&self) {
        self.0.stale.notify_one();
    }

    /// Has a repository looked at soon.
    pub fn mark(&self, common_dir: &Path) {
        self.0.queue.lock().mark(common_dir, Instant::now());
        self.0.wake.notify_one();
    }

    /// Looks at a repository now, learns it if need be, and commits what that comes to. The look begins after this call
    /// does, so whatever the caller has seen on disk is in it. `main_root`: the main worktree's root, where the caller
    /// knows it.
    pub async fn reconcile_now(
        &self,
        common_dir: &Path,
        main_root: Option<PathBuf>,
    ) -> Result<(), WriteError> {
        self.wait_for_look(common_dir, main_root, true).await
    }

    /// As [`Reconciler::reconcile_now`] of a repository that is watched. One that was forgotten meanwhile stays so.
    pub async fn look_again(&self, common_dir: &Path) -> Result<(), WriteError> {
        self.wait_for_look(common_dir, None, false).await
    }

    async fn wait_for_look(
        &self,
        common_dir: &Path,
        main_root: Option<PathBuf>,
        learn: bool,
    ) -> Result<(), WriteError> {
        let (done, answer) = oneshot::channel();
        {
            let mut queue = self.0.queue.lock();
            queue.mark(common_dir, Instant::now());
            queue.wait(common_dir, main_root, learn, done);
        }
        self.0.wake.notify_one();
        answer.await.unwrap_or(Err(WriteError::ShuttingDown))
    }

    /// Looks at a repository that was come upon, unless it is watched already.
    pub async fn learn(&self, common_dir: &Path, main_root: Option<PathBuf>) -> Result<(), WriteError> {
        if self.0.writer.glance().ledger.at_common_dir(common_dir).is_some() {
            return Ok(());
        }
        self.reconcile_now(common_dir, main_root).await
    }

    /// Looks at repositories as they become due, until the future is dropped.
    pub async fn run(&self) {
        loop {
            while let Some(due) = { self.0.queue.lock().take(Instant::now()) } {
                let this = self.clone();
                tokio::spawn(async move {
                    let Due { key, root_hint, learn, waiters } = due;
                    let span = info_span!("reconcile", repository = %key.display());
                    let look = AssertUnwindSafe(this.look(&key, root_hint, learn).instrument(span));
                    // A look that panics must not be the last that this repository gets.
                    let result = look.catch_unwind().await.unwrap_or(Err(WriteError::Panicked));
                    if let Err(WriteError::Panicked) = result {
                        error!(repository = %key.display(), "a look panicked");
                    }
                    let again = *result.as_ref().unwrap_or(&true);
                    if again {
                        this.distrust(&key);
                    }
                    this.0.queue.lock().finish(&key, again);
                    this.0.wake.notify_one();
                    for waiter in waiters {
                        // The client may have hung up.
                        drop(waiter.send(result.clone().map(drop)));
                    }
                });
            }
            let next = self.0.queue.lock().next_due();
            match next {
                Some(at) => tokio::select! {
                    () = self.0.wake.notified() => {}
                    () = tokio::time::sleep_until(at) => {}
                },
                None => self.0.wake.notified().await,
            }
        }
    }

    /// Has repositories looked at again of which a worktree found no offset.
    pub fn mark_in_want(&self) {
        let snapshot = self.0.writer.snapshot();
        for id in snapshot.repositories_in_want() {
            if let Some(repository) = snapshot.ledger.repository(id) {
                self.mark(&repository.common_dir);
            }
        }
    }

    /// What the last look at a repository saw is not recorded, or not all that there is: the next sweep looks again,
    /// whether anything has changed or not.
    fn distrust(&self, key: &Path) {
        if let Some(last) = self.0.looks.lock().get_mut(key) {
            last.fingerprint.racy = true;
        }
    }

    /// One look and its commit; true when another look should follow soon. Without `learn`, only a repository that is
    /// watched when the step is decided counts: whoever forgets one is not told by a late event that it is back.
    async fn look(&self, key: &Path, root_hint: Option<PathBuf>, learn: bool) -> Result<bool, WriteError> {
        let (this, common_dir) = (self.clone(), key.to_owned());
        let observed = {
            // Only looks are held back: the more steps wait for the writer together, the cheaper each is.
            let Ok(permit) = Arc::clone(&self.0.permits).acquire_owned().await else {
                return Err(WriteError::ShuttingDown);
            };
            let permit = Permit::new(permit);
            let lent = permit.clone();
            let look = move || this.observe(&common_dir, root_hint.as_deref(), &lent);
            permit.lend(LONG, tokio::task::spawn_blocking(look)).await
        };
        let observation = observed.map_err(|error| not_observed(&error))?;
        let unsettled = observation.unsettled;
        let before = self.0.writer.snapshot();
        let watched = key.to_owned();
        let step = move |ledger: &Ledger, system: &mut System| {
            if learn || ledger.at_common_dir(&watched).is_some() {
                decide(ledger, &observation, system)
            } else {
                Ok((None, Seen::default()))
            }
        };
        let seen = self.0.writer.commit(step).await?;
        let after = self.0.writer.snapshot();
        for displaced in &seen.displaced {
            if after.ledger.at_common_dir(displaced).is_none() {
                self.forget(displaced);
            }
        }
        if !seen.displaced.is_empty()
            && let Some(watches) = self.watches()
        {
            // A directory has one watch, whatever its name (inotify_add_watch(2)): dropping the one at the old path of
            // what was moved here ends the one that the look has set.
            watches.distrust(key);
            self.mark(key);
        }
        if seen.repository.is_none() {
            self.forget(key);
        }
        self.write_files(key, seen.files, &before, &after);
        if let Some(repository) = seen.repository {
            let wanted = |(id, project)| Some((Arc::clone(after.ledger.allocation(id)?), project));
            let wanted: Vec<_> = seen.env_files.into_iter().filter_map(wanted).collect();
            if wanted.is_empty() {
                self.0.env_files.keep(repository, &wanted);
            } else {
                tokio::task::block_in_place(|| self.0.env_files.keep(repository, &wanted));
            }
        }
        self.notice_stale();
        debug!(look_again = seen.look_again, unsettled, "looked");
        Ok(seen.look_again || unsettled)
    }

    /// Stops all watching and polling of a repository.
    pub fn forget(&self, common_dir: &Path) {
        if let Some(watches) = self.watches() {
            watches.remove(common_dir);
        }
        self.0.polled.lock().remove(common_dir);
        self.0.looks.lock().remove(common_dir);
        self.0.hung.lock().remove(common_dir);
    }
}

/// A task of ours is cancelled only when the runtime ends.
fn not_observed(error: &JoinError) -> WriteError {
    if error.is_panic() { WriteError::Panicked } else { WriteError::ShuttingDown }
}

/// What a look came to, for what follows its commit.
#[derive(Default)]
struct Seen {
    repository: Option<RepositoryId>,
    /// Each worktree that is there, with what its allocation file said.
    files: Vec<(AllocationId, Claim)>,
    /// The worktrees that have env files kept, each with the configuration that says so.
    env_files: Vec<(AllocationId, Arc<Project>)>,
    /// Common dirs at which a repository was, and is not any more.
    displaced: Vec<PathBuf>,
    look_again: bool,
}

fn decide(
    ledger: &Ledger,
    observation: &Observation,
    system: &mut impl Surroundings,
) -> Result<(Option<Decision>, Seen), Overlap> {
    let Outcome { repository, ledger: after, records, sightings, unallocated, env_files, look_again } =
        reconcile(ledger, observation, system)?;
    let changed = records.iter().filter_map(|record| match record {
        Record::Repository(now) => ledger.repository(now.id).map(|before| (before, now)),
        _ => None,
    });
    let displaced = changed
        .filter(|(before, now)| before.watched && (before.common_dir != now.common_dir || !now.watched))
        .map(|(before, _)| before.common_dir.clone())
        .collect();
    let files = sightings.iter().map(|sighting| (sighting.id, sighting.claim.clone())).collect();
    let seen = repository.map(|id| (id, sightings, unallocated));
    let decision = Decision { ledger: after, records, seen };
    Ok((Some(decision), Seen { repository, files, env_files, displaced, look_again }))
}

/// The common dirs of the watched repositories.
pub fn watched_common_dirs(snapshot: &Snapshot) -> Vec<PathBuf> {
    let watched = snapshot.ledger.repositories().filter(|repository| repository.watched);
    watched.map(|repository| repository.common_dir.clone()).collect()
}

/// What an observer has to know of an allocation to look for it.
pub fn as_recorded(allocation: &Allocation) -> Recorded {
    Recorded {
        id: allocation.id,
        git_dir: allocation.git_dir.clone(),
        identity: allocation.identity,
        path: allocation.path.clone(),
        device: allocation.device,
        main: allocation.is_main(),
        override_digest: allocation.compose.as_ref().map(|compose| compose.digest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_look_that_panics_is_a_defect_and_not_the_daemons_end() {
        let panicked = tokio::task::spawn_blocking(|| panic!("a defect")).await.unwrap_err();
        let error = not_observed(&panicked);
        assert!(matches!(error, WriteError::Panicked));
        assert_eq!(crate::problem::not_written(&error).kind, wtd_protocol::ProblemType::Internal);
    }
}
