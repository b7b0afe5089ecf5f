//! Carries out what a person was shown, one thing after the other.
//!
//! Before each thing: what is to be removed is recorded, git is asked twice, the engine is asked what it has now, and the
//! plan is made again from that. Whatever ends the process, or the engine, leaves what the next run begins with; an
//! offset is released by what the engine says, so never while a volume exists.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::info;
use wtd_protocol::gc::{GcAction, GcEvent, GcItem, GcKind, GcReport, GcStack};
use wtd_protocol::{PathText, Problem, State};

use super::survey::{Survey, created, look_again};
use super::{Gc, Wish, backup, engine_problem, proofs, report};
use crate::databases::{DropError, Dropped};
use crate::domain::allocation::Allocation;
use crate::domain::draft::{Draft, Record};
use crate::domain::gc::belongings::is_container_of;
use crate::domain::gc::objects::{ObjectItem, plan_objects};
use crate::domain::gc::plan::{Action, Item, Question, Stack, plan};
use crate::domain::gc::proof::Proof;
use crate::domain::gc::removal::Removal;
use crate::domain::gc::{EngineId, Looks, Volume};
use crate::domain::identity::AllocationId;
use crate::domain::names::VolumeName;
use crate::engine::{Connection, ContainerId, Removed};
use crate::registry::writer::now;
use crate::registry::{Decision, WriteError};

/// How long a listener may leave an event unread before nobody is taken to listen.
const UNHEARD: Duration = Duration::from_secs(10);

/// A run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    gc: &'a Gc,
    wish: Wish,
    survey: Survey,
    events: mpsc::Sender<GcEvent>,
}

/// Why a run ends before its end. What was done is recorded, and the rest is as it was.
#[derive(Debug)]
enum Stop {
    /// The person who asked is gone.
    Unheard,
    /// Something failed.
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Failed(crate::service::write_problem(&error))
    }
}

impl From<crate::engine::EngineError> for Stop {
    fn from(error: crate::engine::EngineError) -> Self {
        Self::Failed(engine_problem(&error))
    }
}

/// What came of one thing.
#[derive(Debug)]
enum Outcome {
    Dropped,
    Gone,
    /// Dropped, and there again.
    MadeAnew,
    Kept(String),
}

impl Outcome {
    fn text(&self) -> String {
        match self {
            Self::Dropped => "dropped".to_owned(),
            Self::Gone => "it was gone already".to_owned(),
            Self::MadeAnew => {
                "dropped, and made anew at that moment by something that started; the new one is kept"
                    .to_owned()
            }
            Self::Kept(why) => format!("kept: {why}"),
        }
    }
}

impl<'a> Run<'a> {
    pub(super) fn new(gc: &'a Gc, wish: Wish, survey: Survey, events: mpsc::Sender<GcEvent>) -> Self {
        Self { gc, wish, survey, events }
    }

    /// Does it all, and tells of it.
    pub(super) async fn run(mut self) {
        let mut report = report::of(&self.survey);
        self.choose(&mut report);
        info!(items = report.items.iter().filter(|item| item.action == GcAction::Drop).count(), "gc begins");
        match self.all(&mut report).await {
            Ok(()) => {}
            Err(Stop::Failed(problem)) => report.failure = Some(problem),
            Err(Stop::Unheard) => info!("gc ends: nobody listens any more"),
        }
        self.gc.release(&self.wish.engine).await;
        let snapshot = self.gc.writer().snapshot();
        for offset in &mut report.offsets {
            let held = snapshot.ledger.allocations().any(|it| it.id.to_string() == offset.allocation);
            offset.done = !held;
            if held && offset.action == GcAction::Drop {
                "something of it is left".clone_into(&mut offset.reason);
            }
        }
        info!(dropped = report.items.iter().filter(|item| item.done).count(), "gc ended");
        // Nobody may be listening.
        drop(self.events.send(GcEvent::Report(report)).await);
    }

    /// Leaves alone what was not shown.
    fn choose(&self, report: &mut GcReport) {
        let Some(only) = &self.wish.only else { return };
        let only: HashSet<&str> = only.iter().map(String::as_str).collect();
        report.items.retain(|item| only.contains(item.token.as_str()));
        report.stacks.retain(|stack| only.contains(stack.token.as_str()));
        report.offsets.retain(|offset| only.contains(offset.token.as_str()));
    }

    async fn all(&mut self, report: &mut GcReport) -> Result<(), Stop> {
        let is_chosen = |report: &GcReport, id: &str| {
            report.offsets.iter().any(|it| it.allocation == id && it.action == GcAction::Drop)
                || report.items.iter().any(|it| it.allocation == id && it.action == GcAction::Drop)
        };
        let given_up: Vec<Arc<Allocation>> = self
            .survey
            .offsets
            .iter()
            .map(|(allocation, _)| allocation)
            .filter(|it| it.state == State::Missing && is_chosen(report, &it.id.to_string()))
            .cloned()
            .collect();
        self.give_up(given_up).await?;
        for index in 0..report.items.len() {
            let Some(shown) = report.items.get_mut(index) else { continue };
            if shown.action == GcAction::Drop && shown.kind != GcKind::Volume {
                let ended = self.drop_object(shown).await;
                let tell = shown.clone();
                self.tell(GcEvent::Item(tell)).await?;
                ended?;
            }
        }
        if self.survey.asks_no_engine {
            return self.release_unasked(report).await;
        }
        let Some(connection) = self.survey.connection.clone() else { return Ok(()) };
        // A container of an earlier run that was killed would hold its volume for ever.
        connection.let_go_of_left_overs(&self.gc.0.owner).await?;
        for index in 0..report.stacks.len() {
            let Some(shown) = report.stacks.get_mut(index) else { continue };
            if shown.action == GcAction::Drop {
                self.take_down(&connection, shown).await?;
            }
        }
        for index in 0..report.items.len() {
            let Some(shown) = report.items.get_mut(index) else { continue };
            if shown.action == GcAction::Drop && shown.kind == GcKind::Volume {
                let ended = self.drop_item(&connection, shown).await;
                let tell = shown.clone();
                self.tell(GcEvent::Item(tell)).await?;
                ended?;
            }
        }
        Ok(())
    }

    /// Worktrees that are missing are given up on the person's word: from now on their allocations are stale.
    async fn give_up(&self, allocations: Vec<Arc<Allocation>>) -> Result<(), Stop> {
        if allocations.is_empty() {
            return Ok(());
        }
        let step = self.gc.writer().commit(move |ledger, _| {
            let mut draft = Draft::new(ledger);
            for allocation in &allocations {
                if ledger.allocation(allocation.id).is_some_and(|now| now == allocation) {
                    let mut after = (**allocation).clone();
                    // Since when it is missing stays: that is how long it has been gone.
                    after.state = State::Stale;
                    after.reason = format!("given up by a person (gc --missing): {}", allocation.reason);
                    draft.put(after)?;
                }
            }
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        });
        Ok(step.await?)
    }

    /// Releases offsets on the person's word.
    async fn release_unasked(&self, report: &GcReport) -> Result<(), Stop> {
        let chosen: HashSet<&str> = report
            .offsets
            .iter()
            .filter(|offset| offset.action == GcAction::Drop)
            .map(|offset| offset.allocation.as_str())
            .collect();
        let snapshot = self.gc.writer().snapshot();
        let stale: Vec<Arc<Allocation>> = snapshot
            .ledger
            .in_state(State::Stale)
            .filter(|it| chosen.contains(it.id.to_string().as_str()))
            .cloned()
            .collect();
        let reason = "released by a person (gc --no-engine)";
        self.gc.0.releaser.end(stale, reason, true).await;
        Ok(())
    }

    async fn tell(&self, event: GcEvent) -> Result<(), Stop> {
        match tokio::time::timeout(UNHEARD, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Unheard),
        }
    }

    /// Records something that is about to be removed, if its allocation is as it was planned for.
    async fn intend(&self, allocation: &Arc<Allocation>, removal: &Arc<Removal>) -> Result<bool, Stop> {
        let (allocation, removal) = (Arc::clone(allocation), Arc::clone(removal));
        let step = self.gc.writer().commit(move |ledger, _| {
            let is_gone = ledger.allocation(allocation.id).is_some_and(|now| now.state == State::Stale);
            let decision =
                Decision { ledger: ledger.clone(), records: vec![Record::Removal(removal)], seen: None };
            Ok((is_gone.then_some(decision), is_gone))
        });
        Ok(step.await?)
    }

    async fn record(&self, removal: &Arc<Removal>, outcome: String) -> Result<(), Stop> {
        let removal = Arc::clone(removal);
        let step = self.gc.writer().commit(move |ledger, _| {
            let records = vec![Record::Removed { removal, outcome }];
            Ok((Some(Decision { ledger: ledger.clone(), records, seen: None }), ()))
        });
        Ok(step.await?)
    }

    /// Drops a volume, if everything still speaks for it.
    async fn drop_item(&self, connection: &Connection, shown: &mut GcItem) -> Result<(), Stop> {
        let found = self.survey.plan.items.iter().find_map(|item| match &item.action {
            Action::Drop(name) if report::token_of_volume(item, connection.id()) == shown.token => {
                Some((item, name))
            }
            _ => None,
        });
        let Some((item, name)) = found else { return Ok(()) };
        self.tell(GcEvent::Begin { what: format!("dropping volume {name}") }).await?;
        let removal = Arc::new(Removal {
            allocation: item.allocation.id,
            engine: connection.id().clone(),
            kind: "volume",
            name: name.to_string(),
            detail: detail(&item.volume),
        });
        let first = self.gc.prove(&self.gc.writer().snapshot(), vec![Arc::clone(&item.allocation)]).await?;
        let mut file = None;
        let outcome = if self.intend(&item.allocation, &removal).await? {
            self.drop_volume(connection, item, name, &first, &mut file).await
        } else {
            Ok(Outcome::Kept("its worktree came back".to_owned()))
        };
        shown.backup = file.map(|file| PathText::of(&file).text);
        match &outcome {
            Ok(outcome) => {
                shown.done = !matches!(outcome, Outcome::Kept(_));
                match outcome {
                    Outcome::Kept(why) => {
                        shown.action = GcAction::Keep;
                        shown.reason.clone_from(why);
                    }
                    Outcome::MadeAnew | Outcome::Gone => shown.reason = outcome.text(),
                    Outcome::Dropped => {}
                }
                info!(volume = %name, worktree = %item.allocation.path.display(), outcome = outcome.text(), labels = ?item.volume.labels, "gc");
                self.record(&removal, outcome.text()).await?;
            }
            Err(Stop::Failed(problem)) => {
                shown.reason.clone_from(&problem.detail);
                self.record(&removal, format!("failed: {}", problem.detail)).await?;
            }
            Err(Stop::Unheard) => {}
        }
        outcome.map(drop)
    }

    async fn drop_volume(
        &self,
        connection: &Connection,
        item: &Item,
        name: &VolumeName,
        first: &HashMap<AllocationId, Proof>,
        file: &mut Option<PathBuf>,
    ) -> Result<Outcome, Stop> {
        if let Some(outcome) = self.may_drop(connection, item, name, first).await? {
            return Ok(outcome);
        }
        if let Some(directory) = &self.wish.backup {
            self.tell(GcEvent::Begin { what: format!("writing volume {name} to {}", directory.display()) })
                .await?;
            let written = backup::write(
                &self.gc.0.owner,
                connection,
                &item.allocation,
                &item.volume,
                name,
                directory,
                &self.events,
            )
            .await;
            *file = Some(written.map_err(|error| Stop::Failed(error.problem()))?);
            self.tell(GcEvent::Begin { what: format!("dropping volume {name}") }).await?;
            // That took its time.
            if let Some(outcome) = self.may_drop(connection, item, name, first).await? {
                return Ok(outcome);
            }
        }
        Ok(match connection.remove_volume(name).await? {
            Removed::Before => Outcome::Gone,
            Removed::InUse(why) => Outcome::Kept(why),
            Removed::Now => match connection.volume(name).await? {
                None => Outcome::Dropped,
                Some(_) => Outcome::MadeAnew,
            },
        })
    }

    /// Looks at everything once more, and makes the plan again; none when the volume may be dropped now.
    async fn may_drop(
        &self,
        connection: &Connection,
        item: &Item,
        name: &VolumeName,
        first: &HashMap<AllocationId, Proof>,
    ) -> Result<Option<Outcome>, Stop> {
        let id = item.allocation.id;
        let snapshot = self.gc.writer().snapshot();
        let mut proofs = self.gc.prove(&snapshot, vec![Arc::clone(&item.allocation)]).await?;
        let proof = match (first.get(&id), proofs.remove(&id)) {
            (Some(first), Some(second)) => proofs::both(first.clone(), second),
            _ => return Ok(Some(Outcome::Kept("git could not be asked".to_owned()))),
        };
        proofs.insert(id, proof);
        let Some(engine) = look_again(connection, name).await? else { return Ok(Some(Outcome::Gone)) };
        let snapshot = self.gc.writer().snapshot();
        let of_it: Looks = self.survey.looks.get(&id).map(|looks| (id, looks.clone())).into_iter().collect();
        let again = plan(&Question {
            ledger: &snapshot.ledger,
            proofs: &proofs,
            looks: &of_it,
            engine: &engine,
            created: &created(&engine),
            now: now(),
            options: self.wish.options,
        });
        let Some(now) = again.items.into_iter().find(|it| it.allocation.id == id) else {
            return Ok(Some(Outcome::Kept("its worktree came back".to_owned())));
        };
        if let Action::Keep(keep) = &now.action {
            return Ok(Some(Outcome::Kept(keep.to_string())));
        }
        // Its containers were to be removed before it; one that uses it now was not shown.
        if let Some(user) = engine.containers.first() {
            return Ok(Some(Outcome::Kept(format!("container {} ({}) uses it", user.name, user.state))));
        }
        let same =
            report::token_of_volume(&now, connection.id()) == report::token_of_volume(item, connection.id());
        Ok((!same).then(|| Outcome::Kept("it has changed since it was listed".to_owned())))
    }

    /// Drops a database or a schema, if everything still speaks for it. A server that fails ends nothing but this.
    async fn drop_object(&self, shown: &mut GcItem) -> Result<(), Stop> {
        let is_shown = |item: &&ObjectItem| item.keep.is_none() && report::object(item).token == shown.token;
        let Some(item) = self.survey.objects.iter().find(is_shown) else { return Ok(()) };
        let (kind, name, allocation) = (item.object.name.kind(), &item.found.name, &item.allocation);
        self.tell(GcEvent::Begin { what: format!("dropping {kind} {name}") }).await?;
        let first = self.gc.prove(&self.gc.writer().snapshot(), vec![Arc::clone(allocation)]).await?;
        let removal = Arc::new(Removal {
            allocation: allocation.id,
            engine: EngineId::new(&format!("postgresql {}", item.object.server.0)),
            kind,
            name: name.clone(),
            detail: BTreeMap::from([
                ("server".to_owned(), item.object.address.to_string()),
                ("database".to_owned(), item.object.name.database.to_string()),
                ("comment".to_owned(), item.found.comment.clone().unwrap_or_default()),
            ]),
        });
        let outcome = if !self.intend(allocation, &removal).await? {
            Outcome::Kept("its worktree came back".to_owned())
        } else if let Some(kept) = self.may_drop_object(item, &shown.token, &first).await? {
            kept
        } else {
            let databases = &self.gc.0.releaser.databases;
            match databases.drop_object(allocation.id, &item.object, name).await {
                Ok(Dropped::Dropped) => Outcome::Dropped,
                Ok(Dropped::Gone) => Outcome::Gone,
                Ok(Dropped::Kept(keep)) => Outcome::Kept(keep.to_string()),
                Err(DropError::Registry(error)) => return Err(error.into()),
                Err(error) => Outcome::Kept(error.to_string()),
            }
        };
        shown.done = !matches!(outcome, Outcome::Kept(_));
        match &outcome {
            Outcome::Kept(why) => {
                shown.action = GcAction::Keep;
                shown.reason.clone_from(why);
            }
            Outcome::MadeAnew | Outcome::Gone => shown.reason = outcome.text(),
            Outcome::Dropped => {}
        }
        info!(kind, %name, worktree = %allocation.path.display(), outcome = outcome.text(), "gc");
        self.record(&removal, outcome.text()).await
    }

    /// Looks at everything once more, and makes the plan again; none when the object may be dropped now. The server's word
    /// is asked for again in the very session that drops it.
    async fn may_drop_object(
        &self,
        item: &ObjectItem,
        token: &str,
        first: &HashMap<AllocationId, Proof>,
    ) -> Result<Option<Outcome>, Stop> {
        let id = item.allocation.id;
        let snapshot = self.gc.writer().snapshot();
        let mut proofs = self.gc.prove(&snapshot, vec![Arc::clone(&item.allocation)]).await?;
        let proof = match (first.get(&id), proofs.remove(&id)) {
            (Some(first), Some(second)) => proofs::both(first.clone(), second),
            _ => return Ok(Some(Outcome::Kept("git could not be asked".to_owned()))),
        };
        proofs.insert(id, proof);
        let Some(now) = snapshot.ledger.allocation(id) else {
            return Ok(Some(Outcome::Kept("its worktree came back".to_owned())));
        };
        let answers = HashMap::from([(id, self.gc.0.releaser.databases.ask(now).await)]);
        let question = self.survey.question(&snapshot.ledger, &proofs, self.wish.options);
        let again = plan_objects(&question, &answers);
        let same = |it: &&ObjectItem| it.object.name == item.object.name && it.found.name == item.found.name;
        let Some(now) = again.iter().find(same) else { return Ok(Some(Outcome::Gone)) };
        if let Some(keep) = &now.keep {
            return Ok(Some(Outcome::Kept(keep.to_string())));
        }
        let is_changed = report::object(now).token != token;
        Ok(is_changed.then(|| Outcome::Kept("it has changed since it was listed".to_owned())))
    }

    /// Stops and removes the containers of a worktree's own Compose project, their volumes not.
    async fn take_down(&self, connection: &Connection, shown: &mut GcStack) -> Result<(), Stop> {
        let is_shown = |stack: &&Stack| report::stack(stack, connection.id()).token == shown.token;
        let Some(stack) = self.survey.plan.stacks.iter().find(is_shown) else { return Ok(()) };
        let allocation = &stack.allocation;
        let proofs = self.gc.prove(&self.gc.writer().snapshot(), vec![Arc::clone(allocation)]).await?;
        if proofs.get(&allocation.id) != self.survey.proofs.get(&allocation.id) {
            shown.action = GcAction::Keep;
            "its worktree came back".clone_into(&mut shown.reason);
            return Ok(());
        }
        let now = connection.view().await?;
        for container in &stack.containers {
            let still = now.containers.iter().find(|it| it.id == container.id);
            let Some(id) = ContainerId::new(&container.id) else { continue };
            if still.is_none_or(|it| !is_container_of(allocation, it)) {
                continue;
            }
            self.tell(GcEvent::Begin { what: format!("removing container {}", container.name) }).await?;
            let removal = Arc::new(Removal {
                allocation: allocation.id,
                engine: connection.id().clone(),
                kind: "container",
                name: container.name.clone(),
                detail: BTreeMap::from([("id".to_owned(), container.id.clone())]),
            });
            if !self.intend(allocation, &removal).await? {
                shown.action = GcAction::Keep;
                "its worktree came back".clone_into(&mut shown.reason);
                return Ok(());
            }
            let outcome = match connection.remove_container(&id).await? {
                Removed::Now => "removed".to_owned(),
                Removed::Before => "it was gone already".to_owned(),
                Removed::InUse(why) => format!("kept: {why}"),
            };
            info!(container = %container.name, worktree = %allocation.path.display(), outcome, "gc");
            self.record(&removal, outcome).await?;
        }
        shown.done = true;
        Ok(())
    }
}

/// What a volume was, for the record.
fn detail(volume: &Volume) -> BTreeMap<String, String> {
    let mut detail = volume.labels.clone();
    detail.insert("CreatedAt".to_owned(), volume.created.clone());
    detail
}
