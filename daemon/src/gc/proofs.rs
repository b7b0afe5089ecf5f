//! Fresh looks at the repositories of worktrees that are recorded as gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::domain::allocation::{Allocation, Repository};
use crate::domain::gc::proof::{Proof, proof};
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::ledger::Ledger;
use crate::git::{Memory, ObserveRequest, ask, observe};
use crate::project_file;
use crate::reconciler::as_recorded;

/// How long a repository may take to be looked at: git itself is given 5 s.
const PATIENCE: Duration = Duration::from_secs(10);

type Proofs = HashMap<AllocationId, Proof>;

/// Looks at each repository once, at all of them together. One that does not let itself be looked at proves nothing, and
/// keeps nobody else's worktrees from being proven removed.
pub(super) async fn prove(ledger: &Ledger, allocations: &[Arc<Allocation>]) -> Proofs {
    let mut by_repository: BTreeMap<RepositoryId, Vec<Arc<Allocation>>> = BTreeMap::new();
    for allocation in allocations {
        by_repository.entry(allocation.repository).or_default().push(Arc::clone(allocation));
    }
    let looks: JoinSet<Proofs> = by_repository
        .into_iter()
        .filter_map(|(id, allocations)| Some((Arc::clone(ledger.repository(id)?), allocations)))
        .map(|(repository, allocations)| async move {
            let ids: Vec<AllocationId> = allocations.iter().map(|allocation| allocation.id).collect();
            let look = tokio::task::spawn_blocking(move || look(&repository, &allocations));
            let why = match tokio::time::timeout(PATIENCE, look).await {
                Ok(Ok(proofs)) => return proofs,
                Ok(Err(_)) => "the look at its repository broke off".to_owned(),
                Err(_) => format!("its repository could not be read within {} s", PATIENCE.as_secs()),
            };
            ids.into_iter().map(|id| (id, Proof::Unproven(why.clone()))).collect()
        })
        .collect();
    looks.join_all().await.into_iter().flatten().collect()
}

/// One fresh look, and git itself asked where the files speak for a removal. Blocks.
fn look(repository: &Repository, allocations: &[Arc<Allocation>]) -> Proofs {
    let look = observe(&ObserveRequest {
        common_dir: repository.common_dir.clone(),
        root_hint: repository.main_root.clone(),
        recorded: allocations.iter().map(|allocation| as_recorded(allocation)).collect(),
        claims: &|_| None,
        memory: Arc::new(Memory::default()),
        load_project: &project_file::load,
        ask_git: &|common_dir| Some(ask::worktree_paths(common_dir)),
    });
    let proven = |allocation: &Arc<Allocation>| proof(allocation, repository, &look.observation);
    allocations.iter().map(|allocation| (allocation.id, proven(allocation))).collect()
}

/// What two looks say together: a removal only if both do.
pub(super) fn both(first: Proof, second: Proof) -> Proof {
    if first == Proof::Removed { second } else { first }
}
