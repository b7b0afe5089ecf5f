//! Stale allocations of which nothing is left are released, so that their offsets can be given again.

use std::sync::Arc;

use tracing::debug;
use wtd_protocol::State;

use crate::databases::Databases;
use crate::domain::allocation::Allocation;
use crate::domain::draft::{Draft, Surroundings, set_state};
use crate::engine::Engine;
use crate::reconciler::Reconciler;
use crate::registry::{Decision, Writer};

/// Releases what can be released whenever something may have become stale, and at every sweep. Until the future is
/// dropped.
pub async fn run(writer: &Writer, reconciler: &Reconciler, engine: &Engine, databases: &Databases) {
    loop {
        release(writer, reconciler, engine, databases).await;
        reconciler.stale().await;
    }
}

async fn release(writer: &Writer, reconciler: &Reconciler, engine: &Engine, databases: &Databases) {
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
    let bare: Vec<_> = stale.into_iter().filter(|allocation| !left.contains_key(&allocation.id)).collect();
    let (on_servers, nowhere): (Vec<_>, Vec<_>) =
        bare.into_iter().partition(|allocation| !allocation.objects.is_empty());
    let mut released = commit(writer, nowhere).await;
    for allocation in on_servers {
        // Held until the release is recorded: nothing is made for it meanwhile.
        if let Some(_reservation) = databases.reserve(allocation.id)
            && databases.has_nothing_of(&allocation).await
        {
            released |= commit(writer, vec![allocation]).await;
        }
    }
    if !released {
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

/// Releases allocations of which nothing is left; true if any is released.
async fn commit(writer: &Writer, bare: Vec<Arc<Allocation>>) -> bool {
    if bare.is_empty() {
        return false;
    }
    let committed = writer
        .commit(move |ledger, system| {
            let mut draft = Draft::new(ledger);
            for allocation in &bare {
                // Only as it was when the engine was asked: a worktree that came back has a right to its data.
                if ledger.allocation(allocation.id).is_some_and(|now| now == allocation) {
                    let mut after = (**allocation).clone();
                    set_state(&mut after, State::Released, "nothing is left of it", system.now());
                    draft.put(after)?;
                }
            }
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        })
        .await;
    if let Err(error) = &committed {
        debug!(error = error as &dyn std::error::Error, "nothing released");
    }
    committed.is_ok()
}
