//! What readers see: the state after the last commit, published whole.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use imbl::OrdMap;
use wtd_protocol::State;

use crate::domain::allocation::Allocation;
use crate::domain::draft::Record;
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::Ledger;
use crate::domain::reconcile::{Sighting, Unallocated};
use crate::git::root;
use crate::wire;

/// The registry as of the last commit, with what was seen of each worktree and the answers for those that were asked about.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// The allocations.
    pub ledger: Ledger,
    sightings: OrdMap<AllocationId, Arc<Sighting>>,
    /// Rendered when first asked for: of ten thousand worktrees few are in use.
    answers: OrdMap<AllocationId, Arc<OnceLock<Bytes>>>,
    unallocated: OrdMap<RepositoryId, Arc<[Unallocated]>>,
}

impl Snapshot {
    /// The snapshot of a ledger that was just loaded: nothing has been seen yet.
    pub fn new(ledger: Ledger) -> Self {
        let mut snapshot = Self { ledger, ..Self::default() };
        let all: Vec<_> = snapshot.ledger.allocations().cloned().collect();
        for allocation in &all {
            snapshot.renew_answer(allocation);
        }
        snapshot
    }

    /// The snapshot after a commit of `records`, which made the ledger `ledger`.
    pub fn advance(&mut self, ledger: Ledger, records: &[Record]) {
        self.ledger = ledger;
        for record in records {
            match record {
                Record::Allocation { allocation, .. } => self.renew_answer(allocation),
                Record::Repository(repository) => {
                    if !repository.watched {
                        self.unallocated.remove(&repository.id);
                    }
                    // Their answers name the repository's common dir.
                    let all: Vec<_> = self.ledger.of_repository(repository.id).cloned().collect();
                    for allocation in &all {
                        self.renew_answer(allocation);
                    }
                }
                // What trust means for allocations comes with the next look, as records of theirs; the rest bears on none.
                Record::Trusted { .. }
                | Record::Revoked(_)
                | Record::Look { .. }
                | Record::Removal(_)
                | Record::Removed { .. }
                | Record::Restoring(_)
                | Record::Restored { .. }
                | Record::RestoredGone(_)
                | Record::Seeding(_)
                | Record::Seeded { .. }
                | Record::Pruned { .. } => {}
            }
        }
    }

    /// Notes what was seen of a repository's worktrees.
    pub fn see(&mut self, repository: RepositoryId, sightings: Vec<Sighting>, unallocated: Vec<Unallocated>) {
        for sighting in sightings {
            self.sightings.insert(sighting.id, Arc::new(sighting));
        }
        if unallocated.is_empty() {
            self.unallocated.remove(&repository);
        } else {
            self.unallocated.insert(repository, unallocated.into());
        }
    }

    /// Has an allocation's answer rendered anew, or lets go of what nobody can ask for any more.
    fn renew_answer(&mut self, allocation: &Allocation) {
        if allocation.state == State::Released || allocation.state == State::Stale {
            self.answers.remove(&allocation.id);
            self.sightings.remove(&allocation.id);
        } else {
            self.answers.insert(allocation.id, Arc::default());
        }
    }

    /// The answer for an allocation: JSON of [`wtd_protocol::Allocation`].
    pub fn answer(&self, id: AllocationId) -> Option<&Bytes> {
        let answer = self.answers.get(&id)?;
        if let Some(ready) = answer.get() {
            return Some(ready);
        }
        let allocation = self.ledger.allocation(id)?;
        let repository = self.ledger.repository(allocation.repository)?;
        let json = serde_json::to_vec(&wire::allocation(allocation, &repository.common_dir, true)).ok()?;
        Some(answer.get_or_init(|| json.into()))
    }

    /// What was last seen of an allocation's worktree.
    pub fn sighting(&self, id: AllocationId) -> Option<&Arc<Sighting>> {
        self.sightings.get(&id)
    }

    /// Worktrees of a repository that could not be given an offset.
    pub fn unallocated(&self, repository: RepositoryId) -> &[Unallocated] {
        self.unallocated.get(&repository).map_or(&[], |all| all)
    }

    /// Repositories with worktrees that could not be given an offset.
    pub fn repositories_in_want(&self) -> impl Iterator<Item = RepositoryId> {
        self.unallocated.keys().copied()
    }

    /// The answer for the worktree whose root is exactly `path`, if two `lstat`s prove that it is still the worktree
    /// that was recorded, and configured as then: the way that nearly every request goes. `git worktree remove` and `add` in quick succession
    /// leave other marks on the root's `.git`, so an answer is never that of a worktree's predecessor.
    pub fn answer_at_root(&self, path: &Path) -> Option<&Bytes> {
        let allocation = self.ledger.at_path(path).filter(|allocation| allocation.state == State::Active)?;
        let seen = self.sighting(allocation.id)?.stamp;
        if !seen.local {
            return None;
        }
        let now = root::marks(path, self.configured_elsewhere(allocation)?)?;
        if seen.is_unchanged(now) { self.answer(allocation.id) } else { None }
    }

    /// Where the configuration is of a worktree of this repository that has none of its own.
    pub fn configured_elsewhere(&self, allocation: &Allocation) -> Option<&Path> {
        let repository = self.ledger.repository(allocation.repository)?;
        Some(repository.main_root.as_deref().unwrap_or(&repository.common_dir))
    }
}
