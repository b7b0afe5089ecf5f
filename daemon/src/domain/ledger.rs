//! The registry in memory: every allocation that is not released, with the look-ups that decisions need.
//!
//! A ledger is a value. Cloning one costs nothing much (its maps share what they have in common), so a step
//! is decided on a clone, and the clone takes the place of the original once the database has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use imbl::ordmap::DiffItem;
use imbl::{HashMap, OrdMap, OrdSet};
use wtd_protocol::State;

use super::allocation::{Allocation, Repository};
use super::allocator::Taken;
use super::identity::{AllocationId, FileIdentity, RepositoryId};
use super::names::VolumeName;
use super::offset::{Offset, OffsetSet};
use super::restoring::Restoring;
use super::trust::Trusted;

/// Allocations that are not released, and the repositories that they belong to.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    allocations: OrdMap<AllocationId, Arc<Allocation>>,
    offsets: OffsetSet,
    by_port: OrdMap<u16, AllocationId>,
    /// Servers that worktrees share, with the number of allocations that use each.
    shared_ports: OrdMap<u16, usize>,
    by_repository: OrdMap<RepositoryId, OrdSet<AllocationId>>,
    /// Live allocations only: a stale one leaves its place to a successor.
    by_path: HashMap<PathBuf, AllocationId>,
    by_git_dir: OrdMap<FileIdentity, AllocationId>,
    repositories: OrdMap<RepositoryId, Arc<Repository>>,
    /// Watched repositories only.
    by_common_dir: HashMap<PathBuf, RepositoryId>,
    by_repository_identity: OrdMap<FileIdentity, RepositoryId>,
    by_state: OrdMap<State, OrdSet<AllocationId>>,
    /// Active allocations whose database or schema is not recorded as made.
    in_want: OrdSet<AllocationId>,
    /// Volumes that were restored, or are being, by the restoring's id.
    restorings: OrdMap<String, Arc<Restoring>>,
    /// What a person has trusted.
    pub trusted: Trusted,
}

/// A difference between two states of a ledger.
#[derive(Debug)]
pub enum LedgerChange<'a> {
    /// An allocation is new, or other than it was.
    Put(&'a Arc<Allocation>),
    /// An allocation is released.
    Removed(AllocationId),
}

/// Two allocations claim one thing that only one can have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("allocation {second} claims {what}, which allocation {first} has")]
pub struct Overlap {
    /// What both claim.
    pub what: String,
    /// Who has it.
    pub first: AllocationId,
    /// Who claims it too.
    pub second: AllocationId,
}

impl Ledger {
    /// The allocation of this id, unless it is released.
    pub fn allocation(&self, id: AllocationId) -> Option<&Arc<Allocation>> {
        self.allocations.get(&id)
    }

    /// Every allocation that is not released, oldest first.
    pub fn allocations(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        self.allocations.values()
    }

    /// What is other than in an earlier state of this ledger. Costs what has changed, not what there is.
    pub fn changes_since<'a>(&'a self, before: &'a Self) -> impl Iterator<Item = LedgerChange<'a>> {
        before.allocations.diff(&self.allocations).map(|change| match change {
            DiffItem::Add(_, now) | DiffItem::Update { new: (_, now), .. } => LedgerChange::Put(now),
            DiffItem::Remove(id, _) => LedgerChange::Removed(*id),
        })
    }

    /// The allocations of a repository that are not released, oldest first.
    pub fn of_repository(&self, id: RepositoryId) -> impl Iterator<Item = &Arc<Allocation>> {
        self.by_repository.get(&id).into_iter().flatten().filter_map(|id| self.allocations.get(id))
    }

    /// The allocation of a repository's main worktree, as long as it is in use.
    pub fn main_of(&self, id: RepositoryId) -> Option<&Arc<Allocation>> {
        self.of_repository(id).find(|it| it.is_main() && it.is_live() && it.ending.is_none())
    }

    /// The live allocation whose worktree's root is at `path`.
    pub fn at_path(&self, path: &Path) -> Option<&Arc<Allocation>> {
        self.by_path.get(path).and_then(|id| self.allocations.get(id))
    }

    /// The live allocation of the git dir with this identity.
    pub fn of_git_dir(&self, identity: FileIdentity) -> Option<&Arc<Allocation>> {
        self.by_git_dir.get(&identity).and_then(|id| self.allocations.get(id))
    }

    /// The repository of this id.
    pub fn repository(&self, id: RepositoryId) -> Option<&Arc<Repository>> {
        self.repositories.get(&id)
    }

    /// Every repository, watched or not.
    pub fn repositories(&self) -> impl Iterator<Item = &Arc<Repository>> {
        self.repositories.values()
    }

    /// The watched repository with this common dir.
    pub fn at_common_dir(&self, common_dir: &Path) -> Option<&Arc<Repository>> {
        self.by_common_dir.get(common_dir).and_then(|id| self.repositories.get(id))
    }

    /// The repository whose common dir has this identity, wherever it was last seen.
    pub fn repository_of(&self, identity: FileIdentity) -> Option<&Arc<Repository>> {
        self.by_repository_identity.get(&identity).and_then(|id| self.repositories.get(id))
    }

    /// How many allocations are in `state`.
    pub fn count(&self, state: State) -> usize {
        self.by_state.get(&state).map_or(0, OrdSet::len)
    }

    /// The allocations in `state`, oldest first.
    pub fn in_state(&self, state: State) -> impl Iterator<Item = &Arc<Allocation>> {
        self.by_state.get(&state).into_iter().flatten().filter_map(|id| self.allocations.get(id))
    }

    /// Whether worktrees share a server on `port`.
    pub fn is_shared(&self, port: u16) -> bool {
        self.shared_ports.contains_key(&port)
    }

    /// The active allocations whose database or schema is to be made, oldest first.
    pub fn in_want(&self) -> impl Iterator<Item = &Arc<Allocation>> {
        self.in_want.iter().filter_map(|id| self.allocations.get(id))
    }

    /// Volumes that were restored or are being, and may be there, oldest first.
    pub fn restorings(&self) -> impl Iterator<Item = &Arc<Restoring>> {
        self.restorings.values()
    }

    /// Those of them that hold an offset, with that.
    pub fn held(&self) -> impl Iterator<Item = (Offset, &VolumeName)> {
        self.restorings.values().filter_map(|it| Some((it.offset?, &it.volume)))
    }

    /// The restoring of this id, unless its volume is known to be gone.
    pub fn restoring(&self, id: &str) -> Option<&Arc<Restoring>> {
        self.restorings.get(id)
    }

    /// Records a volume that is restored, in place of what was recorded of it before.
    pub fn put_restoring(&mut self, restoring: Arc<Restoring>) {
        self.restorings.insert(restoring.id.clone(), restoring);
    }

    /// Forgets a volume that was restored; false when it was forgotten.
    pub fn remove_restoring(&mut self, id: &str) -> bool {
        self.restorings.remove(id).is_some()
    }

    /// The allocation that moved a service to `port`.
    pub fn holder_of_port(&self, port: u16) -> Option<AllocationId> {
        self.by_port.get(&port).copied()
    }

    /// Records a repository, in place of what was recorded of it before.
    pub fn put_repository(&mut self, repository: Arc<Repository>) {
        if let Some(before) = self.repositories.get(&repository.id)
            && self.by_common_dir.get(&before.common_dir) == Some(&before.id)
        {
            self.by_common_dir.remove(&before.common_dir.clone());
        }
        if let Some(before) = self.repositories.get(&repository.id)
            && self.by_repository_identity.get(&before.identity) == Some(&before.id)
        {
            self.by_repository_identity.remove(&before.identity.clone());
        }
        self.by_repository_identity.insert(repository.identity, repository.id);
        if repository.watched {
            self.by_common_dir.insert(repository.common_dir.clone(), repository.id);
        }
        self.repositories.insert(repository.id, repository);
    }

    /// Records an allocation, in place of what was recorded of it before. A released one leaves the ledger.
    pub fn put(&mut self, allocation: Arc<Allocation>) -> Result<(), Overlap> {
        self.remove(allocation.id);
        if allocation.state == State::Released {
            return Ok(());
        }
        let id = allocation.id;
        let overlap = |what: String, first| Overlap { what, first, second: id };
        if !self.offsets.insert(allocation.offset)
            && let Some(first) = self.allocations.values().find(|it| it.offset == allocation.offset)
        {
            return Err(overlap(format!("offset {}", allocation.offset), first.id));
        }
        for port in allocation.claimed_ports() {
            if let Some(first) = self.by_port.insert(port, id) {
                return Err(overlap(format!("port {port}"), first));
            }
        }
        for port in allocation.ports.values().filter(|port| port.shared) {
            *self.shared_ports.entry(port.port).or_insert(0) += 1;
        }
        if allocation.is_live() {
            self.by_path.insert(allocation.path.clone(), id);
            self.by_git_dir.insert(allocation.identity, id);
        }
        self.by_repository.entry(allocation.repository).or_default().insert(id);
        self.by_state.entry(allocation.state).or_default().insert(id);
        if allocation.state == State::Active && !allocation.has_wanted_object() {
            self.in_want.insert(id);
        }
        self.allocations.insert(id, allocation);
        Ok(())
    }

    fn remove(&mut self, id: AllocationId) {
        let Some(before) = self.allocations.remove(&id) else { return };
        self.offsets.remove(before.offset);
        self.in_want.remove(&id);
        for port in before.claimed_ports() {
            self.by_port.remove(&port);
        }
        for port in before.ports.values().filter(|port| port.shared) {
            if let Some(count) = self.shared_ports.get_mut(&port.port) {
                *count -= 1;
                if *count == 0 {
                    self.shared_ports.remove(&port.port);
                }
            }
        }
        if self.by_path.get(&before.path) == Some(&id) {
            self.by_path.remove(&before.path);
        }
        if self.by_git_dir.get(&before.identity) == Some(&id) {
            self.by_git_dir.remove(&before.identity);
        }
        if let Some(alike) = self.by_state.get_mut(&before.state) {
            alike.remove(&id);
        }
        if let Some(siblings) = self.by_repository.get_mut(&before.repository) {
            siblings.remove(&id);
        }
    }
}

impl Taken for Ledger {
    fn offset(&self, offset: Offset) -> bool {
        self.offsets.contains(offset)
    }

    fn holder(&self, offset: Offset) -> Option<String> {
        let (_, volume) = self.held().find(|(held, _)| *held == offset)?;
        Some(format!("volume {volume}, which was restored, belongs to it"))
    }

    fn port(&self, port: u16) -> bool {
        self.by_port.contains_key(&port) || self.shared_ports.contains_key(&port)
    }
}
