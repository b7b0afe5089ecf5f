//! A plan in the words of the API.

use sha2::{Digest, Sha256};
use wtd_protocol::PathText;
use wtd_protocol::gc::{GcAction, GcContainer, GcItem, GcKind, GcOffset, GcReport, GcStack};

use super::survey::Survey;
use crate::domain::allocation::Allocation;
use crate::domain::gc::keep::Keep;
use crate::domain::gc::objects::ObjectItem;
use crate::domain::gc::plan::{Action, Item, Stack};
use crate::domain::gc::{Container, EngineId, EngineView, Volume};
use crate::domain::restoring::Restoring;
use crate::wire::time;

/// Why an offset is freed on a person's word.
const UNASKED: &str = "no engine is asked whether data of it is left";

/// What a survey found, and what would become of it.
pub(super) fn of(survey: &Survey) -> GcReport {
    let engine = &survey.engine;
    GcReport {
        engine: survey.connection.as_ref().map(|connection| connection.host().to_string()),
        items: survey
            .plan
            .items
            .iter()
            .map(|it| GcItem { size: survey.sizes.get(&it.volume.name).copied(), ..item(it, engine) })
            .chain(survey.objects.iter().map(object))
            .collect(),
        stacks: survey.plan.stacks.iter().map(|it| stack(it, &engine.id)).collect(),
        offsets: survey
            .offsets
            .iter()
            .map(|(allocation, kept)| offset(allocation, kept.as_deref(), survey.asks_no_engine))
            .chain(survey.held.iter().filter_map(|it| held(it)))
            .collect(),
        failure: None,
    }
}

pub(super) fn item(item: &Item, engine: &EngineView) -> GcItem {
    let allocation = &*item.allocation;
    let PathText { text, base64 } = PathText::of(&allocation.path);
    let (action, reason) = match &item.action {
        Action::Drop(_) => (GcAction::Drop, gone(allocation)),
        Action::Keep(keep) => (GcAction::Keep, keep.to_string()),
    };
    GcItem {
        path: text,
        path_base64: base64,
        offset: allocation.offset.0,
        kind: GcKind::Volume,
        name: item.volume.name.clone(),
        action,
        reason,
        done: false,
        unanswered: false,
        size: None,
        backup: None,
        since: time(allocation.since),
        allocation: allocation.id.to_string(),
        token: token_of_volume(item, engine),
    }
}

/// A database or schema as an item of the report.
pub(super) fn object(item: &ObjectItem) -> GcItem {
    let allocation = &*item.allocation;
    let PathText { text, base64 } = PathText::of(&allocation.path);
    let (action, reason) = match &item.keep {
        None => (GcAction::Drop, gone(allocation)),
        Some(keep) => (GcAction::Keep, keep.to_string()),
    };
    let server = item.object.server.0.to_string();
    let comment = item.found.comment.clone().unwrap_or_default();
    let parts =
        [item.object.name.kind(), &server, item.object.name.database.as_str(), &item.found.name, &comment];
    GcItem {
        path: text,
        path_base64: base64,
        offset: allocation.offset.0,
        kind: if item.object.name.schema.is_some() { GcKind::Schema } else { GcKind::Database },
        name: item.found.name.clone(),
        action,
        reason,
        done: false,
        unanswered: matches!(item.keep, Some(Keep::Server(_))),
        size: item.found.size,
        backup: None,
        since: time(allocation.since),
        allocation: allocation.id.to_string(),
        token: token(allocation, &parts),
    }
}

pub(super) fn stack(stack: &Stack, engine: &EngineId) -> GcStack {
    let allocation = &*stack.allocation;
    let container =
        |it: &Container| GcContainer { id: it.id.clone(), name: it.name.clone(), state: it.state.clone() };
    let mut parts = vec!["stack", engine.as_str()];
    parts.extend(stack.containers.iter().map(|container| container.id.as_str()));
    let (action, reason) = match &stack.keep {
        None => (GcAction::Drop, gone(allocation)),
        Some(keep) => (GcAction::Keep, keep.to_string()),
    };
    GcStack {
        path: PathText::of(&allocation.path).text,
        offset: allocation.offset.0,
        project: allocation.compose_project.as_ref().map(ToString::to_string).unwrap_or_default(),
        containers: stack.containers.iter().map(container).collect(),
        action,
        reason,
        done: false,
        token: token(allocation, &parts),
    }
}

pub(super) fn offset(allocation: &Allocation, kept: Option<&str>, asks_no_engine: bool) -> GcOffset {
    let (action, reason) = match kept {
        Some(why) => (GcAction::Keep, why.to_owned()),
        None if asks_no_engine => (GcAction::Drop, UNASKED.to_owned()),
        None => (GcAction::Drop, "nothing of it is left then".to_owned()),
    };
    GcOffset {
        path: PathText::of(&allocation.path).text,
        offset: allocation.offset.0,
        action,
        reason,
        done: false,
        allocation: allocation.id.to_string(),
        token: token(allocation, &["offset", allocation.state.as_str()]),
    }
}

/// The offset that a restored volume holds, as one that is to be free; none where it holds none.
fn held(restored: &Restoring) -> Option<GcOffset> {
    Some(GcOffset {
        path: format!("volume {}", restored.volume),
        offset: restored.offset?.0,
        action: GcAction::Drop,
        reason: UNASKED.to_owned(),
        done: false,
        allocation: restored.id.clone(),
        // Each restoring has an id of its own.
        token: format!("held {}", restored.id),
    })
}

/// Why something of an allocation may be dropped.
fn gone(allocation: &Allocation) -> String {
    if allocation.reason.is_empty() { "its worktree is gone".to_owned() } else { allocation.reason.clone() }
}

/// Stands for a volume as it was seen: one that was made anew under the same name has another token.
pub(super) fn token_of_volume(item: &Item, engine: &EngineView) -> String {
    let volume = &item.volume;
    let mut parts = vec!["volume", engine.id.as_str(), &volume.name, &volume.driver];
    match holders(volume, engine) {
        Some(holders) => parts.extend(holders),
        None => parts.push(&volume.created),
    }
    parts.extend(volume.labels.iter().flat_map(|(name, value)| [name.as_str(), value.as_str()]));
    token(&item.allocation, &parts)
}

/// Whether the volume is the one that was seen `before`, now that the containers are gone which used it.
pub(super) fn is_same(before: &Volume, engine: &EngineView, now: &Volume) -> bool {
    let is_as_old = before.created == now.created || holders(before, engine).is_some();
    is_as_old && before.name == now.name && before.driver == now.driver && before.labels == now.labels
}

/// The containers by which a volume is known: as long as they use it, it can't be removed, and so not made anew. None
/// where it is known by when it was made. An engine that gives its last change instead says something else of it
/// whenever a server in one of them starts, stops or writes.
fn holders<'a>(volume: &Volume, engine: &'a EngineView) -> Option<Vec<&'a str>> {
    let uses = |it: &&Container| it.volumes.contains(&volume.name);
    let holders: Vec<&str> = engine.containers.iter().filter(uses).map(|it| it.id.as_str()).collect();
    (!engine.tells_creation && !holders.is_empty()).then_some(holders)
}

fn token(allocation: &Allocation, parts: &[&str]) -> String {
    let mut digest = Sha256::new();
    digest.update(allocation.id.0.as_bytes());
    for part in parts {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().iter().take(16).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}
