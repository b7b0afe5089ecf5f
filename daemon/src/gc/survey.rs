//! Everything that a plan is made from, at one moment.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::task::JoinSet;
use wtd_protocol::{Problem, State};

use super::{Gc, Parts, Wish, not_asked, proofs, store_problem};
use crate::domain::allocation::{Allocation, Moment};
use crate::domain::gc::keep::Keep;
use crate::domain::gc::objects::{Answers, ObjectItem, plan_objects};
use crate::domain::gc::plan::{Options, Plan, Question, left_behind, plan, refusal};
use crate::domain::gc::proof::Proof;
use crate::domain::gc::{EngineId, EngineView, Looks, looks_of};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::domain::restoring::Restoring;
use crate::engine::{Connection, Engine, EngineError, HELPER_LABEL};
use crate::reconciler::watched_common_dirs;
use crate::registry::Snapshot;
use crate::registry::writer::now;

/// How long gc waits for a look at every repository, so that what git did a moment ago is in the plan.
const SETTLE: Duration = Duration::from_secs(10);

/// What was seen, and the plan that follows from it.
#[derive(Debug)]
pub struct Survey {
    pub(super) snapshot: Arc<Snapshot>,
    /// The engine that was asked; none where there is none, or none is to be asked.
    pub(super) connection: Option<Connection>,
    pub(super) engine: EngineView,
    /// When its volumes were created.
    created: HashMap<String, Moment>,
    pub(super) looks: Looks,
    pub(super) proofs: HashMap<AllocationId, Proof>,
    pub(super) sizes: HashMap<String, u64>,
    pub(super) plan: Plan,
    /// What database servers have, and what becomes of it.
    pub(super) objects: Vec<ObjectItem>,
    /// What becomes of the offsets of the allocations that are concerned: why one stays taken, or none.
    pub(super) offsets: Vec<(Arc<Allocation>, Option<String>)>,
    /// The restored volumes whose offsets a person frees: where no engine is asked, nothing else can.
    pub(super) held: Vec<Arc<Restoring>>,
    pub(super) asks_no_engine: bool,
}

impl Gc {
    /// Looks everywhere. `with_sizes`: also how large the volumes are, which can take the engine long.
    pub(super) async fn survey(&self, wish: &Wish, with_sizes: bool) -> Result<Survey, Problem> {
        self.settle().await;
        let answers = self.ask_servers().await;
        // The daemon does this by itself; whoever asks for gc need not wait until it does.
        if !wish.asks_no_engine {
            self.release(&wish.engine).await;
        }
        let snapshot = self.writer().snapshot();
        let gone: Vec<Arc<Allocation>> = snapshot
            .ledger
            .allocations()
            .filter(|allocation| matches!(allocation.state, State::Stale | State::Missing))
            .cloned()
            .collect();
        let ids: Vec<AllocationId> = gone.iter().map(|allocation| allocation.id).collect();
        let proofs = proofs::prove(&snapshot.ledger, &gone).await;
        let looks = self.0.releaser.history.looks(&ids).await.map_err(|error| store_problem(&error))?;
        let connection = if wish.asks_no_engine {
            None
        } else {
            wish.engine.open().await.map_err(|error| not_asked(&error))?
        };
        let (engine, sizes) = match &connection {
            None => (nothing(), HashMap::new()),
            Some(connection) => {
                let sizes = async { if with_sizes { connection.sizes().await } else { HashMap::new() } };
                let (view, sizes) = tokio::join!(connection.view(), sizes);
                let mut view = view.map_err(|error| not_asked(&error))?;
                // What a run was killed with uses nothing, and goes with the next run.
                view.containers.retain(|it| it.labels.get(HELPER_LABEL) != Some(&self.0.owner));
                (view, sizes)
            }
        };
        let held = snapshot.ledger.restorings();
        let held = held.filter(|it| wish.asks_no_engine && it.offset.is_some()).cloned().collect();
        let mut survey = Survey {
            snapshot,
            connection,
            created: created(&engine),
            engine,
            looks,
            proofs,
            sizes,
            plan: Plan::default(),
            objects: Vec::new(),
            offsets: Vec::new(),
            held,
            asks_no_engine: wish.asks_no_engine,
        };
        survey.decide(wish.options, &answers);
        Ok(survey)
    }

    /// What database servers have of allocations that are gone. That nothing is left there is recorded at once.
    async fn ask_servers(&self) -> Answers {
        let databases = &self.0.releaser.databases;
        let snapshot = self.writer().snapshot();
        let gone = snapshot.ledger.allocations();
        let gone = gone.filter(|allocation| matches!(allocation.state, State::Stale | State::Missing));
        let asked: JoinSet<_> = gone
            .filter(|allocation| !allocation.objects.is_empty())
            .map(|allocation| {
                let (databases, allocation) = (databases.clone(), Arc::clone(allocation));
                async move { (allocation.id, databases.ask(&allocation).await) }
            })
            .collect();
        asked.join_all().await.into_iter().collect()
    }

    /// Releases what nothing is left of, by the word of the engine that is meant and of the daemon's own.
    pub(super) async fn release(&self, engine: &Engine) {
        let Parts { releaser, engine: own, .. } = &*self.0;
        if !engine.is_same(own) {
            releaser.release(engine, false).await;
        }
        releaser.release(own, true).await;
    }

    /// Has every repository looked at, so that whoever has just run git finds that in the plan.
    async fn settle(&self) {
        let looks: JoinSet<_> = watched_common_dirs(&self.writer().snapshot())
            .into_iter()
            .map(|common_dir| {
                let reconciler = self.0.releaser.reconciler.clone();
                async move { reconciler.look_again(&common_dir).await }
            })
            .collect();
        // A disk that hangs is looked at again before anything of its worktrees is dropped.
        drop(tokio::time::timeout(SETTLE, looks.join_all()).await);
    }
}

impl Survey {
    /// What a plan answers, for this ledger and these looks at git.
    pub(super) fn question<'a>(
        &'a self,
        ledger: &'a Ledger,
        proofs: &'a HashMap<AllocationId, Proof>,
        options: Options,
    ) -> Question<'a> {
        Question {
            ledger,
            proofs,
            looks: &self.looks,
            engine: &self.engine,
            created: &self.created,
            now: now(),
            options,
        }
    }

    fn decide(&mut self, options: Options, answers: &Answers) {
        let question = self.question(&self.snapshot.ledger, &self.proofs, options);
        let plan = plan(&question);
        let objects = plan_objects(&question, answers);
        let gone = self.snapshot.ledger.allocations();
        let gone = gone.filter(|allocation| matches!(allocation.state, State::Stale | State::Missing));
        let mut offsets = Vec::new();
        for allocation in gone {
            // What is stale and holds no data was released a moment ago, so each of these has something to tell.
            if allocation.state == State::Stale || options.missing {
                let kept = refusal(allocation, &question).map(|keep: Keep| keep.to_string());
                let kept = kept.or_else(|| self.waits(allocation, &plan)).or_else(|| {
                    let of_it =
                        |item: &&ObjectItem| item.allocation.id == allocation.id && item.keep.is_some();
                    let left = objects.iter().find(of_it)?;
                    let is_unasked = matches!(left.keep, Some(Keep::Server(_))) && self.asks_no_engine;
                    (!is_unasked)
                        .then(|| format!("the {} {} is left", left.object.name.kind(), left.found.name))
                });
                offsets.push((Arc::clone(allocation), kept));
            }
        }
        self.plan = plan;
        self.objects = objects;
        self.offsets = offsets;
    }

    /// Why the offset would not be free after the plan.
    fn waits(&self, allocation: &Arc<Allocation>, plan: &Plan) -> Option<String> {
        if self.asks_no_engine {
            return None;
        }
        let looks = looks_of(&self.looks, allocation.id);
        if let Some(left) = left_behind(allocation, looks, &self.engine, plan) {
            return Some(format!("{left} is left"));
        }
        looks
            .iter()
            .find(|look| self.connection.is_none() || look.engine != self.engine.id)
            .map(|look| format!("the container engine at {} may have something of it", look.host))
    }
}

/// When the volumes were created, as far as the engine's words can be read.
pub(super) fn created(engine: &EngineView) -> HashMap<String, Moment> {
    let moment = |text: &str| Some(Moment(text.parse::<Timestamp>().ok()?.as_millisecond()));
    engine.volumes.iter().filter_map(|volume| Some((volume.name.clone(), moment(&volume.created)?))).collect()
}

/// An engine that is not there, and so has nothing.
fn nothing() -> EngineView {
    EngineView { id: EngineId::new(""), tells_creation: false, volumes: Vec::new(), containers: Vec::new() }
}

/// One volume of an engine with those who use it, as a question of its own.
pub(super) async fn look_again(
    connection: &Connection,
    name: &crate::domain::names::VolumeName,
) -> Result<Option<EngineView>, EngineError> {
    let Some(volume) = connection.volume(name).await? else { return Ok(None) };
    let containers = connection.users(name).await?;
    Ok(Some(connection.view_of(vec![volume], containers)))
}
