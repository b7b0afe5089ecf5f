//! Fresh looks at the repositories of worktrees that are recorded as gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::domain::allocation::Allocation;
use crate::domain::gc::proof::{Proof, proof};
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::Ledger;
use crate::git::{Memory, ObserveRequest, ask, observe};
use crate::project_file;
use crate::reconciler::as_recorded;

/// Looks at each repository once, and asks git itself where the files speak for a removal. Blocks.
pub(super) fn prove(ledger: &Ledger, allocations: &[Arc<Allocation>]) -> HashMap<AllocationId, Proof> {
    let mut by_repository: BTreeMap<RepositoryId, Vec<&Arc<Allocation>>> = BTreeMap::new();
    for allocation in allocations {
        by_repository.entry(allocation.repository).or_default().push(allocation);
    }
    let mut proofs = HashMap::new();
    for (id, allocations) in by_repository {
        let Some(repository) = ledger.repository(id) else { continue };
        let look = observe(&ObserveRequest {
            common_dir: repository.common_dir.clone(),
            root_hint: repository.main_root.clone(),
            recorded: allocations.iter().map(|allocation| as_recorded(allocation)).collect(),
            claims: &|_| None,
            memory: Arc::new(Memory::default()),
            load_project: &project_file::load,
            ask_git: &|common_dir| Some(ask::worktree_paths(common_dir)),
        });
        for allocation in allocations {
            proofs.insert(allocation.id, proof(allocation, repository, &look.observation));
        }
    }
    proofs
}

/// What two looks say together: a removal only if both do.
pub(super) fn both(first: Proof, second: Proof) -> Proof {
    if first == Proof::Removed { second } else { first }
}
