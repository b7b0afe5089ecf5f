//! Carries out what a person was shown, one thing after the other.
//!
//! Before each thing: what is to be removed is recorded, git is asked twice, the engine is asked what it has now, and the
//! plan is made again from that. Whatever ends the process, or the engine, leaves what the next run begins with; an
//! offset is released by what the engine says, so never while a volume exists.

mod containers;
mod objects;
mod volumes;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tokio::sync::mpsc;
use tracing::info;
use wtd_protocol::State;
use wtd_protocol::gc::{GcAction, GcEvent, GcItem, GcKind, GcReport};

use super::survey::Survey;
use super::{Gc, Wish, proofs, report};
use crate::domain::allocation::Allocation;
use crate::domain::draft::{Draft, Record};
use crate::domain::gc::proof::Proof;
use crate::domain::gc::removal::Removal;
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::errand::{Stop, tell};
use crate::problem;
use crate::registry::Decision;

/// A run.
#[derive(Debug)]
pub(super) struct Run<'a> {
    gc: &'a Gc,
    wish: Wish,
    survey: Survey,
    events: mpsc::Sender<GcEvent>,
}

/// What came of one thing.
#[derive(Debug)]
enum Outcome {
    Dropped,
    Gone,
    /// Dropped, and there again.
    MadeAnew,
    Kept(String),
    /// Its server gave no answer.
    Unanswered(String),
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
            Self::Kept(why) | Self::Unanswered(why) => format!("kept: {why}"),
        }
    }

    /// Says so where a person was shown the thing.
    fn show_in(&self, shown: &mut GcItem) {
        shown.done = !matches!(self, Self::Kept(_) | Self::Unanswered(_));
        shown.unanswered = matches!(self, Self::Unanswered(_));
        match self {
            Self::Kept(why) | Self::Unanswered(why) => {
                shown.action = GcAction::Keep;
                shown.reason.clone_from(why);
            }
            Self::MadeAnew | Self::Gone => shown.reason = self.text(),
            Self::Dropped => {}
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
        // The next start does it as well.
        if !self.gc.is_ending() {
            self.gc.release(&self.wish.engine).await;
        }
        let snapshot = self.gc.writer().snapshot();
        for offset in &mut report.offsets {
            let held = snapshot.ledger.allocations().any(|it| it.id.to_string() == offset.allocation)
                || snapshot.ledger.restoring(&offset.allocation).is_some();
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
        self.gc.clear(&connection).await?;
        for index in 0..report.stacks.len() {
            let Some(shown) = report.stacks.get_mut(index) else { continue };
            if shown.action == GcAction::Drop {
                self.take_down(&connection, shown).await?;
            }
        }
        for index in 0..report.items.len() {
            let Some(shown) = report.items.get_mut(index) else { continue };
            if shown.action == GcAction::Drop && shown.kind == GcKind::Volume {
                let ended = self.drop_volume(&connection, shown).await;
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
        let held = self.survey.held.iter().filter(|it| chosen.contains(it.id.as_str())).cloned();
        Ok(self.gc.0.releaser.lose(held.collect()).await?)
    }

    /// What git says of a worktree.
    async fn prove(&self, allocation: &Arc<Allocation>) -> HashMap<AllocationId, Proof> {
        proofs::prove(&self.gc.writer().snapshot().ledger, std::slice::from_ref(allocation)).await
    }

    /// What git says of a worktree now and said `first`; none when its repository is unknown by now.
    async fn prove_again(
        &self,
        allocation: &Arc<Allocation>,
        first: &HashMap<AllocationId, Proof>,
    ) -> Option<HashMap<AllocationId, Proof>> {
        let id = allocation.id;
        let second = self.prove(allocation).await.remove(&id)?;
        Some(HashMap::from([(id, proofs::both(first.get(&id)?.clone(), second))]))
    }

    /// Tells of the next step, unless the daemon is about to end: then there is none.
    async fn begin(&self, what: String) -> Result<(), Stop> {
        if self.gc.is_ending() {
            return Err(problem::shutting_down().into());
        }
        self.tell(GcEvent::Begin { what }).await
    }

    async fn tell(&self, event: GcEvent) -> Result<(), Stop> {
        tell(&self.events, event).await
    }

    /// Has one thing dropped, with the intent recorded before and what came of it after, whatever that is.
    async fn carry_out(
        &self,
        allocation: &Arc<Allocation>,
        removal: &Arc<Removal>,
        shown: &mut GcItem,
        drop: impl Future<Output = Result<Outcome, Stop>>,
    ) -> Result<(), Stop> {
        if let Some(why) = self.intend(allocation, removal).await? {
            Outcome::Kept(why.to_owned()).show_in(shown);
            return Ok(());
        }
        let dropped = drop.await;
        let outcome = match &dropped {
            Ok(outcome) => {
                outcome.show_in(shown);
                outcome.text()
            }
            Err(Stop::Failed(problem)) => {
                shown.reason.clone_from(&problem.detail);
                format!("failed: {}", problem.detail)
            }
            Err(Stop::Unheard) => return Err(Stop::Unheard),
        };
        let Removal { kind, name, detail, .. } = &**removal;
        info!(kind, %name, worktree = %allocation.path.display(), outcome, ?detail, "gc");
        self.record(removal, outcome).await?;
        dropped.map(|_| ())
    }

    /// Records something that is about to be removed, if its allocation is as it was planned for; else gives what has
    /// become of that.
    async fn intend(
        &self,
        allocation: &Arc<Allocation>,
        removal: &Arc<Removal>,
    ) -> Result<Option<&'static str>, Stop> {
        let (id, removal) = (allocation.id, Arc::clone(removal));
        let step = self.gc.writer().commit(move |ledger, _| {
            let changed = no_longer_stale(ledger, id);
            let decision =
                Decision { ledger: ledger.clone(), records: vec![Record::Removal(removal)], seen: None };
            Ok((changed.is_none().then_some(decision), changed))
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
}

/// What has become of an allocation that is not stale any more.
fn no_longer_stale(ledger: &Ledger, id: AllocationId) -> Option<&'static str> {
    match ledger.allocation(id).map(|now| now.state) {
        Some(State::Stale) => None,
        Some(State::Missing) => Some("its worktree is missing, and not removed any more"),
        Some(State::Active) => Some("its worktree came back"),
        Some(State::Released) | None => Some("its offset was released meanwhile"),
    }
}
