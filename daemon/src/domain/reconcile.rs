//! The reconcile step: what is seen of a repository against what is recorded of it.
//!
//! Level-triggered: the outcome depends on the observation and the ledger alone, never on which event led here,
//! and a second step on the same observation changes nothing.

use std::collections::HashSet;
use std::path::PathBuf;
use std::sync::Arc;

use wtd_protocol::State;

use super::allocation::{Allocation, Moment, Repository};
use super::allocator::Exhausted;
use super::draft::{Draft, Record, Surroundings, set_state};
use super::identity::{AllocationId, FileIdentity, RepositoryId};
use super::ledger::{Ledger, Overlap};
use super::observation::{
    Absence, Claim, DirectoryLook, GitAnswer, Observation, ObservedRepository, ObservedWorktree, OriginLook,
    Presence, RootStamp,
};
use super::offset::Offset;
use super::project::Project;

/// How long a worktree that never finished may be gone before it counts as removed, in milliseconds: git holds the
/// lock of a killed `git worktree add` for ever, and would list the entry for ever.
const UNFINISHED_MS: i64 = 60_000;

/// What a reconcile step comes to.
#[derive(Debug)]
pub struct Outcome {
    /// The repository, if the registry knows it (now).
    pub repository: Option<RepositoryId>,
    /// The ledger as it will be.
    pub ledger: Ledger,
    /// What is to be written.
    pub records: Vec<Record>,
    /// The worktrees that are there, each with its allocation.
    pub sightings: Vec<Sighting>,
    /// Worktrees that are there and could not be given an offset.
    pub unallocated: Vec<Unallocated>,
    /// Finished worktrees whose trusted configuration has files kept for them.
    pub env_files: Vec<(AllocationId, Arc<Project>)>,
    /// The observation left a question open; another one is needed.
    pub look_again: bool,
}

/// A worktree that was seen to be there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sighting {
    /// Its allocation.
    pub id: AllocationId,
    /// Marks of its root.
    pub stamp: RootStamp,
    /// Whether git has it locked.
    pub locked: bool,
    /// What its allocation file said.
    pub claim: Claim,
}

/// A worktree without an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unallocated {
    /// Its git dir's incarnation.
    pub identity: FileIdentity,
    /// Its root directory.
    pub path: PathBuf,
    /// Why.
    pub why: Exhausted,
}

/// Decides what an observation means for the registry.
pub fn reconcile(
    ledger: &Ledger,
    observation: &Observation,
    surroundings: &mut impl Surroundings,
) -> Result<Outcome, Overlap> {
    let mut step = Step {
        draft: Draft::new(ledger),
        observation,
        now: surroundings.now(),
        sightings: Vec::new(),
        unallocated: Vec::new(),
        env_files: Vec::new(),
        look_again: false,
        answered: HashSet::new(),
    };
    let repository = match &observation.repository {
        ObservedRepository::Present { identity, main, linked, unlisted } => {
            let id = step.find_repository(*identity, main.as_ref(), surroundings)?;
            for worktree in in_turn(main.iter().chain(linked).collect()) {
                step.worktree(id, worktree, surroundings)?;
            }
            step.unanswered(id, linked, unlisted.as_deref())?;
            Some(id)
        }
        ObservedRepository::Gone => step.all_missing("the repository is gone")?,
        ObservedRepository::Unknown(why) => {
            step.all_missing(&format!("the repository can't be read: {why}"))?
        }
    };
    let Step { draft, sightings, unallocated, env_files, look_again, .. } = step;
    Ok(Outcome {
        repository,
        ledger: draft.ledger,
        records: draft.records,
        sightings,
        unallocated,
        env_files,
        look_again,
    })
}

/// The order in which worktrees that are new together choose their offsets: first those whose file names one, which
/// must not be given away before their turn, then the main worktree, then the others as git made them.
fn in_turn(mut worktrees: Vec<&ObservedWorktree>) -> Vec<&ObservedWorktree> {
    worktrees.sort_by_key(|worktree| {
        let names_an_offset = matches!(worktree.claim, Claim::Allocation { .. });
        (!names_an_offset, worktree.id.is_some(), worktree.identity.born_ns)
    });
    worktrees
}

struct Step<'a> {
    draft: Draft,
    observation: &'a Observation,
    now: Moment,
    sightings: Vec<Sighting>,
    unallocated: Vec<Unallocated>,
    env_files: Vec<(AllocationId, Arc<Project>)>,
    look_again: bool,
    /// Allocations that an observed worktree answers for.
    answered: HashSet<AllocationId>,
}

impl Step<'_> {
    /// The record of the repository that was observed: the one at its path, the one that was moved here, or a new one.
    fn find_repository(
        &mut self,
        identity: FileIdentity,
        main: Option<&ObservedWorktree>,
        surroundings: &mut impl Surroundings,
    ) -> Result<RepositoryId, Overlap> {
        let common_dir = &self.observation.common_dir;
        let at_path = self.draft.ledger.at_common_dir(common_dir).cloned();
        let same = at_path
            .clone()
            .filter(|known| known.identity == identity || known.identity.is_same_after_remount(&identity))
            .or_else(|| self.draft.ledger.repository_of(identity).cloned())
            .or_else(|| {
                // Carried here as a copy whose original is gone, or restored from a backup: its main worktree's
                // allocation says which repository it is.
                let allocation = self.claimed(main?)?;
                self.draft.ledger.repository(allocation.repository).cloned()
            });
        let id = same.as_ref().map_or_else(|| surroundings.new_repository_id(), |known| known.id);
        if let Some(displaced) = at_path.filter(|known| known.id != id) {
            self.draft.put_repository(Repository { watched: false, ..(*displaced).clone() });
            self.lose(displaced.id, "another repository is in its repository's place")?;
        }
        self.draft.put_repository(Repository {
            id,
            common_dir: common_dir.clone(),
            identity,
            main_root: main
                .map(|main| main.path.clone())
                .or_else(|| same.and_then(|known| known.main_root.clone())),
            watched: true,
        });
        Ok(id)
    }

    /// The allocation that the worktree's file names, if the worktree has a right to it: it is the git dir that the
    /// registry has, or stands in its place, or was carried over from another file system where nothing is left of
    /// it. On one file system a move keeps the inode, so what has another one is a copy, even if its original can't
    /// be found (it may have been moved since).
    fn claimed(&self, worktree: &ObservedWorktree) -> Option<Arc<Allocation>> {
        let Claim::Allocation { id, .. } = worktree.claim else { return None };
        let allocation = self.draft.ledger.allocation(id)?;
        let same_git_dir = allocation.identity == worktree.identity || allocation.git_dir == worktree.git_dir;
        let carried_over = || {
            let origin = self.observation.origins.get(&id);
            allocation.identity.device != worktree.identity.device
                && origin.is_some_and(|origin| {
                    origin.git_dir == allocation.git_dir && origin.look == OriginLook::Gone
                })
        };
        let entitled =
            allocation.ending.is_none() && !self.answered.contains(&id) && (same_git_dir || carried_over());
        entitled.then(|| Arc::clone(allocation))
    }

    /// Whether the worktree's file names an allocation of which the observation can't tell whose it is.
    fn claim_is_open(&self, worktree: &ObservedWorktree) -> bool {
        let Claim::Allocation { id, .. } = worktree.claim else { return false };
        let Some(allocation) = self.draft.ledger.allocation(id) else { return false };
        allocation.ending.is_none()
            && !self.answered.contains(&id)
            && allocation.identity != worktree.identity
            && allocation.git_dir != worktree.git_dir
            && self.observation.origins.get(&id).is_none_or(|origin| origin.git_dir != allocation.git_dir)
    }

    /// The allocation of the very git dir that was observed, where no allocation file says so. Without a birth
    /// time, device and inode prove nothing unless the file is there and can't be read.
    fn of_git_dir(&self, repository: RepositoryId, worktree: &ObservedWorktree) -> Option<Arc<Allocation>> {
        if worktree.identity.born_ns.is_none() && !matches!(worktree.claim, Claim::Unusable(_)) {
            return None;
        }
        let same_incarnation = |allocation: &&Arc<Allocation>| {
            allocation.ending.is_none()
                && (allocation.identity == worktree.identity
                    || (allocation.git_dir == worktree.git_dir
                        && allocation.identity.is_same_after_remount(&worktree.identity)))
        };
        let live = self.draft.ledger.of_git_dir(worktree.identity).filter(same_incarnation);
        live.or_else(|| self.draft.ledger.of_repository(repository).find(same_incarnation))
            .filter(|allocation| !self.answered.contains(&allocation.id))
            .cloned()
    }

    fn worktree(
        &mut self,
        repository: RepositoryId,
        worktree: &ObservedWorktree,
        surroundings: &mut impl Surroundings,
    ) -> Result<(), Overlap> {
        if self.claim_is_open(worktree) {
            self.look_again = true;
            return Ok(());
        }
        let known = self.claimed(worktree).or_else(|| self.of_git_dir(repository, worktree));
        if let Some(known) = &known {
            self.answered.insert(known.id);
        }
        let Presence::Present { device, stamp, finished } = worktree.presence else {
            return known.map_or(Ok(()), |known| self.not_present(repository, worktree, &known));
        };
        let allocation = match known {
            Some(known) => {
                let mut after = (*known).clone();
                after.repository = repository;
                after.worktree_id.clone_from(&worktree.id);
                after.git_dir.clone_from(&worktree.git_dir);
                after.identity = worktree.identity;
                after.path.clone_from(&worktree.path);
                after.device = device;
                after.finished |= finished;
                set_state(&mut after, State::Active, "", self.now);
                self.draft.configure(&mut after, &worktree.project, surroundings.rules());
                // One that was recorded since the look began is not the one that was looked for.
                let is_lost =
                    after.compose.as_ref().is_some_and(|own| Some(own.digest) == worktree.lost_override);
                after.compose = after.compose.filter(|_| !is_lost);
                self.draft.put(after)?
            }
            None => {
                let preferred = match worktree.claim {
                    Claim::Allocation { offset, .. } => Some(Offset(offset)),
                    Claim::None | Claim::Unusable(_) => None,
                };
                // A copy's file names the original's offset; only where the registry has lost the allocation
                // is the file's offset this worktree's own.
                let preferred =
                    preferred.filter(|offset| !super::allocator::Taken::offset(&self.draft.ledger, *offset));
                let preferred = preferred.filter(|_| !self.claims_recorded(worktree));
                match self.draft.allocate(repository, worktree, device, finished, preferred, surroundings)? {
                    Ok(allocation) => allocation,
                    Err(why) => {
                        let (identity, path) = (worktree.identity, worktree.path.clone());
                        self.unallocated.push(Unallocated { identity, path, why });
                        return Ok(());
                    }
                }
            }
        };
        self.answered.insert(allocation.id);
        // While git is still checking out, a file could be in its way.
        let project = &worktree.project;
        if finished && !project.env_files.is_empty() && self.draft.ledger.trusted.allows(repository, project)
        {
            self.env_files.push((allocation.id, Arc::clone(project)));
        }
        let (id, locked, claim) = (allocation.id, worktree.locked, worktree.claim.clone());
        self.sightings.push(Sighting { id, stamp, locked, claim });
        Ok(())
    }

    /// Whether the worktree's file names an allocation that the registry has.
    fn claims_recorded(&self, worktree: &ObservedWorktree) -> bool {
        matches!(worktree.claim, Claim::Allocation { id, .. } if self.draft.ledger.allocation(id).is_some())
    }

    /// A worktree that git has, and whose directory is not there or not its own.
    fn not_present(
        &mut self,
        repository: RepositoryId,
        worktree: &ObservedWorktree,
        known: &Allocation,
    ) -> Result<(), Overlap> {
        if known.state == State::Stale {
            return Ok(());
        }
        // git is writing there (`gitdir` is empty for a moment of a move): the next look will tell.
        if self.observation.unsettled && matches!(worktree.presence, Presence::Unknown(_)) {
            return Ok(());
        }
        let mut after = known.clone();
        after.repository = repository;
        after.worktree_id.clone_from(&worktree.id);
        after.git_dir.clone_from(&worktree.git_dir);
        after.identity = worktree.identity;
        let reason = match &worktree.presence {
            Presence::Missing { device_above } if *device_above != Some(known.device) => {
                "its directory is gone, and so may be the disk that it was on".to_owned()
            }
            Presence::Missing { .. } if worktree.locked => {
                "its directory is gone; git has it locked".to_owned()
            }
            Presence::Missing { .. } => "its directory is gone; git still lists it".to_owned(),
            Presence::Foreign => {
                "its directory does not point back at this repository; `git worktree repair` mends that"
                    .to_owned()
            }
            Presence::Unknown(why) => format!("its directory can't be read: {why}"),
            Presence::Present { .. } => return Ok(()),
        };
        let never_finished = !known.finished
            && known.state == State::Missing
            && self.now.0 - known.since.0 >= UNFINISHED_MS
            && matches!(worktree.presence, Presence::Missing { device_above } if device_above == Some(known.device));
        if never_finished {
            set_state(
                &mut after,
                State::Stale,
                "`git worktree add` never finished, and its directory is gone",
                self.now,
            );
        } else {
            set_state(&mut after, State::Missing, &reason, self.now);
        }
        self.draft.put(after).map(drop)
    }

    /// The recorded allocations for which no observed worktree answers.
    fn unanswered(
        &mut self,
        repository: RepositoryId,
        linked: &[ObservedWorktree],
        unlisted: Option<&str>,
    ) -> Result<(), Overlap> {
        let open: Vec<_> = self
            .draft
            .ledger
            .of_repository(repository)
            .filter(|allocation| allocation.is_live() && !self.answered.contains(&allocation.id))
            .cloned()
            .collect();
        for allocation in open {
            let mut after = (*allocation).clone();
            let replaced = linked.iter().any(|other| {
                other.path == allocation.path && matches!(other.presence, Presence::Present { device, .. } if device == allocation.device)
            });
            let removal = if allocation.is_main() {
                Removal::Unproven("the repository has no main worktree now".to_owned())
            } else if let Some(why) = unlisted {
                Removal::Unproven(format!("git's worktrees can't all be listed: {why}"))
            } else if replaced {
                Removal::Proven("git removed it, and has another worktree in its place")
            } else {
                let absence = self.observation.absences.get(&allocation.id);
                absence
                    .filter(|absence| absence.git_dir == allocation.git_dir)
                    .map_or(Removal::Unanswered, |absence| removal(&allocation, absence))
            };
            match removal {
                Removal::Proven(reason) => set_state(&mut after, State::Stale, reason, self.now),
                Removal::Unproven(reason) => set_state(&mut after, State::Missing, &reason, self.now),
                Removal::Unanswered => {
                    self.look_again = true;
                    continue;
                }
            }
            self.draft.put(after)?;
        }
        Ok(())
    }

    /// Nothing can be seen of the repository at this path: its allocations are missing, and nothing is removed.
    fn all_missing(&mut self, reason: &str) -> Result<Option<RepositoryId>, Overlap> {
        let Some(repository) =
            self.draft.ledger.at_common_dir(&self.observation.common_dir).map(|known| known.id)
        else {
            return Ok(None);
        };
        self.lose(repository, reason)?;
        Ok(Some(repository))
    }

    /// Makes a repository's live allocations missing.
    fn lose(&mut self, repository: RepositoryId, reason: &str) -> Result<(), Overlap> {
        let all = self.draft.ledger.of_repository(repository);
        let live: Vec<_> = all.filter(|allocation| allocation.is_live()).cloned().collect();
        for allocation in live {
            let mut after = (*allocation).clone();
            set_state(&mut after, State::Missing, reason, self.now);
            self.draft.put(after)?;
        }
        Ok(())
    }
}

/// Whether a worktree that git does not list is proven removed.
pub(super) enum Removal {
    /// It is; how.
    Proven(&'static str),
    /// It is not; why.
    Unproven(String),
    /// The observation says nothing about it.
    Unanswered,
}

/// The contract's "proven removed": git answers and no longer lists it, *and* its directory is gone or points elsewhere,
/// *and* the nearest directory above is on the device that the worktree was on. (That the common dir exists is why we
/// are here.)
pub(super) fn removal(allocation: &Allocation, absence: &Absence) -> Removal {
    let device = match &absence.directory {
        DirectoryLook::Gone { device_above } => *device_above,
        DirectoryLook::PointsElsewhere { device } => Some(*device),
        DirectoryLook::StillPointsBack => {
            return Removal::Unproven(
                "git has no entry for it any more, but its directory still stands".to_owned(),
            );
        }
        DirectoryLook::Unknown(why) => {
            return Removal::Unproven(format!(
                "git has no entry for it any more, and its directory can't be read: {why}"
            ));
        }
    };
    if device != Some(allocation.device) {
        return Removal::Unproven("it is gone, and so may be the disk that it was on".to_owned());
    }
    match &absence.git {
        GitAnswer::NotListed => Removal::Proven("git removed it"),
        GitAnswer::Listed => Removal::Unproven("its entry can't be read, but git lists it".to_owned()),
        GitAnswer::Failed(why) => Removal::Unproven(format!("it is gone, but git could not be asked: {why}")),
        GitAnswer::NotAsked => Removal::Unanswered,
    }
}

#[cfg(test)]
mod tests;
