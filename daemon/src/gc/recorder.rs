//! Notes which container engine is there while an allocation lives, and which volumes it has then: gc drops a volume only
//! on an engine that was there, and only if it was not there before.
//!
//! It follows allocations and never holds one up.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::debug;
use wtd_protocol::State;

use crate::domain::allocation::Allocation;
use crate::domain::draft::Record;
use crate::domain::gc::made_after::{is_there, names_to_look_for};
use crate::domain::gc::{EngineId, Look};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::{Ledger, LedgerChange};
use crate::engine::{Connection, Engine, EngineError};
use crate::registry::writer::now;
use crate::registry::{Decision, Writer};
use crate::store::History;

/// The least time between two looks: many allocations are looked after together.
const PAUSE: Duration = Duration::from_millis(20);

/// How long an engine is taken for the one that it was, without being asked.
const SURE: Duration = Duration::from_secs(5);

/// What is recorded already.
#[derive(Debug, Default)]
struct Known {
    /// The engine that was there, and when it said so.
    connection: Option<(Connection, Instant)>,
    /// The names that were looked for there, for each allocation.
    names: HashMap<AllocationId, Vec<String>>,
    /// The ledger that `wanting` goes by.
    ledger: Ledger,
    /// The allocations that live and have names which were not looked for.
    wanting: BTreeSet<AllocationId>,
}

/// Looks at the engine whenever an allocation was made or has other names, and every `resync`, for it may have been
/// started, or be another one. Until the future is dropped.
pub async fn run(
    writer: &Writer,
    history: &History,
    engine: &Engine,
    mut resyncs: watch::Receiver<Duration>,
) {
    let mut changes = writer.subscribe();
    let mut known = Known::default();
    let mut is_due = true;
    loop {
        if engine.is_configured_away() {
            known = Known::default();
        } else {
            let wanting = known.wanting(writer);
            if is_due || !wanting.is_empty() {
                match known.look(writer, history, engine, wanting).await {
                    Ok(()) => {}
                    Err(why) => debug!(why, "the container engine is not recorded yet"),
                }
            }
        }
        tokio::time::sleep(PAUSE).await;
        let resync = *resyncs.borrow();
        is_due = tokio::select! {
            () = tokio::time::sleep(resync) => true,
            Ok(()) = resyncs.changed() => true,
            change = changes.recv() => match change {
                Ok(_) | Err(RecvError::Lagged(_)) => false,
                Err(RecvError::Closed) => return,
            },
        };
    }
}

impl Known {
    /// The allocations that live and have names which were not looked for.
    fn wanting(&mut self, writer: &Writer) -> Vec<Arc<Allocation>> {
        let ledger = writer.snapshot().ledger.clone();
        for change in ledger.changes_since(&self.ledger) {
            match change {
                LedgerChange::Put(allocation) => {
                    let is_complete = self
                        .names
                        .get(&allocation.id)
                        .is_some_and(|names| *names == names_to_look_for(allocation));
                    if allocation.state == State::Active && !is_complete {
                        self.wanting.insert(allocation.id);
                    } else {
                        self.wanting.remove(&allocation.id);
                    }
                }
                LedgerChange::Removed(id) => {
                    self.wanting.remove(&id);
                    self.names.remove(&id);
                }
            }
        }
        self.ledger = ledger;
        self.wanting.iter().filter_map(|id| self.ledger.allocation(*id)).cloned().collect()
    }

    /// Takes these names for all that were looked for.
    fn begin_anew(&mut self, names: HashMap<AllocationId, Vec<String>>) {
        *self = Self { connection: self.connection.take(), names, ..Self::default() };
    }

    /// One look at the engine, and its record.
    async fn look(
        &mut self,
        writer: &Writer,
        history: &History,
        engine: &Engine,
        mut wanting: Vec<Arc<Allocation>>,
    ) -> Result<(), String> {
        let failed = |error: EngineError| error.to_string();
        let at = now();
        // The list first, then which engine it is: a volume that is made meanwhile must not pass for an old one.
        let early = match &self.connection {
            Some((connection, _)) => connection.volumes().await.ok(),
            None => None,
        };
        let is_sure =
            self.connection.as_ref().is_some_and(|(_, said)| said.elapsed() < SURE) && early.is_some();
        let opened = if is_sure { None } else { Some(engine.open().await.map_err(failed)?) };
        let (connection, said) = match (opened, self.connection.clone()) {
            (None, Some(last)) => last,
            (Some(Some(connection)), _) => (connection, Instant::now()),
            (Some(None) | None, _) => {
                *self = Self::default();
                return Ok(());
            }
        };
        let is_same = self
            .connection
            .as_ref()
            .is_some_and(|(last, _)| last.id() == connection.id() && last.host() == connection.host());
        let volumes = match early.filter(|_| is_same) {
            Some(volumes) => volumes,
            None => connection.volumes().await.map_err(failed)?,
        };
        if !is_same {
            self.begin_anew(recorded(writer, history, connection.id()).await?);
            wanting = self.wanting(writer);
        }
        let looks: Vec<(Arc<Allocation>, Arc<Look>)> = wanting
            .into_iter()
            .map(|allocation| {
                let names: BTreeMap<String, bool> = names_to_look_for(&allocation)
                    .into_iter()
                    .map(|name| (name.clone(), is_there(&allocation, &name, &volumes)))
                    .collect();
                let (engine, host) = (connection.id().clone(), connection.host().to_string());
                (allocation, Arc::new(Look { engine, host, at, names }))
            })
            .collect();
        let records: Vec<Record> = looks
            .iter()
            .map(|(allocation, look)| Record::Look { allocation: allocation.id, look: Arc::clone(look) })
            .collect();
        if !records.is_empty() {
            let step = writer.commit(move |ledger, _| {
                // It lived when the engine was looked at, whatever has become of it since.
                let is_known = |record: &Record| {
                    matches!(record, Record::Look { allocation, .. } if ledger.allocation(*allocation).is_some())
                };
                let records = records.into_iter().filter(is_known).collect();
                Ok((Some(Decision { ledger: ledger.clone(), records, seen: None }), ()))
            });
            step.await.map_err(|error| error.to_string())?;
        }
        for (allocation, _) in &looks {
            self.names.insert(allocation.id, names_to_look_for(allocation));
            self.wanting.remove(&allocation.id);
        }
        self.connection = Some((connection, said));
        Ok(())
    }
}

/// What the registry has of looks at this engine.
async fn recorded(
    writer: &Writer,
    history: &History,
    engine: &EngineId,
) -> Result<HashMap<AllocationId, Vec<String>>, String> {
    let live: Vec<Arc<Allocation>> = writer.snapshot().ledger.in_state(State::Active).cloned().collect();
    let ids: Vec<AllocationId> = live.iter().map(|allocation| allocation.id).collect();
    let looks = history.looks(&ids).await.map_err(|error| error.to_string())?;
    let is_complete = |allocation: &&Arc<Allocation>| {
        let here =
            looks.get(&allocation.id).and_then(|looks| looks.iter().find(|look| look.engine == *engine));
        here.is_some_and(|look| {
            names_to_look_for(allocation).iter().all(|name| look.names.contains_key(name))
        })
    };
    Ok(live
        .iter()
        .filter(is_complete)
        .map(|allocation| (allocation.id, names_to_look_for(allocation)))
        .collect())
}
