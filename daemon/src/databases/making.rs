//! Makes what worktrees are to have on servers, again and again until it is there.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{info, warn};
use wtd_protocol::State;

use super::{ASKED, DatabaseError, Databases, Existing, Server};
use crate::domain::allocation::Allocation;
use crate::domain::database_objects::{DatabaseObject, Stage};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::registry::WriteError;

/// How long is waited after each attempt that failed. After the last the next is made with the sweep, or when somebody
/// asks for the worktree.
const PAUSES: [Duration; 7] = [
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(20),
    Duration::from_secs(40),
];

/// Why an attempt came to nothing.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Server(#[from] DatabaseError),
    #[error("{0}")]
    Registry(#[from] WriteError),
}

/// When the next attempt for a worktree is due.
#[derive(Debug, Clone, Copy)]
struct Retry {
    failed: usize,
    last: Instant,
    due: Instant,
}

impl Databases {
    /// Makes what worktrees are to have, as they come. Until the future is dropped.
    pub async fn run(&self, resync: watch::Receiver<Duration>) {
        let mut changes = self.0.writer.subscribe();
        let mut retries: HashMap<AllocationId, Retry> = HashMap::new();
        let mut running: JoinSet<(AllocationId, Result<(), Failure>)> = JoinSet::new();
        self.doubt();
        loop {
            let wanting = self.wanting();
            let ids: HashSet<_> = wanting.iter().map(|allocation| allocation.id).collect();
            retries.retain(|id, _| ids.contains(id));
            self.0.notes.lock().retain(|id, _| ids.contains(id));
            self.0.in_want.store(!ids.is_empty(), Ordering::Relaxed);
            let now = Instant::now();
            let is_due = |id: &AllocationId| retries.get(id).is_none_or(|retry| retry.due <= now);
            for allocation in wanting.into_iter().filter(|allocation| is_due(&allocation.id)) {
                if let Some(reservation) = self.reserve(allocation.id) {
                    let this = self.clone();
                    running.spawn(async move {
                        let made = this.make(&allocation).await;
                        drop(reservation);
                        (allocation.id, made)
                    });
                }
            }
            let next = retries.values().map(|retry| retry.due).filter(|due| *due > now).min();
            let at = next.unwrap_or(now);
            tokio::select! {
                // Whatever has changed, and however much was missed: the ledger says what is wanted now.
                _ = changes.recv() => {}
                () = self.0.wake.notified() => {
                    for retry in retries.values_mut() {
                        retry.due = retry.due.min(retry.last + ASKED);
                    }
                }
                () = tokio::time::sleep_until(at), if next.is_some() => {}
                Some(Ok((id, made))) = running.join_next(), if !running.is_empty() => match made {
                    Ok(()) => {
                        retries.remove(&id);
                    }
                    Err(failure) => {
                        let failed = retries.get(&id).map_or(0, |retry| retry.failed);
                        let pause = PAUSES.get(failed).copied().unwrap_or_else(|| *resync.borrow());
                        let last = Instant::now();
                        retries.insert(id, Retry { failed: failed + 1, last, due: last + pause });
                        self.say(id, &failure);
                    }
                },
            }
        }
    }

    /// The worktrees whose database or schema is to be made, or looked for again.
    fn wanting(&self) -> Vec<Arc<Allocation>> {
        let snapshot = self.0.writer.snapshot();
        let mut doubted = self.0.doubted.lock();
        doubted
            .retain(|id| snapshot.ledger.allocation(*id).is_some_and(|known| known.state == State::Active));
        let mut wanting: Vec<_> = snapshot.ledger.in_want().cloned().collect();
        let again = doubted.iter().filter_map(|id| snapshot.ledger.allocation(*id)).cloned();
        wanting.extend(again.filter(|allocation| allocation.has_wanted_object()));
        wanting
    }

    fn say(&self, id: AllocationId, failure: &Failure) {
        let snapshot = self.0.writer.snapshot();
        let Some(allocation) = snapshot.ledger.allocation(id) else { return };
        let Some(wanted) = allocation.wanted_object() else { return };
        let note = format!("{wanted} is not there yet: {failure}");
        let mut notes = self.0.notes.lock();
        if notes.get(&id) != Some(&note) {
            warn!(worktree = %allocation.path.display(), reason = %failure, "database or schema not made");
            notes.insert(id, note);
        }
    }

    /// One attempt for one worktree.
    async fn make(&self, allocation: &Allocation) -> Result<(), Failure> {
        let Ok(_permit) = self.0.permits.acquire().await else { return Err(WriteError::ShuttingDown.into()) };
        let is_doubted = self.0.doubted.lock().remove(&allocation.id);
        let made = self.make_now(allocation).await;
        // What was made once is only to be said to be gone by a server that answers.
        if is_doubted && allocation.has_wanted_object() && made.is_err() { Ok(()) } else { made }
    }

    async fn make_now(&self, allocation: &Allocation) -> Result<(), Failure> {
        let (Some(name), Some(port)) = (allocation.wanted_object(), allocation.database_port()) else {
            return Ok(());
        };
        let place = self.place(allocation.id, move |environment, url| environment.place(url, port)).await?;
        let database = match &name.schema {
            Some(_) => name.database.as_str(),
            None => place.maintenance_database(),
        };
        let mut server = Server::connect(&place, database).await?;
        let object = DatabaseObject {
            name,
            server: server.identifier,
            address: server.address.clone(),
            stage: Stage::Intended,
        };
        let made = self.make_on(&mut server, allocation, object).await;
        server.close().await;
        made
    }

    async fn make_on(
        &self,
        server: &mut Server,
        allocation: &Allocation,
        object: DatabaseObject,
    ) -> Result<(), Failure> {
        let (id, name) = (allocation.id, object.name.clone());
        let made = match server.existing(id, &name).await? {
            Existing::Ours => Ok(()),
            // Of what somebody else has, a row says so; nothing is intended with it.
            Existing::Foreign => Err(server.foreign(&name)),
            Existing::Absent => {
                if !self.record(id, object.clone()).await?.0 {
                    return Ok(());
                }
                server.make(id, &name, allocation.template.as_ref()).await
            }
        };
        let stage = match &made {
            Ok(()) => Stage::Made,
            Err(DatabaseError::Foreign { .. }) => Stage::Foreign,
            Err(_) => return made.map_err(Failure::from),
        };
        let (_, is_news) = self.record(id, DatabaseObject { stage, ..object }).await?;
        if is_news && stage == Stage::Made {
            info!(worktree = %allocation.path.display(), object = %name, server = %server.address, "made");
        }
        made.map_err(Failure::from)
    }

    /// Records how far an object has come. An intent is recorded only while it is wanted. Whether it holds now, and
    /// whether that is news.
    async fn record(&self, id: AllocationId, object: DatabaseObject) -> Result<(bool, bool), WriteError> {
        let decide = move |ledger: &Ledger| {
            let Some(known) = ledger.allocation(id) else { return (None, (false, false)) };
            let is_wanted =
                known.state == State::Active && known.wanted_object().as_ref() == Some(&object.name);
            if object.stage == Stage::Intended && !is_wanted {
                return (None, (false, false));
            }
            let mut after = (**known).clone();
            after.objects.retain(|other| other.name != object.name || other.server != object.server);
            after.objects.push(object);
            let is_news = after.objects != known.objects;
            (is_news.then_some(after), (true, is_news))
        };
        self.change(decide).await
    }
}
