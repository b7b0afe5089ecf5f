//! The only writer of the registry.
//!
//! Steps are decided one after the other, each on the ledger that the one before has left, so two worktrees can't be
//! given one offset. All that wait are decided together and committed in one transaction: that is what makes a
//! durable allocation cheap when many come at once. Nobody hears of a step before it is committed.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::sync::{broadcast, mpsc, oneshot};
use tracing::{error, info};
use uuid::Uuid;
use wtd_protocol::Change;

use super::snapshot::Snapshot;
use crate::domain::allocation::Moment;
use crate::domain::allocator::Rules;
use crate::domain::draft::{Record, Surroundings};
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::{Ledger, Overlap};
use crate::domain::reconcile::{Sighting, Unallocated};
use crate::probe::PortProbe;
use crate::store::{Registry, StoreError};

/// How many steps are committed together at most.
const BATCH: usize = 128;

/// What a step came to.
#[derive(Debug)]
pub struct Decision {
    /// The ledger afterwards.
    pub ledger: Ledger,
    /// What is to be written.
    pub records: Vec<Record>,
    /// What was seen of a repository, if the step comes from an observation.
    pub seen: Option<(RepositoryId, Vec<Sighting>, Vec<Unallocated>)>,
}

/// Why a step was not recorded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// The registry could not be written; nothing of the step holds.
    #[error("{0}")]
    Store(Arc<StoreError>),
    /// The step would have broken a rule; a defect of the daemon.
    #[error("{0}")]
    Overlap(#[from] Overlap),
    /// The look that the step was to be decided on came to nothing; a defect of the daemon.
    #[error("the look at the repository panicked")]
    Panicked,
    /// The daemon is about to end.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

type Done = Box<dyn FnOnce(Result<(), WriteError>) + Send>;
type Step = Box<dyn FnOnce(&Ledger, &mut System) -> (Option<Decision>, Done) + Send>;

enum Message {
    Step(Step),
    /// Commit what came before, and end.
    Close,
}

/// A handle to the writer, and to what it publishes.
#[derive(Debug, Clone)]
pub struct Writer {
    steps: mpsc::Sender<Message>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: broadcast::Sender<Arc<Change>>,
}

impl Writer {
    /// Starts the writer. The task ends, and closes the registry, after [`Writer::close`].
    pub fn start(
        registry: Registry,
        ledger: Ledger,
        rules: Rules,
        probe: Option<Box<dyn PortProbe + Send>>,
    ) -> (Self, tokio::task::JoinHandle<Result<(), StoreError>>) {
        let (steps, waiting) = mpsc::channel(1024);
        let (changes, _) = broadcast::channel(1024);
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::new(ledger)));
        let writer = Self { steps, snapshot: Arc::clone(&snapshot), changes: changes.clone() };
        let task = WriterTask { registry, waiting, snapshot, changes, system: System { rules, probe } };
        (writer, tokio::spawn(task.run()))
    }

    /// Has the writer end once what was sent to it before is committed.
    pub async fn close(&self) {
        // It has ended already, if nobody takes the message.
        drop(self.steps.send(Message::Close).await);
    }

    /// Resolves when the writer has ended, whatever the reason: nothing is recorded any more, and what is known gets old.
    pub async fn ended(&self) {
        self.steps.closed().await;
    }

    /// Has steps from now on decided by these rules and this probe. What an error says concerns other steps, unless the
    /// daemon is shutting down.
    pub async fn govern(
        &self,
        rules: Rules,
        probe: Option<Box<dyn PortProbe + Send>>,
    ) -> Result<(), WriteError> {
        self.commit(move |_, system| {
            *system = System { rules, probe };
            Ok((None, ()))
        })
        .await
    }

    /// The state after the last commit.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// The state after the last commit, for a look that does not outlive the current call.
    pub fn glance(&self) -> arc_swap::Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// Changes from now on.
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.changes.subscribe()
    }

    /// Decides a step on the current ledger and commits it. `decide` gives the decision (none: nothing is to be done)
    /// and a value for the caller.
    pub async fn commit<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&Ledger, &mut System) -> Result<(Option<Decision>, T), Overlap> + Send + 'static,
    ) -> Result<T, WriteError> {
        let (reply, answer) = oneshot::channel();
        let step: Step = Box::new(move |ledger, system| match decide(ledger, system) {
            Ok((decision, value)) => (
                decision,
                // Whoever asked may have gone away meanwhile; the step holds all the same.
                Box::new(move |committed| drop(reply.send(committed.map(|()| value)))),
            ),
            Err(overlap) => (None, Box::new(move |_| drop(reply.send(Err(overlap.into()))))),
        });
        self.steps.send(Message::Step(step)).await.map_err(|_| WriteError::ShuttingDown)?;
        answer.await.unwrap_or(Err(WriteError::ShuttingDown))
    }
}

/// The machine that steps are decided on.
pub struct System {
    rules: Rules,
    probe: Option<Box<dyn PortProbe + Send>>,
}

impl std::fmt::Debug for System {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("System").field("rules", &self.rules).field("probe", &self.probe.is_some()).finish()
    }
}

/// The wall clock. It dates records and is no input to any decision on what may be dropped.
pub fn now() -> Moment {
    let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Moment(i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX))
}

impl Surroundings for System {
    fn now(&self) -> Moment {
        now()
    }

    fn new_allocation_id(&mut self) -> AllocationId {
        AllocationId(Uuid::now_v7())
    }

    fn new_repository_id(&mut self) -> RepositoryId {
        RepositoryId(Uuid::now_v7())
    }

    fn listener(&mut self, port: u16, root: &std::path::Path) -> Option<String> {
        self.probe.as_ref()?.busy(port, root)
    }

    fn rules(&self) -> &Rules {
        &self.rules
    }
}

struct WriterTask {
    registry: Registry,
    waiting: mpsc::Receiver<Message>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    changes: broadcast::Sender<Arc<Change>>,
    system: System,
}

impl WriterTask {
    async fn run(mut self) -> Result<(), StoreError> {
        let mut messages = Vec::with_capacity(BATCH);
        let mut open = true;
        while open && self.waiting.recv_many(&mut messages, BATCH).await > 0 {
            let mut batch = Vec::with_capacity(messages.len());
            for message in messages.drain(..) {
                match message {
                    Message::Step(step) => batch.push(step),
                    Message::Close => open = false,
                }
            }
            self.commit(batch).await;
        }
        self.registry.close().await
    }

    async fn commit(&mut self, batch: Vec<Step>) {
        let mut next = Snapshot::clone(&self.snapshot.load());
        let mut records = Vec::new();
        let mut seen = Vec::new();
        let mut ledger = next.ledger.clone();
        // A probe asks the kernel, and now and then reads /proc.
        let done: Vec<Done> = tokio::task::block_in_place(|| {
            let decide = |step: Step| {
                let (decision, done) = step(&ledger, &mut self.system);
                if let Some(decision) = decision {
                    ledger = decision.ledger;
                    records.extend(decision.records);
                    seen.extend(decision.seen);
                }
                done
            };
            batch.into_iter().map(decide).collect()
        });
        let written = if records.is_empty() {
            Ok(Vec::new())
        } else {
            self.registry.write(&records, &ledger, now()).await
        };
        let result = match written {
            Ok(changes) => {
                next.advance(ledger, &records);
                for (repository, sightings, unallocated) in seen {
                    next.see(repository, sightings, unallocated);
                }
                self.snapshot.store(Arc::new(next));
                self.tell(changes);
                Ok(())
            }
            Err(error) => {
                error!(error = &error as &dyn std::error::Error, "registry not written");
                Err(WriteError::Store(Arc::new(error)))
            }
        };
        for done in done {
            done(result.clone());
        }
    }

    fn tell(&self, changes: Vec<Change>) {
        for change in changes {
            let allocation = &change.allocation;
            info!(
                kind = change.kind.as_str(),
                repository = %allocation.repository,
                worktree = %allocation.path,
                offset = allocation.offset,
                reason = %allocation.reason,
                "allocation changed"
            );
            // Nobody may be listening.
            drop(self.changes.send(Arc::new(change)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store;

    #[tokio::test(flavor = "multi_thread")]
    async fn a_writer_that_panics_is_known_to_have_ended() {
        let dir = tempfile::tempdir().unwrap();
        let registry = store::open(dir.path(), "a test").await.unwrap();
        let (writer, writing) = Writer::start(registry, Ledger::default(), Rules::default(), None);
        writer.commit(|_, _| Ok((None, ()))).await.unwrap();
        let failed = writer.commit::<()>(|_, _| panic!("a defect")).await;
        assert!(matches!(failed, Err(WriteError::ShuttingDown)));
        writer.ended().await;
        assert!(writing.await.unwrap_err().is_panic());
    }
}
