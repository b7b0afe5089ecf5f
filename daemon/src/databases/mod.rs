//! What worktrees have to themselves on a database server that they share: made in the background, level-triggered, and
//! never in the way of an answer.
//!
//! Each attempt looks at what is there and takes the next step, so an interruption at any moment costs nothing but
//! another attempt. The intent is in the registry before anything is on the server.

mod dropping;
mod error;
mod making;
mod place;
mod remains;
mod reservations;
mod server;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;
use wtd_protocol::State;

pub use dropping::Dropped;
pub use error::DatabaseError;
pub use place::{Environment, Place, PlaceError};
pub use remains::DropError;
pub use reservations::Reservation;
pub use server::{Existing, FoundDatabase, Server};

use self::reservations::Reservations;
use crate::domain::allocation::Allocation;
use crate::domain::database_objects::DatabaseObject;
use crate::domain::database_url::DatabaseUrl;
use crate::domain::draft::Draft;
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::project_file;
use crate::registry::{Decision, WriteError, Writer};

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
    /// Questions to servers that are under way: a server has connections for its own users first.
    questions: Semaphore,
    wake: Notify,
    /// Whether some worktree waits for its database; read with every answer.
    in_want: AtomicBool,
    /// Allocations that are worked for: nobody else touches what is theirs meanwhile.
    reserved: Reservations,
    /// Why the worktree's database or schema is not there, or may not be.
    notes: Mutex<HashMap<AllocationId, String>>,
    /// Allocations whose objects are looked for again although they were made.
    doubted: Mutex<HashSet<AllocationId>>,
    /// When servers were last asked what is left of stale allocations.
    asked: Mutex<HashMap<AllocationId, Instant>>,
}

impl Databases {
    /// The databases on servers that are found with this environment.
    pub fn new(writer: Writer, environment: Environment) -> Self {
        Self(Arc::new(Inner {
            writer,
            environment,
            permits: Semaphore::new(AT_ONCE),
            questions: Semaphore::new(AT_ONCE),
            wake: Notify::new(),
            in_want: AtomicBool::new(false),
            reserved: Reservations::default(),
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
        self.0.reserved.reserve(id)
    }

    /// As [`Databases::reserve`], once a look of somebody else has ended.
    pub async fn reserve_soon(&self, id: AllocationId) -> Option<Reservation> {
        self.0.reserved.reserve_soon(id).await
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
