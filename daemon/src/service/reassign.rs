//! A person moves a worktree to another offset.

use std::sync::Arc;

use std::path::PathBuf;

use bytes::Bytes;
use wtd_protocol::gc::EngineHint;
use wtd_protocol::{Problem, ProblemType, State};

use super::Service;
use super::resolve::BARRED;
use crate::domain::allocation::{Allocation, Ending};
use crate::domain::allocator::Exhausted;
use crate::domain::draft::{Draft, Record, Surroundings};
use crate::domain::gc::belongings::left_overs;
use crate::domain::gc::looks_of;
use crate::domain::identity::AllocationId;
use crate::domain::observation::{Claim, ObservedWorktree, Presence};
use crate::engine::EngineError;
use crate::problem;
use crate::registry::{Decision, allocation_file};

/// What a reassignment came to.
enum Outcome {
    Moved(AllocationId),
    Exhausted(Exhausted),
    Gone,
}

impl Service {
    /// Gives the worktree that holds `path` another offset. The old allocation becomes stale, so that nobody gets its
    /// offset while data of it is left. Refused while the worktree's volume exists, or can't be asked after, unless
    /// `force` says that the data may stay behind under the old name.
    pub async fn reassign(&self, path: PathBuf, force: bool, engine: &EngineHint) -> Result<Bytes, Problem> {
        let known = self.known(&path).await?;
        let snapshot = self.0.writer.snapshot();
        if !force {
            self.refuse_while_volumes_exist(&known, engine).await?;
            self.refuse_while_its_database_exists(&known).await?;
        }
        let root = known.path.clone();
        let (main_root, common_dir) = snapshot
            .ledger
            .repository(known.repository)
            .map(|repository| (repository.main_root.clone(), repository.common_dir.clone()))
            .unwrap_or_default();
        let at = common_dir.clone();
        let project =
            tokio::task::spawn_blocking(move || crate::project_file::load(&root, main_root.as_deref(), &at))
                .await
                .map_err(|_| problem::shutting_down())?;
        let has_env_files = !project.env_files.is_empty();
        let sighting = snapshot.sighting(known.id).cloned();
        let id = known.id;
        let outcome = self
            .0
            .writer
            .commit(move |ledger, system| {
                let live =
                    ledger.allocation(id).filter(|now| now.state == State::Active && now.ending.is_none());
                let (Some(now), Some(sighting)) = (live, sighting) else { return Ok((None, Outcome::Gone)) };
                let mut draft = Draft::new(ledger);
                draft.end(now, Ending::Reassigned, "moved to another offset by a person", system.now())?;
                let worktree = ObservedWorktree {
                    id: now.worktree_id.clone(),
                    git_dir: now.git_dir.clone(),
                    identity: now.identity,
                    path: now.path.clone(),
                    presence: Presence::Present {
                        device: now.device,
                        stamp: sighting.stamp,
                        finished: now.finished,
                    },
                    locked: sighting.locked,
                    claim: Claim::None,
                    lost_override: None,
                    project: project.into(),
                };
                let given =
                    draft.allocate(now.repository, &worktree, now.device, now.finished, None, system)?;
                let successor = match given {
                    Ok(successor) => successor,
                    Err(why) => return Ok((None, Outcome::Exhausted(why))),
                };
                let successor_seen =
                    crate::domain::reconcile::Sighting { id: successor.id, ..(*sighting).clone() };
                let records: Vec<Record> = draft.records;
                let decision = Decision {
                    ledger: draft.ledger,
                    records,
                    seen: Some((now.repository, vec![successor_seen], Vec::new())),
                };
                Ok((Some(decision), Outcome::Moved(successor.id)))
            })
            .await
            .map_err(|error| problem::not_written(&error))?;
        match outcome {
            Outcome::Moved(id) => {
                let snapshot = self.0.writer.snapshot();
                if let Some(allocation) = snapshot.ledger.allocation(id) {
                    tokio::task::block_in_place(|| allocation_file::write(allocation, &Claim::None));
                }
                self.0.reconciler.notice_stale();
                if has_env_files {
                    // They have the new ports when the command ends. Where this fails, the next look tells.
                    drop(self.0.reconciler.reconcile_now(&common_dir, None).await);
                }
                snapshot.answer(id).cloned().ok_or_else(problem::shutting_down)
            }
            Outcome::Exhausted(why) => Err(Problem::new(
                ProblemType::OffsetsExhausted,
                format!("no other offset is left for {}: {why}", path.display()),
                if why.barred.is_some() {
                    BARRED
                } else {
                    "`wtd-client gc` frees those of stale allocations"
                },
            )),
            Outcome::Gone => Err(Problem::new(
                ProblemType::NotInAWorktree,
                format!("{} has just been removed", path.display()),
                "`wtd-client list` shows what is there",
            )),
        }
    }

    async fn refuse_while_volumes_exist(
        &self,
        allocation: &Arc<Allocation>,
        engine: &EngineHint,
    ) -> Result<(), Problem> {
        let refusal = |why: String| {
            Problem::new(
                ProblemType::VolumeExists,
                format!(
                    "offset {} of {} is not changed: {why}",
                    allocation.offset,
                    allocation.path.display()
                ),
                "`--force` moves the worktree and leaves the data where it is",
            )
        };
        let unknown = |why: EngineError| {
            refusal(format!("the container engine can't say whether its volume exists ({why})"))
        };
        let looks = self.0.history.looks(&[allocation.id]).await.map_err(|why| {
            Problem::new(ProblemType::RegistryUnavailable, why.to_string(), "see `wtd-client doctor`")
        })?;
        let looks = looks_of(&looks, allocation.id);
        let own = &self.0.engine;
        let persons = own.of_person(engine);
        let both = [Some(own), (!persons.is_same(own)).then_some(&persons)];
        for engine in both.into_iter().flatten() {
            let connection = match engine.open().await {
                // Where the daemon finds none by itself, the one that the person names is all there is.
                Err(EngineError::NoSocket) if !engine.is_same(&persons) => None,
                opened => opened.map_err(unknown)?,
            };
            let Some(connection) = connection else { continue };
            let view = connection.view().await.map_err(unknown)?;
            if let Some(name) = left_overs(allocation, looks, &view).first() {
                return Err(refusal(format!("{name} exists")));
            }
        }
        Ok(())
    }

    /// What somebody else has under the worktree's name is a reason to move it, and none to stay.
    async fn refuse_while_its_database_exists(&self, allocation: &Allocation) -> Result<(), Problem> {
        let exists = match self.0.databases.own_left_of(allocation).await {
            Ok(None) => return Ok(()),
            Ok(Some(left)) => format!("{left} exists"),
            Err(why) => why.to_string(),
        };
        Err(Problem::new(
            ProblemType::VolumeExists,
            format!("offset {} of {} is not changed: {exists}", allocation.offset, allocation.path.display()),
            "`--force` moves the worktree and leaves the data where it is",
        ))
    }
}
