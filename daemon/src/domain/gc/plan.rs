//! The plan: each volume of each allocation that is gone, dropped or kept, with the reason.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use wtd_protocol::State;

use super::belongings::{
    ALLOCATION_LABEL, COMPOSE_PROJECT_LABEL, is_container_of, is_labelled, is_volume_of, left_overs, versions,
};
use super::keep::Keep;
use super::live::{Live, compose_default};
use super::made_after::{is_made_after, is_made_too_late};
use super::proof::Proof;
use super::{Container, EngineView, Look, Looks, Volume, looks_of};
use crate::domain::allocation::{Allocation, Ending, Moment};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::domain::names::VolumeName;

/// What the person who asks for gc wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Allocations that are missing, forgotten or reassigned are included, and stale ones that git can't be asked about.
    pub missing: bool,
    /// Only allocations that have been in their state for so long, in milliseconds.
    pub older_than_ms: i64,
    /// Containers of the worktrees' own Compose projects are removed first.
    pub down: bool,
    /// What is dropped is to be kept in files.
    pub backup: bool,
}

/// What the plan is made from.
#[derive(Debug)]
pub struct Question<'a> {
    /// Every allocation.
    pub ledger: &'a Ledger,
    /// A fresh look for each allocation that is stale or missing.
    pub proofs: &'a HashMap<AllocationId, Proof>,
    /// What was found when engines were first looked at for these allocations.
    pub looks: &'a Looks,
    /// What the engine has.
    pub engine: &'a EngineView,
    /// When volumes were created, by name, where the engine's text could be read.
    pub created: &'a HashMap<String, Moment>,
    /// The time.
    pub now: Moment,
    /// What is wanted.
    pub options: Options,
}

/// What becomes of the volumes, and of the allocations that have any left-overs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// A line for each volume, by allocation, oldest first.
    pub items: Vec<Item>,
    /// The containers of each allocation's own Compose project.
    pub stacks: Vec<Stack>,
}

/// A volume, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The allocation that it is found for.
    pub allocation: Arc<Allocation>,
    /// The volume.
    pub volume: Volume,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is dropped. Only a name of wtd's own alphabet ever goes to an engine.
    Drop(VolumeName),
    /// It stays.
    Keep(Keep),
}

/// Containers of an allocation's own Compose project.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The allocation, as it was under that project.
    pub allocation: Arc<Allocation>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Why they stay; none when they are removed.
    pub keep: Option<Keep>,
}

/// Decides what becomes of each volume of each allocation that is gone.
pub fn plan(question: &Question<'_>) -> Plan {
    let live = Live::of(question.ledger);
    let gone = question
        .ledger
        .allocations()
        .filter(|allocation| matches!(allocation.state, State::Stale | State::Missing));
    let mut plan = Plan::default();
    for allocation in gone {
        let refusal = refusal(allocation, question);
        let looks = looks_of(question.looks, allocation.id);
        let versions = versions(allocation, looks);
        for volume in &question.engine.volumes {
            let Some(version) = versions.iter().find(|it| is_volume_of(it, volume)) else { continue };
            let keep = refusal.clone().or_else(|| keep(version, volume, &live, question));
            let action = match (keep, VolumeName::new(&volume.name)) {
                (Some(keep), _) => Action::Keep(keep),
                (None, Err(_)) => Action::Keep(Keep::Name),
                (None, Ok(name)) => Action::Drop(name),
            };
            plan.items.push(Item { allocation: Arc::clone(allocation), volume: volume.clone(), action });
        }
        let stacks = versions.iter().filter_map(|version| stack(version, refusal.as_ref(), &live, question));
        plan.stacks.extend(stacks);
    }
    plan
}

/// The containers of the Compose project of an allocation that is gone.
fn stack(
    allocation: &Arc<Allocation>,
    refusal: Option<&Keep>,
    live: &Live<'_>,
    question: &Question<'_>,
) -> Option<Stack> {
    let own = question.engine.containers.iter().filter(|it| is_container_of(allocation, it));
    let containers: Vec<Container> = own.cloned().collect();
    let project = allocation.compose_project.clone().filter(|_| !containers.is_empty())?;
    let keep = refusal
        .cloned()
        .or_else(|| engine_refusal(&looks(allocation, question), question.engine, false))
        .or_else(|| live.has_project(&project).map(Keep::Live))
        .or_else(|| (!question.options.down).then_some(Keep::NotAskedFor(project)));
    Some(Stack { allocation: Arc::clone(allocation), containers, keep })
}

/// Why a volume of an allocation that is gone stays.
fn keep(allocation: &Allocation, volume: &Volume, live: &Live<'_>, question: &Question<'_>) -> Option<Keep> {
    let looks = looks(allocation, question);
    live.claims(allocation, volume)
        .or_else(|| live.shares_server(allocation, volume))
        .or_else(|| others(allocation, volume))
        .or_else(|| engine_refusal(&looks, question.engine, is_labelled(allocation, volume)))
        .or_else(|| unfit(allocation, volume, &looks, question))
        .or_else(|| in_use(allocation, volume, question))
}

/// What the plan leaves of an allocation, the first thing of it; its offset is free afterwards only if that is nothing.
pub fn left_behind(
    allocation: &Arc<Allocation>,
    looks: &[Look],
    engine: &EngineView,
    plan: &Plan,
) -> Option<String> {
    let volumes = plan.items.iter().filter(|item| matches!(item.action, Action::Drop(_)));
    let volumes = volumes.map(|item| (item.allocation.id, format!("volume {}", item.volume.name)));
    let stacks = plan.stacks.iter().filter(|stack| stack.keep.is_none());
    let containers = stacks.flat_map(|stack| {
        stack.containers.iter().map(|it| (stack.allocation.id, format!("container {}", it.name)))
    });
    let dropped: BTreeSet<String> =
        volumes.chain(containers).filter(|(id, _)| *id == allocation.id).map(|(_, name)| name).collect();
    left_overs(allocation, looks, engine).into_iter().find(|left| !dropped.contains(left))
}

/// The looks at engines that were made while the allocation's worktree was there. What was found on one later says nothing of
/// whose it is.
fn looks<'a>(allocation: &Allocation, question: &Question<'a>) -> Vec<&'a Look> {
    let all = looks_of(question.looks, allocation.id).iter();
    all.filter(|look| allocation.state != State::Stale || look.at <= allocation.since).collect()
}

/// Why nothing of an allocation may be dropped, whatever the volume.
pub fn refusal(allocation: &Allocation, question: &Question<'_>) -> Option<Keep> {
    let options = &question.options;
    let proof = question.proofs.get(&allocation.id);
    let unproven = |why: &str| {
        if options.missing { None } else { Some(Keep::Unproven(why.to_owned())) }
    };
    let state = match (allocation.ending, allocation.state, proof) {
        (_, _, Some(Proof::Locked)) => Some(Keep::Locked),
        (Some(Ending::Forgotten), ..) => (!options.missing).then_some(Keep::Forgotten),
        (Some(Ending::Reassigned), _, Some(Proof::Removed)) => None,
        (Some(Ending::Reassigned), ..) => (!options.missing).then_some(Keep::Reassigned),
        (None, _, Some(Proof::Standing)) => Some(Keep::Standing),
        (None, State::Missing, _) if !options.missing => Some(Keep::Missing(allocation.reason.clone())),
        (None, _, Some(Proof::Removed)) => None,
        (None, _, Some(Proof::Unproven(why))) => unproven(why),
        // A question that was not put has no answer, whatever is wanted.
        (None, _, None) => Some(Keep::Unproven("git was not asked".to_owned())),
    };
    state.or_else(|| {
        let age = question.now.0.saturating_sub(allocation.since.0);
        (age < options.older_than_ms).then_some(Keep::Young)
    })
}

/// Whether labels say that the volume is somebody else's.
fn others(allocation: &Allocation, volume: &Volume) -> Option<Keep> {
    if let Some(id) = volume.labels.get(ALLOCATION_LABEL)
        && !is_labelled(allocation, volume)
    {
        return Some(Keep::OthersLabel(id.clone()));
    }
    let project = volume.labels.get(COMPOSE_PROJECT_LABEL)?;
    let own = allocation.compose_project.as_ref().is_some_and(|own| own.as_str() == project.as_str());
    let is_own = own || is_labelled(allocation, volume) || compose_default(&allocation.path) == *project;
    (!is_own).then(|| Keep::OthersProject(project.clone()))
}

/// Why the volume can't be the worktree's own plain volume on this engine.
fn unfit(allocation: &Allocation, volume: &Volume, looks: &[&Look], question: &Question<'_>) -> Option<Keep> {
    if volume.driver != "local" {
        return Some(Keep::Driver(format!("its driver is {}", volume.driver)));
    }
    if !volume.options.is_empty() {
        let names: Vec<&str> = volume.options.keys().map(String::as_str).collect();
        return Some(Keep::Driver(format!("it has driver options ({})", names.join(", "))));
    }
    if !volume.is_local {
        return Some(Keep::Driver("it is of a whole cluster".to_owned()));
    }
    let engine = question.engine;
    let look = looks.iter().copied().find(|look| look.engine == engine.id);
    let created = question.created.get(&volume.name).copied();
    if !is_made_after(allocation, volume, look, engine.tells_creation, created) {
        return Some(Keep::MadeBefore);
    }
    // One that a person gave up may have gone on for long, out of sight.
    let is_proven = question.proofs.get(&allocation.id) == Some(&Proof::Removed);
    let is_too_late = engine.tells_creation && is_proven && is_made_too_late(allocation, volume, created);
    is_too_late.then_some(Keep::MadeAfter)
}

/// Containers that use the volume, unless they all are removed first.
fn in_use(allocation: &Allocation, volume: &Volume, question: &Question<'_>) -> Option<Keep> {
    let users: Vec<&Container> = question
        .engine
        .containers
        .iter()
        .filter(|container| container.volumes.contains(&volume.name))
        .collect();
    if users.is_empty() {
        return None;
    }
    let all_own = users.iter().all(|container| is_container_of(allocation, container));
    if all_own && question.options.down {
        return None;
    }
    Some(Keep::InUse {
        containers: users.iter().map(|it| format!("{} ({})", it.name, it.state)).collect(),
        project: allocation.compose_project.clone().filter(|_| all_own),
        running: users.iter().any(|container| container.is_running()),
    })
}

/// Why the engine does not answer for the allocation's data, if it doesn't.
fn engine_refusal(looks: &[&Look], engine: &EngineView, is_labelled: bool) -> Option<Keep> {
    if looks.iter().any(|look| look.engine == engine.id) {
        None
    } else if !looks.is_empty() {
        Some(Keep::OtherEngine)
    } else if is_labelled {
        // Nobody but a stack of this very allocation puts its id on a volume.
        None
    } else {
        Some(Keep::UnknownEngine)
    }
}
