//! Filling a worktree's volumes with copies of another's.
//!
//! [`run`] carries out what `domain::seed` plans. Before anything is made the registry has the intent, and the volume a
//! label with its id; what has no end in the registry is half filled, and goes when it is found ([`Seeds::clean`]),
//! unless something else may have used it by then.
//! What was paused goes on, however late the engine paused it ([`pauses`]).
//! [`automatic`] does it for a worktree whose configuration asks for it.

mod automatic;
mod pauses;
mod run;

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, OwnedMutexGuard, mpsc, watch};
use tracing::{info, warn};
use wtd_protocol::seed::SeedEvent;
use wtd_protocol::{Problem, ProblemType, State};

use self::pauses::{Cleared, Pauses};
use crate::domain::allocation::Allocation;
use crate::domain::draft::Record;
use crate::domain::seed::{Copy, Question, Refusal, SEED_LABEL, Seeding, pairs, plan};
use crate::engine::{Connection, ContainerId, Engine, EngineError, Resumed, Since, open_all};
use crate::registry::{Decision, WriteError, Writer};
use crate::retry::Unended;
use crate::store::History;
use crate::{problem, retry};

/// How long a copy that a person asks for waits for one that is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the daemon's end waits until a copy is cleared away.
pub const CLEARING: Duration = Duration::from_secs(20);

/// What copying works with; clones are handles to the same.
#[derive(Debug, Clone)]
pub struct Seeds(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    writer: Writer,
    history: History,
    engine: Engine,
    running: Arc<Mutex<()>>,
    /// Whether the daemon is about to end.
    end: watch::Sender<bool>,
    pauses: Pauses,
    /// Told when a copy could not be cleared away at once.
    unended: Unended,
    /// Stands for the copies of this registry on an engine that others use too.
    owner: String,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Wish {
    /// The worktree that is copied.
    pub source: Arc<Allocation>,
    /// The worktree whose volumes are filled.
    pub target: Arc<Allocation>,
    /// The engine that is meant.
    pub engine: Engine,
    /// Every volume, not the database's alone.
    pub all: bool,
    /// Whether containers may be paused.
    pub may_pause: bool,
    /// Whether it waits until other copies have ended.
    pub waits: bool,
}

/// How a copy has ended that was made.
const DONE: &str = "done";

/// Why what is left of a copy can't be cleared away.
#[derive(Debug, thiserror::Error)]
enum UndoError {
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A container that is to go on is not paused, and may be yet.
    #[error("the engine has not said yet what became of pausing container {id:.12}", id = .0.as_str())]
    Unsettled(ContainerId),
    /// That it is done could not be recorded.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl Seeds {
    /// Copies for the registry at this path.
    pub fn new(writer: Writer, history: History, engine: Engine, registry: &Path) -> Self {
        // gc's own helpers go by another name: each clears away what it finds of its own.
        let owner = format!("{}seed", crate::gc::owner_of(registry));
        let (end, _) = watch::channel(false);
        let (running, pauses, unended) = (Arc::default(), Pauses::default(), Unended::default());
        Self(Arc::new(Parts { writer, history, engine, running, end, pauses, unended, owner }))
    }

    /// Begins to copy, and goes on as long as somebody hears of the events. One copy at a time.
    pub async fn begin(&self, wish: Wish) -> Result<mpsc::Receiver<SeedEvent>, Problem> {
        let lock = Arc::clone(&self.0.running).lock_owned();
        let lock = if wish.waits {
            lock.await
        } else {
            tokio::time::timeout(PATIENCE, lock)
                .await
                .map_err(|_| refused("another copy is under way", "wait until it has ended"))?
        };
        // By itself: a caller who goes away must not leave a container behind that only looked into a volume.
        let this = self.clone();
        tokio::spawn(async move { this.begin_alone(wish, lock).await })
            .await
            .map_err(|_| problem::shutting_down())?
    }

    /// Begins to copy while nothing else does.
    async fn begin_alone(
        &self,
        wish: Wish,
        lock: OwnedMutexGuard<()>,
    ) -> Result<mpsc::Receiver<SeedEvent>, Problem> {
        let connection =
            wish.engine.open().await.map_err(|error| problem::no_engine(&error))?.ok_or_else(|| {
                let (why, remedy) = wish.engine.wanted();
                refused(why, remedy)
            })?;
        let left = self.clean(&connection).await?;
        // One of a copy that has ended would count as using its volume.
        connection.remove_helpers(&self.0.owner).await.map_err(|error| problem::no_engine(&error))?;
        let copies = self.plan(&wish, &connection).await?;
        for copy in &copies {
            if let Some((_, why)) = left.iter().find(|(left, _)| is_in_the_way(left, copy)) {
                let remedy = match why {
                    UndoError::Unsettled(_) => "wait until it has, ten minutes at most, and seed again",
                    UndoError::Engine(_) | UndoError::Write(_) => {
                        "run `docker compose down` in the worktree, and seed it again"
                    }
                };
                return Err(refused(why.to_string(), remedy));
            }
        }
        let (events, heard) = mpsc::channel(16);
        let run = run::Run::new(self.clone(), wish, connection, events);
        tokio::spawn(async move {
            run.run(copies).await;
            drop(lock);
        });
        Ok(heard)
    }

    /// What is copied, and how. Nothing is when one of the volumes can't be filled.
    async fn plan(&self, wish: &Wish, connection: &Connection) -> Result<Vec<Copy>, Problem> {
        let failed = |error: EngineError| problem::no_engine(&error);
        let engine = connection.view().await.map_err(failed)?;
        let mut question = Question {
            source: &wish.source,
            target: &wish.target,
            engine: &engine,
            users: &HashMap::new(),
            all: wish.all,
            may_pause: wish.may_pause,
        };
        let mut users = HashMap::new();
        for source in pairs(&question).into_keys() {
            let found = connection.detailed_users(&source).await.map_err(failed)?;
            users.insert(source.to_string(), found);
        }
        question.users = &users;
        let copies =
            plan(&question).map_err(|refusal: Refusal| refused(refusal.to_string(), refusal.remedy()))?;
        for copy in &copies {
            if !self.is_still_empty(copy, connection).await.map_err(failed)? {
                return Err(self.not_empty(copy).await);
            }
        }
        Ok(copies)
    }

    /// Whether the volume that is to be made anew is the one that was seen, or is not there, and holds nothing.
    async fn is_still_empty(&self, copy: &Copy, connection: &Connection) -> Result<bool, EngineError> {
        let Some(existing) = &copy.existing else { return Ok(true) };
        let held = connection.hold(&copy.volume, true, &self.0.owner).await?;
        let is_empty = async {
            Ok(connection.is_still(existing, &copy.volume).await? && connection.is_empty(&held).await?)
        };
        let is_empty = is_empty.await;
        connection.let_go(held).await?;
        is_empty
    }

    /// The volume is not to be filled, for it holds something: perhaps what an interrupted copy left.
    async fn not_empty(&self, copy: &Copy) -> Problem {
        let id = copy.existing.as_ref().and_then(|existing| existing.labels.get(SEED_LABEL));
        let outcome = match id {
            Some(id) => self.0.history.outcome_of_seeding(id).await.ok().flatten(),
            None => None,
        };
        let why = match outcome.filter(|outcome| outcome != DONE) {
            Some(outcome) => format!("; it was begun to be seeded before, and that {outcome}"),
            None => String::new(),
        };
        Problem::new(
            ProblemType::VolumeExists,
            format!("volume {} is not empty{why}", copy.volume),
            format!(
                "nothing is ever copied over data; if it is not needed, `docker volume rm {}`, and seed again",
                copy.volume
            ),
        )
    }

    /// Clears away what copies left that did not live to end, as far as it is on this engine; gives those that could not
    /// be, each with the reason.
    async fn clean(&self, connection: &Connection) -> Result<Vec<(Seeding, UndoError)>, Problem> {
        let unended = self.0.history.unended_seedings().await.map_err(|error| {
            Problem::new(ProblemType::RegistryUnavailable, error.to_string(), "see `wtd-client doctor`")
        })?;
        let mut left = Vec::new();
        for seeding in unended.into_iter().filter(|it| it.engine == *connection.id()) {
            match self.undo(connection, &seeding, "was interrupted", Since::Before).await {
                Ok(None) => info!(volume = %seeding.volume, "half-filled volume removed"),
                Ok(Some(why)) => warn!(volume = %seeding.volume, why, "half-filled volume left as it is"),
                Err(why) => {
                    warn!(volume = %seeding.volume, why = %why, "a copy can't be cleared away yet");
                    left.push((seeding, why));
                }
            }
        }
        Ok(left)
    }

    /// Clears away a copy, and records that it has ended so; gives why the volume is left, for good, where it is. It is
    /// where a person's data may be in it: a container that is not ours uses it or has used it, be it gone again.
    async fn undo(
        &self,
        connection: &Connection,
        seeding: &Seeding,
        outcome: &str,
        since: Since,
    ) -> Result<Option<String>, UndoError> {
        // What is paused is somebody's work: it goes on, whatever becomes of the rest.
        let resumed = self.resume(connection, seeding).await;
        let cleared = match self.0.pauses.cleared(&seeding.id) {
            Some(cleared) => cleared,
            None => self.clear(connection, seeding, since).await?,
        };
        resumed?;
        let (outcome, kept) = match cleared {
            Cleared::Left(why) => (format!("{outcome}; it is left as it is: {why}"), Some(why)),
            Cleared::Away => (format!("{outcome}; what was there of it is removed"), None),
        };
        self.conclude(&seeding.id, &outcome).await?;
        Ok(kept)
    }

    /// Has what was paused for a copy go on; fails where something does not, or may be paused yet.
    async fn resume(&self, connection: &Connection, seeding: &Seeding) -> Result<(), UndoError> {
        let pauses = &self.0.pauses;
        let mut outcome = Ok(());
        for id in seeding.paused.iter().filter_map(|id| ContainerId::new(id)) {
            if !pauses.concerns(&seeding.id, &id) {
                continue;
            }
            match connection.resume(&id).await {
                Ok(Resumed::Now) => {
                    info!(container = id.as_str(), "a container that a copy had paused goes on");
                    pauses.resumed(&seeding.id, &id);
                }
                // What is gone is not paused any more, and will not be.
                Ok(Resumed::Gone) => continue,
                Ok(Resumed::Before) => {}
                Err(error) => outcome = Err(error.into()),
            }
            if outcome.is_ok() && pauses.is_open(&seeding.id, &id) {
                outcome = Err(UndoError::Unsettled(id));
            }
        }
        outcome
    }

    /// Removes what a copy has made, unless a person's data may be in it.
    async fn clear(
        &self,
        connection: &Connection,
        seeding: &Seeding,
        since: Since,
    ) -> Result<Cleared, UndoError> {
        connection.remove_helpers(&self.0.owner).await?;
        let volume = connection.volume(&seeding.volume).await?;
        let is_ours = volume.is_some_and(|volume| volume.labels.get(SEED_LABEL) == Some(&seeding.id));
        let kept = if is_ours {
            connection.remove_unused(&seeding.volume, &self.0.owner, since).await?
        } else {
            None
        };
        let cleared = kept.map_or(Cleared::Away, Cleared::Left);
        self.0.pauses.clear(&seeding.id, cleared.clone());
        Ok(cleared)
    }

    /// Clears away what could not be when its copy was given up.
    async fn look_again(&self, connection: &Connection) {
        let _lock = self.0.running.lock().await;
        // What fails is told of, and tried again.
        drop(self.clean(connection).await);
    }

    /// Records how a copy has ended.
    async fn conclude(&self, id: &str, outcome: &str) -> Result<(), WriteError> {
        retry::record(|| self.close(id, outcome)).await?;
        self.0.pauses.end(id);
        Ok(())
    }

    async fn close(&self, id: &str, outcome: &str) -> Result<(), WriteError> {
        let record = Record::Seeded { id: id.to_owned(), outcome: outcome.to_owned() };
        self.record(record, None).await.map(drop)
    }

    /// Records something; nothing when the allocation is not in use any more that it is `of`.
    async fn record(&self, record: Record, of: Option<&Allocation>) -> Result<bool, WriteError> {
        let of = of.map(|allocation| allocation.id);
        let step = self.0.writer.commit(move |ledger, _| {
            let is_live = |id| {
                ledger.allocation(id).is_some_and(|now| now.state == State::Active && now.ending.is_none())
            };
            let may = of.is_none_or(is_live);
            let decision = Decision { ledger: ledger.clone(), records: vec![record], seen: None };
            Ok((may.then_some(decision), may))
        });
        step.await
    }

    /// Ends a copy that is under way, and waits until it is cleared away: nothing stays paused while no daemon runs.
    pub async fn end(&self) {
        self.0.end.send_replace(true);
        // What can't be cleared away in this time goes with the next start.
        drop(tokio::time::timeout(CLEARING, self.0.running.lock()).await);
    }

    /// Waits until the daemon is about to end.
    async fn ending(&self) {
        // The sender lives as long as this does.
        drop(self.0.end.subscribe().wait_for(|ends| *ends).await);
    }

    /// Clears away what was interrupted, and copies for worktrees whose configuration asks for it. Until the future is
    /// dropped.
    pub async fn run(&self, resyncs: &watch::Receiver<Duration>) {
        tokio::join!(self.recover(resyncs), self.follow());
    }

    /// Clears away what an earlier process was interrupted at and what this one could not clear away, as soon as the engine
    /// answers.
    async fn recover(&self, resyncs: &watch::Receiver<Duration>) {
        self.0.unended.follow(resyncs, || self.is_all_cleared()).await;
    }

    /// Clears away what has not ended; true when nothing of that is left.
    async fn is_all_cleared(&self) -> bool {
        // A copy that is under way has not ended either, and is none of ours.
        let _lock = self.0.running.lock().await;
        match self.0.history.unended_seedings().await {
            Ok(unended) if unended.is_empty() => true,
            Ok(unended) => {
                let hosts: HashSet<String> = unended.into_iter().map(|seeding| seeding.host).collect();
                for connection in open_all(hosts).await {
                    // What fails is told of, and tried again.
                    drop(self.clean(&connection).await);
                }
                self.0.history.unended_seedings().await.is_ok_and(|unended| unended.is_empty())
            }
            Err(error) => {
                warn!(why = %error, "interrupted copies can't be read");
                false
            }
        }
    }
}

/// Whether what is left of an earlier copy is in this one's way.
fn is_in_the_way(left: &Seeding, copy: &Copy) -> bool {
    let is_paused = |(id, _): &(String, String)| left.paused.contains(id);
    left.volume == copy.volume || copy.users().iter().any(is_paused)
}

fn refused(detail: impl Into<String>, remedy: &str) -> Problem {
    Problem::new(ProblemType::SeedRefused, detail, remedy)
}
