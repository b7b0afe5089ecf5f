//! A person gives a repository up, or a worktree that is missing.

use std::path::PathBuf;
use std::sync::Arc;

use wtd_protocol::requests::Forgotten;
use wtd_protocol::{PathText, Problem, ProblemType, State};

use super::{Service, write_problem};
use crate::domain::allocation::{Allocation, Ending, Repository};
use crate::domain::draft::{Draft, Surroundings};
use crate::domain::ledger::Ledger;
use crate::registry::{Decision, allocation_file, compose_override};
use crate::wire;

/// What a path in a request to forget means.
#[derive(Debug, Clone)]
struct Target {
    repository: Arc<Repository>,
    whole: bool,
    allocations: Vec<Arc<Allocation>>,
}

impl Service {
    /// Forgets what `path` means: a worktree that is missing, alone, or the whole repository that holds the path. Its
    /// allocations become stale and their files are deleted; no volume is touched. With `dry_run`, only says so.
    pub async fn forget(&self, path: PathBuf, dry_run: bool) -> Result<Forgotten, Problem> {
        let common_dir = self.discover(path.clone()).await.ok().map(|found| found.discovered.common_dir);
        let target =
            target(&self.0.writer.glance().ledger, &path, common_dir.as_deref()).ok_or_else(|| {
                Problem::new(
                    ProblemType::NotRegistered,
                    format!("{} is in no repository that wtd watches", path.display()),
                    "`wtd-client list` shows what it knows",
                )
            })?;
        let forgotten = Forgotten {
            repository: PathText::of(&target.repository.common_dir).text,
            whole_repository: target.whole,
            allocations: target
                .allocations
                .iter()
                .map(|allocation| wire::allocation(allocation, &target.repository.common_dir, false))
                .collect(),
        };
        if dry_run {
            return Ok(forgotten);
        }
        // The registry first: a file without its allocation means nothing, an allocation without its file would be
        // taken up again.
        let (for_step, for_files) = (target.clone(), target);
        self.0
            .writer
            .commit(move |ledger, system| {
                let mut draft = Draft::new(ledger);
                for allocation in &for_step.allocations {
                    // As it is now, not as it was when the question was put.
                    if let Some(allocation) =
                        ledger.allocation(allocation.id).filter(|now| now.ending.is_none())
                    {
                        draft.end(allocation, Ending::Forgotten, "forgotten by a person", system.now())?;
                    }
                }
                if for_step.whole {
                    draft.put_repository(Repository { watched: false, ..(*for_step.repository).clone() });
                    draft.revoke(for_step.repository.id);
                }
                Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
            })
            .await
            .map_err(|error| write_problem(&error))?;
        if for_files.whole {
            self.0.reconciler.forget(&for_files.repository.common_dir);
        }
        for allocation in &for_files.allocations {
            allocation_file::remove(&allocation.git_dir);
            if allocation.compose.is_some() {
                compose_override::remove(&allocation.git_dir);
            }
        }
        self.0.reconciler.notice_stale();
        Ok(forgotten)
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
