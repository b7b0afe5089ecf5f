//! The allocation files after a commit.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Inner, Reconciler};
use crate::domain::allocation::Allocation;
use crate::domain::identity::AllocationId;
use crate::domain::observation::Claim;
use crate::registry::{Snapshot, allocation_file};

/// How long after an allocation file has vanished it is written again: what else is being deleted with it is gone then.
const VANISHED: Duration = Duration::from_secs(3);

impl Inner {
    /// Whether an allocation file, of which this was just read, was there until a moment ago.
    fn is_vanishing(&self, id: AllocationId, claim: &Claim) -> bool {
        let mut files = self.files.lock();
        if matches!(claim, Claim::Allocation { .. }) {
            files.insert(id, None);
        }
        let (Claim::None, Some(vanished)) = (claim, files.get_mut(&id)) else { return false };
        let is_vanishing = vanished.get_or_insert_with(Instant::now).elapsed() < VANISHED;
        if !is_vanishing {
            files.remove(&id);
        }
        is_vanishing
    }
}

impl Reconciler {
    /// Makes the allocation files of a repository, of which this was just read, say what the registry says.
    pub(super) fn write_files(
        &self,
        key: &Path,
        files: Vec<(AllocationId, Claim)>,
        before: &Snapshot,
        after: &Snapshot,
    ) {
        // One that vanished may be the first of all the files that somebody is deleting, whom a new one would be in the
        // way of.
        let (vanishing, files): (Vec<_>, Vec<_>) =
            files.into_iter().partition(|(id, claim)| self.0.is_vanishing(*id, claim));
        if !vanishing.is_empty() {
            self.0.queue.lock().mark(key, Instant::now() + VANISHED);
        }
        // A file that was right at the last look, and is as it was, is right. One that isn't there never is.
        let is_settled = |id, claim: &Claim| {
            matches!(claim, Claim::Allocation { .. })
                && before.sighting(id).is_some_and(|last| last.claim == *claim)
                && matches!((before.ledger.allocation(id), after.ledger.allocation(id)), (Some(a), Some(b)) if Arc::ptr_eq(a, b))
        };
        let to_write: Vec<(&Arc<Allocation>, &Claim)> = files
            .iter()
            .filter(|(id, claim)| !is_settled(*id, claim))
            .filter_map(|(id, claim)| Some((after.ledger.allocation(*id)?, claim)))
            .collect();
        if to_write.is_empty() {
            return;
        }
        let write = |(allocation, claim): (&Arc<Allocation>, &Claim)| {
            let is_written = allocation_file::write(allocation, claim);
            if is_written {
                self.0.files.lock().insert(allocation.id, None);
            }
            is_written
        };
        let written = tokio::task::block_in_place(|| to_write.iter().filter(|pair| write(**pair)).count());
        if written < to_write.len() {
            // The disk may be full. Nothing is lost without the file, so there is no hurry.
            self.distrust(key);
        }
    }
}
