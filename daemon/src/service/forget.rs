//! A person gives a repository up, or a worktree that is missing.

use std::path::PathBuf;
use std::sync::Arc;

use wtd_protocol::requests::Forgotten;
use wtd_protocol::{PathText, Problem, ProblemType, State};

use super::Service;
use crate::domain::allocation::{Allocation, Ending, Repository};
use crate::domain::draft::{Draft, Surroundings};
use crate::domain::ledger::Ledger;
use crate::git::links::canonical;
use crate::problem;
use crate::registry::{Decision, allocation_file, compose_override};
use crate::wire;

/// What a path in a request to forget means.
#[derive(Debug, Clone)]
struct Target {
    repository: Arc<Repository>,
    whole: bool,
    allocations: Vec<Arc<Allocation>>,
}

impl Target {
    fn on_the_wire(&self, has_engine: bool) -> Forgotten {
        let common_dir = &self.repository.common_dir;
        Forgotten {
            repository: PathText::of(common_dir).text,
            whole_repository: self.whole,
            allocations: self
                .allocations
                .iter()
                .map(|allocation| wire::allocation(allocation, common_dir, false))
                .collect(),
            has_engine,
        }
    }
}

impl Service {
    /// Forgets what `path` means: a worktree that is missing, alone, or the whole repository that holds the path. Its
    /// allocations become stale and their files are deleted; no volume is touched. With `dry_run`, only says so.
    pub async fn forget(&self, path: PathBuf, dry_run: bool) -> Result<Forgotten, Problem> {
        // The registry has paths without links and `..`; one that is missing can't be looked up to find that out.
        let asked = path.clone();
        let path = tokio::task::spawn_blocking(move || canonical(&asked)).await.unwrap_or(path);
        let common_dir = self.discover(path.clone()).await.ok().map(|found| found.discovered.common_dir);
        let unknown = {
            let path = path.clone();
            move || {
                Problem::new(
                    ProblemType::NotRegistered,
                    format!("{} is in no repository that wtd watches", path.display()),
                    "`wtd-client list` shows what it knows",
                )
            }
        };
        let engine = self.0.engine.clone();
        // Where it is can stand in a file of Docker's.
        let has_engine = tokio::task::spawn_blocking(move || !engine.is_absent()).await.unwrap_or(true);
        if dry_run {
            let target = target(&self.0.writer.glance().ledger, &path, common_dir.as_deref());
            return Ok(target.ok_or_else(unknown)?.on_the_wire(has_engine));
        }
        // The registry first: a file without its allocation means nothing, an allocation without its file would be
        // taken up again. What the path means is told at that moment: a worktree that is being added meanwhile is
        // forgotten too, or stays without an allocation.
        let target = self
            .0
            .writer
            .commit(move |ledger, system| {
                let Some(target) = target(ledger, &path, common_dir.as_deref()) else {
                    return Ok((None, None));
                };
                let mut draft = Draft::new(ledger);
                // One that git has removed stays what it is: gc may drop what is left of it without another word.
                for allocation in target.allocations.iter().filter(|it| it.state != State::Stale) {
                    draft.end(allocation, Ending::Forgotten, "forgotten by a person", system.now())?;
                }
                if target.whole {
                    draft.put_repository(Repository { watched: false, ..(*target.repository).clone() });
                    draft.revoke(target.repository.id);
                }
                let decision = Decision { ledger: draft.ledger, records: draft.records, seen: None };
                Ok((Some(decision), Some(target)))
            })
            .await
            .map_err(|error| problem::not_written(&error))?
            .ok_or_else(unknown)?;
        if target.whole {
            self.0.reconciler.forget(&target.repository.common_dir);
        }
        tokio::task::block_in_place(|| {
            for allocation in &target.allocations {
                allocation_file::remove(&allocation.git_dir);
                if allocation.compose.is_some() {
                    compose_override::remove(&allocation.git_dir);
                }
            }
        });
        self.0.reconciler.notice_stale();
        Ok(target.on_the_wire(has_engine))
    }
}

fn target(ledger: &Ledger, path: &std::path::Path, common_dir: Option<&std::path::Path>) -> Option<Target> {
    // A missing worktree of a repository that stands is given up alone: forgetting its siblings would give each of
    // them a new offset at the next prompt.
    if let Some(allocation) = ledger.at_path(path).filter(|known| known.state == State::Missing) {
        let repository = Arc::clone(ledger.repository(allocation.repository)?);
        let has_others = ledger.of_repository(repository.id).any(|other| other.state == State::Active);
        if has_others {
            return Some(Target { repository, whole: false, allocations: vec![Arc::clone(allocation)] });
        }
    }
    let repository = common_dir
        .and_then(|common_dir| ledger.at_common_dir(common_dir))
        .or_else(|| ledger.at_common_dir(path))
        .or_else(|| ledger.repository(ledger.at_path(path)?.repository))
        .map(Arc::clone)?;
    let allocations =
        ledger.of_repository(repository.id).filter(|known| known.ending.is_none()).cloned().collect();
    Some(Target { repository, whole: true, allocations })
}
