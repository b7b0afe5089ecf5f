//! Which directories are to be watched for a repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::domain::observation::{Observation, ObservedRepository, ObservedWorktree, Presence, Recorded};
use crate::git::ObserveRequest;
use crate::watch::{Role, interest};

/// How many entries of one repository are watched that no allocation is recorded for and that lead nowhere. The others
/// are noticed when somebody asks for them, and by the sweep: what comes as an archive can have any number of them, and
/// watches are not only ours.
const STRANGERS: usize = 256;

/// The watches that a repository is known to need before it is looked at for the first time.
pub(super) fn first_watches(request: &ObserveRequest<'_>) -> BTreeSet<(PathBuf, Role)> {
    let mut wanted = BTreeSet::from([(request.common_dir.clone(), Role::CommonDir)]);
    wanted.extend(worktrees_dir(&request.common_dir));
    wanted.extend(request.root_hint.clone().map(|root| (root, Role::Root)));
    for known in &request.recorded {
        if !known.main {
            wanted.insert((known.git_dir.clone(), Role::GitDir));
        }
        wanted.insert((known.path.clone(), Role::Root));
    }
    wanted
}

fn worktrees_dir(common_dir: &Path) -> Option<(PathBuf, Role)> {
    let worktrees = common_dir.join("worktrees");
    worktrees.is_dir().then_some((worktrees, Role::Worktrees))
}

/// The watches that tell of every change to what was observed.
pub(super) fn wanted_watches(observation: &Observation, recorded: &[Recorded]) -> BTreeSet<(PathBuf, Role)> {
    let common_dir = &observation.common_dir;
    let awaiting =
        |path: &Path| interest::nearest_above(path).map(|(above, name)| (above, Role::Awaiting(name)));
    let mut wanted = BTreeSet::new();
    match &observation.repository {
        ObservedRepository::Present { main, linked, .. } => {
            wanted.insert((common_dir.clone(), Role::CommonDir));
            wanted.extend(worktrees_dir(common_dir));
            let is_known = |worktree: &ObservedWorktree| {
                matches!(worktree.presence, Presence::Present { .. })
                    || recorded.iter().any(|known| known.git_dir == worktree.git_dir)
            };
            let mut strangers = 0;
            for worktree in main.iter().chain(linked) {
                if !is_known(worktree) {
                    strangers += 1;
                    if strangers > STRANGERS {
                        continue;
                    }
                }
                if worktree.id.is_some() {
                    wanted.insert((worktree.git_dir.clone(), Role::GitDir));
                }
                match worktree.presence {
                    Presence::Present { .. } | Presence::Foreign | Presence::Unknown(_) => {
                        wanted.insert((worktree.path.clone(), Role::Root));
                    }
                    Presence::Missing { .. } if worktree.path.is_dir() => {
                        wanted.insert((worktree.path.clone(), Role::Root));
                    }
                    Presence::Missing { .. } => wanted.extend(awaiting(&worktree.path)),
                }
            }
            // Directories that git has no entry for any more: once they are gone too, nothing is left of the worktree.
            let unlisted = recorded.iter().filter(|known| observation.absences.contains_key(&known.id));
            for known in unlisted.filter(|known| known.path.is_dir()) {
                wanted.insert((known.path.clone(), Role::Root));
            }
        }
        // One that is restored file by file, or made again.
        ObservedRepository::Gone if common_dir.is_dir() => {
            let parts = ["HEAD", "objects", "refs"].map(|name| Role::Awaiting(name.into()));
            wanted.extend(parts.map(|part| (common_dir.clone(), part)));
        }
        ObservedRepository::Gone => wanted.extend(awaiting(common_dir)),
        ObservedRepository::Unknown(_) => {
            wanted.insert((common_dir.clone(), Role::CommonDir));
        }
    }
    wanted
}
