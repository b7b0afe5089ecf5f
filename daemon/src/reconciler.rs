//! Brings the registry in line with the disk: repositories that are marked dirty are looked at again, one look at a
//! time for each, and what the look comes to is committed.

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::Instant;
use tracing::{Instrument, debug, info_span, warn};

use crate::domain::allocation::Allocation;
use crate::domain::draft::{Record, Surroundings};
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::{Ledger, Overlap};
use crate::domain::observation::{
    Claim, Observation, ObservedRepository, ObservedWorktree, Presence, Recorded,
};
use crate::domain::project::Project;
use crate::domain::reconcile::{Outcome, reconcile};
use crate::env_files::EnvFiles;
use crate::git::ask::{self, AskError, Listing};
use crate::git::{Fingerprint, Look, Memory, ObserveRequest, files, observe};
use crate::project_file;
use crate::registry::writer::System;
use crate::registry::{Decision, Snapshot, WriteError, Writer, allocation_file};
use crate::watch::{Listener, Role, Watches, interest};

/// How long events of one operation are gathered before the repository is looked at: `git worktree add` makes its
/// files within 1 ms of each other (measured).
const GATHER: Duration = Duration::from_millis(5);

/// When a repository that was met in the middle of a change is looked at again.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// How long after an allocation file has vanished it is written again: what else is being deleted with it is gone then.
const VANISHED: Duration = Duration::from_secs(3);

/// How often a repository is looked at that can't be watched.
const POLL: Duration = Duration::from_secs(2);

/// How many repositories are looked at together.
const AT_ONCE: usize = 8;

/// How many of them may wait for git's answer besides. Others come again.
const ASKING: usize = 8;

/// How long git is not asked again where it did not answer in time.
const RESPITE: Duration = Duration::from_mins(1);

/// How many entries of one repository are watched that no allocation is recorded for and that lead nowhere. The others
/// are noticed when somebody asks for them, and by the sweep: what comes as an archive can have any number of them, and
/// watches are not only ours.
const STRANGERS: usize = 256;

/// How often one look is repeated because it set watches, so that what happened just before them is seen too.
const ROUNDS: usize = 5;

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
    /// Something came or went below `root`; false when it is no root.
    fn changed(&self, root: &Path) -> bool;
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

/// Somebody who waits for a look.
type Waiter = oneshot::Sender<Result<(), WriteError>>;

/// Repositories that are dirty or being looked at.
#[derive(Debug, Default)]
struct Queue {
    due: BTreeSet<(Instant, PathBuf)>,
    entries: HashMap<PathBuf, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    running: bool,
    waiters: Vec<Waiter>,
    root_hint: Option<PathBuf>,
    /// Somebody asks for a repository that may not be known yet.
    learn: bool,
    attempt: usize,
}

/// A repository whose look is due.
#[derive(Debug)]
struct Due {
    key: PathBuf,
    root_hint: Option<PathBuf>,
    learn: bool,
    waiters: Vec<Waiter>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What the mutexes here guard is valid at every moment, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    fn mark(&mut self, key: &Path, at: Instant) {
        let entry = self.entries.entry(key.to_owned()).or_default();
        if entry.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(later) = entry.due.replace(at) {
            self.due.remove(&(later, key.to_owned()));
        }
        if !entry.running {
            self.due.insert((at, key.to_owned()));
        }
    }

    /// Takes the next repository that is due.
    fn take(&mut self, now: Instant) -> Option<Due> {
        if self.due.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.due = None;
        entry.running = true;
        let (root_hint, learn) = (entry.root_hint.take(), std::mem::take(&mut entry.learn));
        let waiters = std::mem::take(&mut entry.waiters);
        Some(Due { key, root_hint, learn, waiters })
    }

    fn finish(&mut self, key: &Path, again: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.attempt = if again { entry.attempt + 1 } else { 0 };
        let retry =
            AGAIN.get(entry.attempt.wrapping_sub(1)).filter(|_| again).map(|wait| Instant::now() + *wait);
        let due = entry.due.into_iter().chain(retry).min();
        entry.due = due;
        match due {
            Some(at) => drop(self.due.insert((at, key.to_owned()))),
            None => drop(self.entries.remove(key)),
        }
    }
}

impl Inner {
    /// Whether an allocation file, of which this was just read, was there until a moment ago.
    fn is_vanishing(&self, id: AllocationId, claim: &Claim) -> bool {
        let mut files = lock(&self.files);
        if matches!(claim, Claim::Allocation { .. }) {
            files.insert(id, None);
        }
        let (Claim::None, Some(vanished)) = (claim, files.get_mut(&id)) else { return false };
        let is_vanishing = vanished.get_or_insert_with(Instant::now).elapsed() < VANISHED;
        if !is_vanishing {
            files.remove(&id);
        }
        is_vanishing
    }
}

impl Listener for Inner {
    fn dirty(&self, key: &Path) {
        let is_root = lock(&self.roots).as_ref().is_some_and(|roots| roots.changed(key));
        if !is_root {
            lock(&self.queue).mark(key, Instant::now() + GATHER);
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
        *lock(&self.0.roots) = Some(listener);
    }

    /// The repositories that are polled.
    pub fn polled(&self) -> HashSet<PathBuf> {
        lock(&self.0.polled).clone()
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
        lock(&self.0.queue).mark(common_dir, Instant::now());
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
            let mut queue = lock(&self.0.queue);
            queue.mark(common_dir, Instant::now());
            if let Some(entry) = queue.entries.get_mut(common_dir) {
                entry.waiters.push(done);
                entry.root_hint = main_root.or(entry.root_hint.take());
                entry.learn |= learn;
            }
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
            while let Some(due) = { lock(&self.0.queue).take(Instant::now()) } {
                let this = self.clone();
                tokio::spawn(async move {
                    let Due { key, root_hint, learn, waiters } = due;
                    let span = info_span!("reconcile", repository = %key.display());
                    let result = this.look(&key, root_hint, learn).instrument(span).await;
                    let again = *result.as_ref().unwrap_or(&true);
                    if again {
                        this.distrust(&key);
                    }
                    lock(&this.0.queue).finish(&key, again);
                    this.0.wake.notify_one();
                    for waiter in waiters {
                        // The client may have hung up.
                        drop(waiter.send(result.clone().map(drop)));
                    }
                });
            }
            let next = lock(&self.0.queue).due.first().map(|(at, _)| *at);
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

    /// Looks for changes that no event told of: at all repositories every `resync` and after an overflow, at those
    /// that can't be watched every two seconds. Until the future is dropped.
    pub async fn sweep(&self, mut resync: watch::Receiver<Duration>) {
        let mut last_resync = Instant::now();
        loop {
            let next_resync = last_resync + *resync.borrow_and_update();
            let polling = !lock(&self.0.polled).is_empty();
            let wake_at = if polling { next_resync.min(Instant::now() + POLL) } else { next_resync };
            let everywhere = tokio::select! {
                () = self.0.overflowed.notified() => true,
                Ok(()) = resync.changed() => continue,
                () = tokio::time::sleep_until(wake_at) => Instant::now() >= next_resync,
            };
            if everywhere {
                last_resync = Instant::now();
                if self.0.lost_events.swap(false, Ordering::AcqRel) {
                    self.renew_watches().await;
                    if let Some(roots) = &*lock(&self.0.roots) {
                        roots.all_changed();
                    }
                }
                for key in self.polled() {
                    self.mark(&key);
                }
                let all: Vec<PathBuf> = watched_common_dirs(&self.0.writer.glance());
                self.mark_changed(all).await;
                let ledger = self.0.writer.snapshot().ledger.clone();
                lock(&self.0.files).retain(|id, _| ledger.allocation(*id).is_some());
                self.notice_stale();
            } else {
                self.mark_changed(self.polled().into_iter().collect()).await;
            }
        }
    }

    async fn renew_watches(&self) {
        let this = self.clone();
        let renew = move || {
            for key in this.watches().map(Watches::renew).unwrap_or_default() {
                this.0.dirty(&key);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(renew).await {
            warn!(error = &error as &dyn std::error::Error, "watches not renewed");
        }
    }

    /// Marks those of the repositories that are not as they were when last looked at. Opens no file: a look at
    /// thousands of worktrees would overflow the event queue by itself.
    pub async fn mark_changed(&self, common_dirs: Vec<PathBuf>) {
        let this = self.clone();
        let compare = move || {
            for common_dir in common_dirs {
                let before = lock(&this.0.looks).get(&common_dir).map(|last| last.fingerprint.clone());
                if before.is_none_or(|before| before.racy || before.again() != before)
                    || this.env_files_differ(&common_dir)
                {
                    this.mark(&common_dir);
                }
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(compare).await {
            warn!(error = &error as &dyn std::error::Error, "sweep failed");
        }
    }

    /// Whether a file that is kept for a worktree of the repository was deleted or changed.
    fn env_files_differ(&self, common_dir: &Path) -> bool {
        !self.0.env_files.is_empty()
            && self
                .0
                .writer
                .glance()
                .ledger
                .at_common_dir(common_dir)
                .is_some_and(|known| self.0.env_files.differ(known.id))
    }

    /// What the last look at a repository saw is not recorded, or not all that there is: the next sweep looks again,
    /// whether anything has changed or not.
    fn distrust(&self, key: &Path) {
        if let Some(last) = lock(&self.0.looks).get_mut(key) {
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
            tokio::task::spawn_blocking(move || this.observe(&common_dir, root_hint.as_deref(), permit)).await
        };
        let Ok(observation) = observed else { return Err(WriteError::ShuttingDown) };
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

    /// Makes the allocation files of a repository, of which this was just read, say what the registry says.
    fn write_files(
        &self,
        key: &Path,
        files: Vec<(AllocationId, Claim)>,
        before: &Snapshot,
        after: &Snapshot,
    ) {
        // One that vanished may be the first of all the files that somebody is deleting, whom a new one would be in the
        // way of.
        let (vanishing, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(id, claim)| self.0.is_vanishing(*id, claim));
        if !vanishing.is_empty() {
            lock(&self.0.queue).mark(key, Instant::now() + VANISHED);
        }
        // A file that was right at the last look, and is as it was, is right. One that isn't there never is.
        let is_settled = |id, claim: &Claim| {
            matches!(claim, Claim::Allocation { .. })
                && before.sighting(id).is_some_and(|last| last.claim == *claim)
                && matches!((before.ledger.allocation(id), after.ledger.allocation(id)), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
        };
        let to_write: Vec<(&Arc<Allocation>, &Claim)> = files
            .iter()
            .filter(|(id, claim)| !is_settled(*id, claim))
            .filter_map(|(id, claim)| Some((after.ledger.allocation(*id)?, claim)))
            .collect();
        if to_write.is_empty() {
            return;
        }
        let write = |(allocation, claim): (&Arc<Allocation>, &Claim)| {
            let is_written = allocation_file::write(allocation, claim);
            if is_written {
                lock(&self.0.files).insert(allocation.id, None);
            }
            is_written
        };
        let written = tokio::task::block_in_place(|| to_write.iter().filter(|pair| write(**pair)).count());
        if written < to_write.len() {
            // The disk may be full. Nothing is lost without the file, so there is no hurry.
            self.distrust(key);
        }
    }

    /// Stops all watching and polling of a repository.
    pub fn forget(&self, common_dir: &Path) {
        if let Some(watches) = self.watches() {
            watches.remove(common_dir);
        }
        lock(&self.0.polled).remove(common_dir);
        lock(&self.0.looks).remove(common_dir);
        lock(&self.0.hung).remove(common_dir);
    }

    /// Asks git which worktrees a repository has; none when it has to be asked later.
    fn ask_git(&self, common_dir: &Path) -> Option<Listing> {
        let hung = lock(&self.0.hung).get(common_dir).copied();
        if hung.is_some_and(|at| at.elapsed() < RESPITE) {
            return Some(Err(AskError::Timeout));
        }
        let _asking = self.0.asking.try_acquire().ok()?;
        let answer = ask::worktree_paths(common_dir);
        if matches!(answer, Err(AskError::Timeout)) {
            lock(&self.0.hung).insert(common_dir.to_owned(), Instant::now());
        } else {
            lock(&self.0.hung).remove(common_dir);
        }
        Some(answer)
    }

    /// Watches, then reads, and reads again whenever reading showed something more to watch. Blocks.
    fn observe(
        &self,
        common_dir: &Path,
        root_hint: Option<&Path>,
        permit: OwnedSemaphorePermit,
    ) -> Observation {
        let permit = Cell::new(Some(permit));
        // git can be kept waiting by what a repository holds, and then must keep nobody else waiting.
        let ask_git = |common_dir: &Path| {
            drop(permit.take());
            self.ask_git(common_dir)
        };
        let snapshot = self.0.writer.snapshot();
        // A repository that was moved is known by its common dir's identity.
        let moved_here = || snapshot.ledger.repository_of(files::identity(common_dir).ok()?);
        let repository = snapshot.ledger.at_common_dir(common_dir).or_else(moved_here);
        let recorded: Vec<Recorded> = repository
            .map(|repository| snapshot.ledger.of_repository(repository.id))
            .into_iter()
            .flatten()
            .filter(|allocation| allocation.is_live())
            .map(|allocation| as_recorded(allocation))
            .collect();
        let root_hint = root_hint.map(Path::to_owned).or_else(|| repository?.main_root.clone());
        let memory =
            lock(&self.0.looks).get(common_dir).map(|last| Arc::clone(&last.memory)).unwrap_or_default();
        let mut request = ObserveRequest {
            common_dir: common_dir.to_owned(),
            root_hint,
            recorded,
            memory,
            claims: &|id| snapshot.ledger.allocation(id).map(|allocation| as_recorded(allocation)),
            load_project: &project_file::load,
            ask_git: &ask_git,
        };
        // What is known to be needed is watched before the first read, which then mostly is the only one.
        let watches = self.watches();
        if let Some(watches) = watches
            && !watches.are_set(common_dir)
        {
            watches.set(common_dir, first_watches(&request));
        }
        let mut look = observe(&request);
        let mut complete = false;
        for _ in 0..ROUNDS {
            let wanted = || wanted_watches(&look.observation, &request.recorded);
            let Some(set) = watches.map(|watches| watches.set(common_dir, wanted())) else {
                break;
            };
            complete = set.complete;
            if !set.added {
                break;
            }
            request.memory = Arc::new(look.memory);
            look = observe(&request);
        }
        if complete {
            lock(&self.0.polled).remove(common_dir);
        } else if lock(&self.0.polled).insert(common_dir.to_owned()) {
            // The sweep has to learn that there is something to poll.
            self.0.overflowed.notify_one();
        }
        let Look { observation, fingerprint, memory } = look;
        let last = LastLook { fingerprint, memory: Arc::new(memory) };
        lock(&self.0.looks).insert(common_dir.to_owned(), last);
        observation
    }
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

/// The watches that a repository is known to need before it is looked at for the first time.
fn first_watches(request: &ObserveRequest<'_>) -> BTreeSet<(PathBuf, Role)> {
    let mut wanted = BTreeSet::from([(request.common_dir.clone(), Role::CommonDir)]);
    wanted.extend(worktrees_dir(&request.common_dir));
    wanted.extend(request.root_hint.clone().map(|root| (root, Role::Root)));
    for known in &request.recorded {
        if !known.main {
            wanted.insert((known.git_dir.clone(), Role::GitDir));
        }
        wanted.insert((known.path.clone(), Role::Root));
    }
    wanted
}

fn worktrees_dir(common_dir: &Path) -> Option<(PathBuf, Role)> {
    let worktrees = common_dir.join("worktrees");
    worktrees.is_dir().then_some((worktrees, Role::Worktrees))
}

/// The watches that tell of every change to what was observed.
fn wanted_watches(observation: &Observation, recorded: &[Recorded]) -> BTreeSet<(PathBuf, Role)> {
    let common_dir = &observation.common_dir;
    let awaiting =
        |path: &Path| interest::nearest_above(path).map(|(above, name)| (above, Role::Awaiting(name)));
    let mut wanted = BTreeSet::new();
    match &observation.repository {
        ObservedRepository::Present { main, linked, .. } => {
            wanted.insert((common_dir.clone(), Role::CommonDir));
            wanted.extend(worktrees_dir(common_dir));
            let is_known = |worktree: &ObservedWorktree| {
                matches!(worktree.presence, Presence::Present { .. })
                    || recorded.iter().any(|known| known.git_dir == worktree.git_dir)
            };
            let mut strangers = 0;
            for worktree in main.iter().chain(linked) {
                if !is_known(worktree) {
                    strangers += 1;
                    if strangers > STRANGERS {
                        continue;
                    }
                }
                if worktree.id.is_some() {
                    wanted.insert((worktree.git_dir.clone(), Role::GitDir));
                }
                match worktree.presence {
                    Presence::Present { .. } | Presence::Foreign | Presence::Unknown(_) => {
                        wanted.insert((worktree.path.clone(), Role::Root));
                    }
                    Presence::Missing { .. } if worktree.path.is_dir() => {
                        wanted.insert((worktree.path.clone(), Role::Root));
                    }
                    Presence::Missing { .. } => wanted.extend(awaiting(&worktree.path)),
                }
            }
            // Directories that git has no entry for any more: once they are gone too, nothing is left of the worktree.
            let unlisted = recorded.iter().filter(|known| observation.absences.contains_key(&known.id));
            for known in unlisted.filter(|known| known.path.is_dir()) {
                wanted.insert((known.path.clone(), Role::Root));
            }
        }
        // One that is restored file by file, or made again.
        ObservedRepository::Gone if common_dir.is_dir() => {
            let parts = ["HEAD", "objects", "refs"].map(|name| Role::Awaiting(name.into()));
            wanted.extend(parts.map(|part| (common_dir.clone(), part)));
        }
        ObservedRepository::Gone => wanted.extend(awaiting(common_dir)),
        ObservedRepository::Unknown(_) => {
            wanted.insert((common_dir.clone(), Role::CommonDir));
        }
    }
    wanted
}
