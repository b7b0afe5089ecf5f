//! When an allocation that is stale may be released: never while its offset leads to data.

use std::sync::Arc;

use super::belongings::left_overs;
use super::{EngineView, Look};
use crate::domain::allocation::Allocation;

/// Why a stale allocation waits, although some engine answers; none when it may be released.
///
/// Nothing of it may be on the engine that new worktrees would use, nor on any that was seen while it lived.
/// `answered` are the engines that could be asked, the one in use first.
pub fn waits_for(allocation: &Arc<Allocation>, looks: &[Look], answered: &[EngineView]) -> Option<String> {
    let left = answered.iter().flat_map(|engine| left_overs(allocation, looks, engine)).next();
    if let Some(left) = left {
        return Some(format!("{left} is left"));
    }
    if answered.is_empty() {
        return Some("no container engine answers".to_owned());
    }
    let silent = looks.iter().find(|look| answered.iter().all(|engine| engine.id != look.engine));
    silent.map(|look| {
        format!("the container engine at {} is not the one that was there while its worktree was", look.host)
    })
}
