//! What one fresh look at a repository proves of a worktree that is recorded as gone.

use crate::domain::allocation::{Allocation, Repository};
use crate::domain::observation::{Observation, ObservedRepository, ObservedWorktree, Presence};
use crate::domain::reconcile::{Removal, removal};

/// What a fresh look says of an allocation's worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// It is proven removed, as the contract has it.
    Removed,
    /// It is there.
    Standing,
    /// git has it locked: it may be on a disk that is not there now (git-worktree(1), `lock`).
    Locked,
    /// It is not proven removed; the reason.
    Unproven(String),
}

/// Reads an observation of the allocation's repository that was made with the allocation among its `recorded`.
pub fn proof(allocation: &Allocation, repository: &Repository, observation: &Observation) -> Proof {
    let (identity, main, linked, unlisted) = match &observation.repository {
        ObservedRepository::Gone => return Proof::Unproven("its repository is gone".to_owned()),
        ObservedRepository::Unknown(why) => {
            return Proof::Unproven(format!("its repository can't be read: {why}"));
        }
        ObservedRepository::Present { identity, main, linked, unlisted } => {
            (identity, main, linked, unlisted)
        }
    };
    if repository.identity != *identity && !repository.identity.is_same_after_remount(identity) {
        return Proof::Unproven("another repository stands where its own was".to_owned());
    }
    let is_same = |found: &&ObservedWorktree| {
        found.git_dir == allocation.git_dir
            && (found.identity == allocation.identity
                || found.identity.is_same_after_remount(&allocation.identity))
    };
    if let Some(found) = main.iter().chain(linked).find(is_same) {
        return match &found.presence {
            Presence::Present { .. } => Proof::Standing,
            _ if found.locked => Proof::Locked,
            Presence::Missing { .. } => Proof::Unproven("git still lists it".to_owned()),
            Presence::Foreign => {
                Proof::Unproven("git still lists it, and its directory points elsewhere".to_owned())
            }
            Presence::Unknown(why) => Proof::Unproven(format!("its directory can't be read: {why}")),
        };
    }
    if allocation.is_main() {
        return Proof::Unproven("a main worktree is removed with its repository only".to_owned());
    }
    if let Some(why) = unlisted {
        return Proof::Unproven(format!("git's worktrees can't all be listed: {why}"));
    }
    let absence = observation.absences.get(&allocation.id);
    match absence.filter(|absence| absence.git_dir == allocation.git_dir).map(|it| removal(allocation, it)) {
        Some(Removal::Proven(_)) => Proof::Removed,
        Some(Removal::Unproven(why)) => Proof::Unproven(why),
        Some(Removal::Unanswered) => Proof::Unproven("git could not be asked about it".to_owned()),
        // Its allocation file turned up in another git dir.
        None => Proof::Standing,
    }
}
