//! What worktrees have to themselves on a database server that they share: made in the background, level-triggered, and
//! never in the way of an answer.
//!
//! Each attempt looks at what is there and takes the next step, so an interruption at any moment costs nothing but
//! another attempt. The intent is in the registry before anything is on the server.

mod dropping;
mod error;
mod place;
mod server;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::{debug, info, warn};
use wtd_protocol::State;

pub use dropping::Dropped;
pub use error::DatabaseError;
pub use place::{Environment, Place, PlaceError};
pub use server::{Existing, FoundDatabase, Server};

use crate::domain::allocation::Allocation;
use crate::domain::database_objects::{DatabaseObject, FoundObject, Stage};
use crate::domain::database_url::DatabaseUrl;
use crate::domain::draft::Draft;
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::project_file;
use crate::registry::{Decision, WriteError, Writer};

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

/// How soon after an attempt a question for a worktree leads to another one.
const ASKED: Duration = Duration::from_secs(2);

/// How many worktrees are worked for together: a copy keeps a disk busy.
const AT_ONCE: usize = 4;

/// The databases and schemas of worktrees; clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Databases(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    writer: Writer,
    environment: Environment,
    permits: Semaphore,
    wake: Notify,
    /// Whether some worktree waits for its database; read with every answer.
    in_want: AtomicBool,
    /// Allocations that are worked for: nobody else touches what is theirs meanwhile.
    reserved: Mutex<HashSet<AllocationId>>,
    /// Why the worktree's database or schema is not there, or may not be.
    notes: Mutex<HashMap<AllocationId, String>>,
    /// Allocations whose objects are looked for again although they were made.
    doubted: Mutex<HashSet<AllocationId>>,
    /// When servers were last asked what is left of stale allocations.
    asked: Mutex<HashMap<AllocationId, Instant>>,
}

/// The right to work on what an allocation has on a server, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    databases: Databases,
    id: AllocationId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.databases.0.reserved.lock().remove(&self.id);
    }
}

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
    /// The databases on servers that are found with this environment.
    pub fn new(writer: Writer, environment: Environment) -> Self {
        Self(Arc::new(Inner {
            writer,
            environment,
            permits: Semaphore::new(AT_ONCE),
            wake: Notify::new(),
            in_want: AtomicBool::new(false),
            reserved: Mutex::default(),
            notes: Mutex::default(),
            doubted: Mutex::default(),
            asked: Mutex::default(),
        }))
    }

    /// Somebody asks for a worktree: one that waits for its database may have waited long enough.
    pub fn asked(&self) {
        if self.0.in_want.load(Ordering::Relaxed) {
            self.0.wake.notify_one();
        }
    }

    /// Has everything looked for again that was made: a server can be made anew under our feet.
    pub fn doubt(&self) {
        let snapshot = self.0.writer.snapshot();
        let made = snapshot.ledger.in_state(State::Active).filter(|known| known.wanted_object().is_some());
        self.0.doubted.lock().extend(made.map(|allocation| allocation.id));
        self.0.wake.notify_one();
    }

    /// What there is to say of a worktree's database or schema: why it is not there.
    pub fn note(&self, id: AllocationId) -> Option<String> {
        self.0.notes.lock().get(&id).cloned()
    }

    /// Reserves what an allocation has on a server; none while somebody else works on it.
    pub fn reserve(&self, id: AllocationId) -> Option<Reservation> {
        self.0.reserved.lock().insert(id).then(|| Reservation { databases: self.clone(), id })
    }

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

    /// Records that nothing is there any more under an object's names.
    async fn record_gone(&self, id: AllocationId, object: DatabaseObject) -> Result<(), WriteError> {
        let decide = move |ledger: &Ledger| {
            let Some(known) = ledger.allocation(id).filter(|known| known.state == State::Stale) else {
                return (None, ());
            };
            let mut after = (**known).clone();
            after.objects.retain(|other| *other != object);
            (Some(after), ())
        };
        self.change(decide).await
    }

    async fn change<T: Send + 'static>(
        &self,
        decide: impl FnOnce(&Ledger) -> (Option<Allocation>, T) + Send + 'static,
    ) -> Result<T, WriteError> {
        self.0
            .writer
            .commit(move |ledger, _| {
                let (after, answer) = decide(ledger);
                let Some(after) = after else { return Ok((None, answer)) };
                let mut draft = Draft::new(ledger);
                draft.put(after)?;
                Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), answer))
            })
            .await
    }

    /// Whether servers say that nothing is left of a stale allocation. One that was just asked is not asked again.
    /// `on_word`: a person says that servers which can't be asked are gone for good.
    pub async fn has_nothing_of(&self, allocation: &Allocation, on_word: bool) -> bool {
        if on_word {
            let mut is_left = false;
            for object in &allocation.objects {
                let found = self.find(allocation.id, object).await;
                is_left |= found.is_ok_and(|found| !found.is_empty());
            }
            return !is_left;
        }
        if allocation.objects.is_empty() {
            return true;
        }
        let now = Instant::now();
        {
            let mut asked = self.0.asked.lock();
            asked.retain(|_, at| *at + ASKED > now);
            if asked.contains_key(&allocation.id) {
                return false;
            }
            asked.insert(allocation.id, now);
        }
        match self.left_of(allocation).await {
            Ok(left) => left.is_none(),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "stale allocation waits for its server");
                false
            }
        }
    }

    /// What is left of an allocation on servers, in words; an error where one can't say. What somebody else has under its
    /// name counts, since the worktree was told that name.
    pub async fn left_of(&self, allocation: &Allocation) -> Result<Option<String>, DatabaseError> {
        self.left_of_objects(allocation, |_| true).await
    }

    /// As [`Databases::left_of`], less what somebody else has.
    pub async fn own_left_of(&self, allocation: &Allocation) -> Result<Option<String>, DatabaseError> {
        self.left_of_objects(allocation, |object| object.stage != Stage::Foreign).await
    }

    async fn left_of_objects(
        &self,
        allocation: &Allocation,
        counts: impl Fn(&DatabaseObject) -> bool,
    ) -> Result<Option<String>, DatabaseError> {
        for object in allocation.objects.iter().filter(|object| counts(object)) {
            if let Some(found) = self.find(allocation.id, object).await?.first() {
                let kind = object.name.kind();
                return Ok(Some(format!("the {kind} {} on PostgreSQL at {}", found.name, object.address)));
            }
        }
        Ok(None)
    }

    /// What a server has under the names that are recorded for an object.
    pub async fn find(
        &self,
        id: AllocationId,
        object: &DatabaseObject,
    ) -> Result<Vec<FoundObject>, DatabaseError> {
        let Some(mut server) = self.server_of(id, object).await? else { return Ok(Vec::new()) };
        let found = server.find(id, object).await;
        server.close().await;
        found
    }

    /// What servers say of each of an allocation's objects. That nothing is left of one is recorded, where the allocation
    /// is stale.
    pub async fn ask(
        &self,
        allocation: &Allocation,
    ) -> Vec<(DatabaseObject, Result<Vec<FoundObject>, String>)> {
        let mut answers = Vec::new();
        for object in &allocation.objects {
            let reservation = self.reserve(allocation.id);
            let found = self.find(allocation.id, object).await;
            let is_gone = found.as_ref().is_ok_and(Vec::is_empty) && reservation.is_some();
            if is_gone && self.record_gone(allocation.id, object.clone()).await.is_ok() {
                continue;
            }
            answers.push((object.clone(), found.map_err(|error| error.to_string())));
        }
        answers
    }

    /// Drops what a server has under `name`, if the object's allocation is stale and it may be dropped. Once nothing is
    /// left under the object's names, that is recorded.
    pub async fn drop_object(
        &self,
        id: AllocationId,
        object: &DatabaseObject,
        name: &str,
    ) -> Result<Dropped, DropError> {
        let Some(_reservation) = self.reserve(id) else {
            return Err(DatabaseError::BeingMade { address: object.address.clone() }.into());
        };
        // From here on nothing is made for it.
        let snapshot = self.0.writer.snapshot();
        let is_stale = snapshot.ledger.allocation(id).is_some_and(|known| known.state == State::Stale);
        if !is_stale {
            return Err(DropError::Returned);
        }
        let Some(mut server) = self.server_of(id, object).await? else {
            self.record_gone(id, object.clone()).await?;
            return Ok(Dropped::Gone);
        };
        let dropped = server.drop_object(id, object, name).await;
        let left = match &dropped {
            Ok(Dropped::Dropped | Dropped::Gone) => server.find(id, object).await.ok(),
            _ => None,
        };
        server.close().await;
        if left.is_some_and(|left| left.is_empty()) {
            self.record_gone(id, object.clone()).await?;
        }
        Ok(dropped?)
    }

    /// Where an allocation's server is, for the daemon's environment and the URL of the project's configuration; that one is
    /// read when it is needed and kept nowhere, and counts only if a person has trusted it.
    async fn place(
        &self,
        id: AllocationId,
        find: impl FnOnce(&Environment, Option<&DatabaseUrl>) -> Result<Place, PlaceError> + Send + 'static,
    ) -> Result<Place, DatabaseError> {
        let this = self.clone();
        let look = move || {
            let snapshot = this.0.writer.snapshot();
            let url = snapshot.ledger.allocation(id).and_then(|allocation| {
                let repository = snapshot.ledger.repository(allocation.repository)?;
                let main_root = repository.main_root.as_deref();
                let project = project_file::load(&allocation.path, main_root, &repository.common_dir);
                let is_trusted = snapshot.ledger.trusted.allows(allocation.repository, &project);
                project.database_url.filter(|_| is_trusted)
            });
            find(&this.0.environment, url.as_ref())
        };
        let place = tokio::task::spawn_blocking(look).await.unwrap_or(Err(PlaceError::ShuttingDown));
        place.map_err(DatabaseError::from)
    }

    /// A session with the very server that has an object, in the database where its name means something; none when that
    /// database is gone, and a schema with it.
    async fn server_of(
        &self,
        id: AllocationId,
        object: &DatabaseObject,
    ) -> Result<Option<Server>, DatabaseError> {
        let address = object.address.clone();
        let place = self.place(id, move |environment, url| environment.place_at(url, &address)).await?;
        let maintenance = Server::connect(&place, place.maintenance_database()).await?;
        if maintenance.identifier != object.server {
            maintenance.close().await;
            return Err(DatabaseError::AnotherServer { address: object.address.clone() });
        }
        if object.name.schema.is_none() {
            return Ok(Some(maintenance));
        }
        maintenance.close().await;
        match Server::connect(&place, object.name.database.as_str()).await {
            Ok(server) if server.identifier == object.server => Ok(Some(server)),
            Ok(_) => Err(DatabaseError::AnotherServer { address: object.address.clone() }),
            Err(DatabaseError::NoDatabase { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Why something could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// The server failed, or can't be asked.
    #[error("{0}")]
    Server(#[from] DatabaseError),
    /// The registry could not be written.
    #[error("{0}")]
    Registry(#[from] WriteError),
    /// The worktree is not proven removed any more.
    #[error("its worktree is back")]
    Returned,
}
