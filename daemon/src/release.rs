//! Stale allocations of which nothing is left are released, so that their offsets can be given again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, warn};
use wtd_protocol::State;

use crate::databases::Databases;
use crate::domain::allocation::Allocation;
use crate::domain::draft::{Draft, Record, Surroundings, set_state};
use crate::domain::gc::belongings::left_overs;
use crate::domain::gc::made_after::names_to_look_for;
use crate::domain::gc::release::waits_for;
use crate::domain::gc::{EngineView, Look, Looks, looks_of};
use crate::domain::identity::AllocationId;
use crate::domain::restoring::Restoring;
use crate::engine::{Connection, Engine, Host, News};
use crate::reconciler::Reconciler;
use crate::registry::writer::now;
use crate::registry::{Decision, WriteError, Writer};
use crate::store::History;

/// The first and the longest pause before an engine is asked again that does not answer while something is stale.
const PAUSES: (Duration, Duration) = (Duration::from_secs(2), Duration::from_mins(1));

/// Whether it is heard what goes from the engine.
#[derive(Debug)]
enum Ear {
    /// It is.
    Open(News),
    /// The engine does not answer.
    Deaf,
    /// There is nothing to be heard: nothing waits for what goes, or there is no engine.
    Shut,
}

impl Ear {
    /// Begins to listen where it is not listened yet; gives the connection that was made for that.
    async fn open(self, engine: &Engine) -> (Self, Option<Connection>) {
        match self {
            Self::Open(news) if news.are_of(engine) => (Self::Open(news), None),
            _ => match News::of(engine).await {
                Ok(Some((news, connection))) => (Self::Open(news), Some(connection)),
                Ok(None) => (Self::Shut, None),
                Err(_) => (Self::Deaf, None),
            },
        }
    }

    /// Waits until it is time to look again: true when something has gone, false when nothing has been heard for as long
    /// as the pause.
    async fn hear(&mut self, pause: Duration) -> bool {
        match self {
            Self::Open(news) => {
                if news.next().await {
                    return true;
                }
            }
            Self::Deaf => {}
            Self::Shut => std::future::pending().await,
        }
        *self = Self::Deaf;
        tokio::time::sleep(pause).await;
        false
    }
}

/// What releasing takes; clones are handles to the same.
#[derive(Debug, Clone)]
pub struct Releaser {
    /// The registry's writer.
    pub writer: Writer,
    /// The reconciler: a worktree that found no offset is looked at again.
    pub reconciler: Reconciler,
    /// The registry's past.
    pub history: History,
    /// What worktrees have on database servers.
    pub databases: Databases,
}

impl Releaser {
    /// A releaser that works with these.
    pub fn new(writer: Writer, reconciler: Reconciler, history: History, databases: Databases) -> Self {
        Self { writer, reconciler, history, databases }
    }

    /// Releases what can be released whenever something may have become stale, at every sweep, and while something waits
    /// for that also whenever the engine says that something has gone. Events only say that it is time to look. Until the
    /// future is dropped.
    pub async fn run(&self, engine: &Engine) {
        let mut ear = Ear::Shut;
        let mut pause = PAUSES.0;
        loop {
            // Before the look, so that what goes after it is heard of.
            let connection;
            (ear, connection) = if self.is_awaiting() { ear.open(engine).await } else { (Ear::Shut, None) };
            self.release_by(engine, connection, true).await;
            if !self.is_awaiting() {
                (ear, pause) = (Ear::Shut, PAUSES.0);
            }
            tokio::select! {
                () = self.reconciler.stale() => {}
                heard = ear.hear(pause) => {
                    pause = if heard { PAUSES.0 } else { (pause * 2).min(PAUSES.1) };
                }
            }
        }
    }

    /// Whether an offset may be free as soon as something goes from the engine.
    fn is_awaiting(&self) -> bool {
        let ledger = &self.writer.glance().ledger;
        ledger.count(State::Stale) > 0 || ledger.restorings().any(|it| it.has_ended && it.offset.is_some())
    }

    /// Releases every stale allocation of which nothing is left. `is_own`: the engine is the daemon's own; another one,
    /// that a person named, has a say only on allocations that it was seen with.
    pub async fn release(&self, engine: &Engine, is_own: bool) {
        self.release_by(engine, None, is_own).await;
    }

    /// As [`Releaser::release`]; `connection`: one to this engine that has just been made.
    async fn release_by(&self, engine: &Engine, connection: Option<Connection>, is_own: bool) {
        let snapshot = self.writer.snapshot();
        let stale: Vec<Arc<Allocation>> = snapshot.ledger.in_state(State::Stale).cloned().collect();
        let restored = snapshot.ledger.restorings().filter(|it| it.has_ended).cloned().collect();
        if stale.is_empty() && Vec::is_empty(&restored) {
            return;
        }
        let there = match connection {
            Some(connection) => Ok(Some(connection)),
            None if engine.is_configured_away() => Ok(None),
            None => engine.open().await,
        };
        let bare = match there {
            Ok(there) => self.bare(&stale, restored, there, is_own).await,
            Err(error) => Err(error.to_string()),
        };
        match bare {
            Ok(bare) => self.end(bare, "nothing is left of it", false).await,
            // An engine that can't be asked may have anything.
            Err(why) => debug!(why, "stale allocations wait"),
        }
    }

    /// Those of the stale allocations of which nothing is left on any engine. Of restored volumes that are gone, that is
    /// recorded.
    async fn bare(
        &self,
        stale: &[Arc<Allocation>],
        restored: Vec<Arc<Restoring>>,
        there: Option<Connection>,
        is_own: bool,
    ) -> Result<Vec<Arc<Allocation>>, String> {
        let ids: Vec<AllocationId> = stale.iter().map(|allocation| allocation.id).collect();
        let looks = self.history.looks(&ids).await.map_err(|error| error.to_string())?;
        let Some(connection) = there else {
            // On a machine that has had none for as long as they lived, nothing can be left in one.
            return Ok(stale.iter().filter(|it| is_own && !looks.contains_key(&it.id)).cloned().collect());
        };
        let view = connection.view().await.map_err(|error| error.to_string())?;
        self.note_left_overs(stale, &looks, &view, connection.host()).await?;
        let mut answered = vec![view];
        answered.extend(others(&looks, &restored, &answered).await);
        let is_gone = |it: &Arc<Restoring>| {
            let engine = answered.iter().find(|view| view.id == it.engine);
            engine.is_some_and(|view| !view.volumes.iter().any(|volume| it.made(volume)))
        };
        let gone = restored.into_iter().filter(is_gone).collect();
        self.lose(gone).await.map_err(|error| error.to_string())?;
        let nothing = |allocation: &&Arc<Allocation>| {
            let looks = looks_of(&looks, allocation.id);
            match waits_for(allocation, looks, &answered) {
                Some(why) => {
                    debug!(worktree = %allocation.path.display(), why, "stale allocation waits");
                    false
                }
                None => true,
            }
        };
        let has_a_say = |allocation: &&Arc<Allocation>| is_own || looks.contains_key(&allocation.id);
        Ok(stale.iter().filter(has_a_say).filter(nothing).cloned().collect())
    }

    /// Records that these restored volumes are gone, so that the offsets that they led to are free.
    pub async fn lose(&self, gone: Vec<Arc<Restoring>>) -> Result<(), WriteError> {
        if gone.is_empty() {
            return Ok(());
        }
        let step = self.writer.commit(move |ledger, _| {
            let mut draft = Draft::new(ledger);
            for restored in &gone {
                draft.lose_restored(&restored.id);
            }
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        });
        step.await?;
        self.reconciler.mark_in_want();
        Ok(())
    }

    /// Records that this engine has something of allocations that it was not seen with while they lived: another engine's
    /// word that nothing is there must not release them.
    async fn note_left_overs(
        &self,
        stale: &[Arc<Allocation>],
        looks: &Looks,
        view: &EngineView,
        host: &Host,
    ) -> Result<(), String> {
        let is_news = |allocation: &&Arc<Allocation>| {
            let looks = looks_of(looks, allocation.id);
            let known = looks.iter().any(|it| it.engine == view.id);
            !known && !left_overs(allocation, looks, view).is_empty()
        };
        let at = now();
        let records: Vec<Record> = stale
            .iter()
            .filter(is_news)
            .map(|allocation| {
                // Since when it has them can't be told any more, so none of them is taken for the worktree's own.
                let names = names_to_look_for(allocation).into_iter().map(|name| (name, true)).collect();
                let look = Look { engine: view.id.clone(), host: host.to_string(), at, names };
                Record::Look { allocation: allocation.id, look: Arc::new(look) }
            })
            .collect();
        if records.is_empty() {
            return Ok(());
        }
        let step = self.writer.commit(move |ledger, _| {
            Ok((Some(Decision { ledger: ledger.clone(), records, seen: None }), ()))
        });
        step.await.map_err(|error| error.to_string())
    }

    /// Releases these stale allocations, if they are as they were when that was decided, and once nothing is left of them
    /// on a database server either. `on_word`: a person says that what does not answer is gone for good.
    pub async fn end(&self, stale: Vec<Arc<Allocation>>, reason: &'static str, on_word: bool) {
        let (on_servers, nowhere): (Vec<_>, Vec<_>) =
            stale.into_iter().partition(|allocation| !allocation.objects.is_empty());
        let mut released = self.commit(nowhere, reason).await;
        for allocation in on_servers {
            // Held until the release is recorded: nothing is made for it meanwhile.
            if let Some(_reservation) = self.databases.reserve_soon(allocation.id).await
                && self.databases.has_nothing_of(&allocation, on_word).await
            {
                released |= self.commit(vec![allocation], reason).await;
            }
        }
        if !released {
            return;
        }
        // Worktrees that found no offset have another chance now.
        self.reconciler.mark_in_want();
    }

    /// Records the release; true if any is released.
    async fn commit(&self, bare: Vec<Arc<Allocation>>, reason: &'static str) -> bool {
        if bare.is_empty() {
            return false;
        }
        let step = self.writer.commit(move |ledger, system| {
            let mut draft = Draft::new(ledger);
            for allocation in &bare {
                // Only as it was when the engine was asked: a worktree that came back has a right to its data.
                if ledger.allocation(allocation.id).is_some_and(|now| now == allocation) {
                    let mut after = (**allocation).clone();
                    set_state(&mut after, State::Released, reason, system.now());
                    draft.put(after)?;
                }
            }
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        });
        let committed = step.await;
        if let Err(error) = &committed {
            warn!(error = error as &dyn std::error::Error, "nothing released");
        }
        committed.is_ok()
    }
}

/// What the other engines have that were seen while these allocations lived, or that a volume was restored on, as far as
/// they answer where they were.
async fn others(looks: &Looks, restored: &[Arc<Restoring>], answered: &[EngineView]) -> Vec<EngineView> {
    let looked = looks.values().flatten().map(|look| (look.engine.clone(), look.host.clone()));
    let places = looked.chain(restored.iter().map(|it| (it.engine.clone(), it.host.clone())));
    let places: BTreeSet<_> =
        places.filter(|(engine, _)| answered.iter().all(|view| view.id != *engine)).collect();
    let mut views = Vec::new();
    for (id, host) in places {
        let Ok(host) = Host::new(&host) else { continue };
        if let Ok(connection) = Connection::open(host).await
            && *connection.id() == id
            && let Ok(view) = connection.view().await
        {
            views.push(view);
        }
    }
    views
}
