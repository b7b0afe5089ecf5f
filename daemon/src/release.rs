//! Stale allocations of which nothing is left are released, so that their offsets can be given again.

use std::collections::HashSet;
use std::sync::Arc;

use tracing::debug;
use wtd_protocol::State;

use crate::domain::allocation::Allocation;
use crate::domain::draft::{Draft, Surroundings, set_state};
use crate::domain::identity::AllocationId;
use crate::engine::Engine;
use crate::reconciler::Reconciler;
use crate::registry::{Decision, Writer};

/// Releases what can be released whenever something may have become stale, and at every sweep. Until the future is
/// dropped.
pub async fn run(writer: &Writer, reconciler: &Reconciler, engine: &Engine) {
    loop {
        release(writer, reconciler, engine).await;
        reconciler.stale().await;
    }
}

async fn release(writer: &Writer, reconciler: &Reconciler, engine: &Engine) {
    let snapshot = writer.snapshot();
    let stale: Vec<Arc<Allocation>> = snapshot.ledger.in_state(State::Stale).cloned().collect();
    if stale.is_empty() {
        return;
    }
    // An engine that can't be asked may have anything.
    let left = match engine.left_overs(&stale).await {
        Ok(left) => left,
        Err(error) => {
            return debug!(error = &error as &dyn std::error::Error, "stale allocations wait for the engine");
        }
    };
    let bare: HashSet<AllocationId> =
        stale.iter().map(|allocation| allocation.id).filter(|id| !left.contains_key(id)).collect();
    if bare.is_empty() {
        return;
    }
    let committed = writer
        .commit(move |ledger, system| {
            let mut draft = Draft::new(ledger);
            for allocation in &stale {
                // Only as it was when the engine was asked: a worktree that came back has a right to its data.
                let unchanged = ledger.allocation(allocation.id).is_some_and(|now| now == allocation);
                if unchanged && bare.contains(&allocation.id) {
                    let mut after = (**allocation).clone();
                    set_state(&mut after, State::Released, "nothing is left of it", system.now());
                    draft.put(after)?;
                }
            }
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        })
        .await;
    if let Err(error) = committed {
        debug!(error = &error as &dyn std::error::Error, "nothing released");
        return;
    }
    // Worktrees that found no offset have another chance now.
    let snapshot = writer.snapshot();
    for id in snapshot.repositories_in_want() {
        if let Some(repository) = snapshot.ledger.repository(id) {
            reconciler.mark(&repository.common_dir);
        }
    }
}
