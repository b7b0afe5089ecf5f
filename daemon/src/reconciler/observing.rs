//! One look at a repository, with its watches set.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::wanted::{first_watches, wanted_watches};
use super::{LastLook, Reconciler, as_recorded};
use crate::domain::observation::{Observation, Recorded};
use crate::git::ask::{self, AskError, Listing};
use crate::git::{Look, ObserveRequest, files, observe};
use crate::permit::Permit;
use crate::project_file;

/// How long git is not asked again where it did not answer in time.
const RESPITE: Duration = Duration::from_mins(1);

/// How often one look is repeated because it set watches, so that what happened just before them is seen too.
const ROUNDS: usize = 5;

impl Reconciler {
    /// Asks git which worktrees a repository has; none when it has to be asked later.
    fn ask_git(&self, common_dir: &Path) -> Option<Listing> {
        let hung = self.0.hung.lock().get(common_dir).copied();
        if hung.is_some_and(|at| at.elapsed() < RESPITE) {
            return Some(Err(AskError::Timeout));
        }
        let _asking = self.0.asking.try_acquire().ok()?;
        let answer = ask::worktree_paths(common_dir);
        if matches!(answer, Err(AskError::Timeout)) {
            self.0.hung.lock().insert(common_dir.to_owned(), Instant::now());
        } else {
            self.0.hung.lock().remove(common_dir);
        }
        Some(answer)
    }

    /// Watches, then reads, and reads again whenever reading showed something more to watch. Blocks.
    pub(super) fn observe(
        &self,
        common_dir: &Path,
        root_hint: Option<&Path>,
        permit: &Permit,
    ) -> Observation {
        // git can be kept waiting by what a repository holds, and then must keep nobody else waiting.
        let ask_git = |common_dir: &Path| {
            permit.give_back();
            self.ask_git(common_dir)
        };
        let snapshot = self.0.writer.snapshot();
        // A repository that was moved is known by its common dir's identity.
        let moved_here = || snapshot.ledger.repository_of(files::identity(common_dir).ok()?);
        let repository = snapshot.ledger.at_common_dir(common_dir).or_else(moved_here);
        let recorded: Vec<Recorded> = repository
            .map(|repository| snapshot.ledger.of_repository(repository.id))
            .into_iter()
            .flatten()
            .filter(|allocation| allocation.is_live())
            .map(|allocation| as_recorded(allocation))
            .collect();
        let root_hint = root_hint.map(Path::to_owned).or_else(|| repository?.main_root.clone());
        let memory =
            self.0.looks.lock().get(common_dir).map(|last| Arc::clone(&last.memory)).unwrap_or_default();
        let mut request = ObserveRequest {
            common_dir: common_dir.to_owned(),
            root_hint,
            recorded,
            memory,
            claims: &|id| snapshot.ledger.allocation(id).map(|allocation| as_recorded(allocation)),
            load_project: &project_file::load,
            ask_git: &ask_git,
        };
        // What is known to be needed is watched before the first read, which then mostly is the only one.
        let watches = self.watches();
        if let Some(watches) = watches
            && !watches.are_set(common_dir)
        {
            watches.set(common_dir, first_watches(&request));
        }
        let mut look = observe(&request);
        let mut complete = false;
        for _ in 0..ROUNDS {
            let wanted = || wanted_watches(&look.observation, &request.recorded);
            let Some(set) = watches.map(|watches| watches.set(common_dir, wanted())) else {
                break;
            };
            complete = set.complete;
            if !set.added {
                break;
            }
            request.memory = Arc::new(look.memory);
            look = observe(&request);
        }
        if complete {
            self.0.polled.lock().remove(common_dir);
        } else if self.0.polled.lock().insert(common_dir.to_owned()) {
            // The sweep has to learn that there is something to poll.
            self.0.overflowed.notify_one();
        }
        let Look { observation, fingerprint, memory } = look;
        let last = LastLook { fingerprint, memory: Arc::new(memory) };
        self.0.looks.lock().insert(common_dir.to_owned(), last);
        observation
    }
}
