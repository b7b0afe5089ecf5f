//! One look at a repository: which worktrees it has, and what is at their roots.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::absence::{self, Seen};
use super::entry::Looker;
use super::files::{self, Unreadable};
use super::fingerprint::{Covered, Fingerprint};
use super::memory::Memory;
use super::request::ObserveRequest;
use super::{git_dir, main_worktree};
use crate::domain::identity::FileIdentity;
use crate::domain::observation::{Observation, ObservedRepository, ObservedWorktree, Presence};

/// What was seen, and what that rests on.
#[derive(Debug, Clone)]
pub struct Look {
    /// What was seen.
    pub observation: Observation,
    /// Marks of what was looked at, each taken before the thing itself was read, so that no change falls
    /// between the two.
    pub fingerprint: Fingerprint,
    /// What the next look at this repository need not read again.
    pub memory: Memory,
}

/// Looks at a repository. Blocks, and asks git only when everything else speaks for a removal.
pub fn observe(request: &ObserveRequest<'_>) -> Look {
    let asked = request.common_dir.as_path();
    match fs::canonicalize(asked) {
        Ok(common_dir) => look_at(&common_dir, request),
        Err(error) if files::is_absence(&error) => without_repository(asked, ObservedRepository::Gone),
        Err(error) => without_repository(asked, unknown(&Unreadable::new(asked, error))),
    }
}

fn look_at(common_dir: &Path, request: &ObserveRequest<'_>) -> Look {
    let mut covered = Covered::of(common_dir);
    let mut looker = Looker::new(common_dir, request);
    looker.marks.repository(common_dir);
    let identity = match repository_identity(common_dir) {
        Ok(Some(identity)) => identity,
        Ok(None) => return without_repository(common_dir, ObservedRepository::Gone),
        Err(error) => return without_repository(common_dir, unknown(&error)),
    };

    let recorded_main = request.recorded.iter().find(|recorded| recorded.main);
    let hint = request.root_hint.as_deref().or(recorded_main.map(|recorded| recorded.path.as_path()));
    covered.main = main_worktree::root(common_dir, hint);
    looker.main_root.clone_from(&covered.main);
    let shared = looker.marks.shared(covered.main.as_deref(), common_dir);
    looker.memory.shared = (!shared.racy).then_some(shared.digest);
    looker.shared = Some(shared);
    let main = covered.main.as_deref().map(|root| looker.main(root, identity));

    let mut linked = Vec::new();
    let mut unlisted = None;
    match entry_names(common_dir) {
        Ok(ids) => {
            for id in ids {
                let found = looker.entry(&id).unwrap_or_else(|error| {
                    unlisted = Some(error.to_string());
                    None
                });
                covered.entries.push((id, found.as_ref().map(|worktree| worktree.path.clone())));
                linked.extend(found);
            }
        }
        Err(error) => unlisted = Some(error.to_string()),
    }
    if main.is_none() {
        lend_project(&mut linked);
    }
    if !matches!(repository_identity(common_dir), Ok(Some(now)) if now == identity) {
        let reason = format!("{}: it was replaced during the look", common_dir.display());
        return without_repository(common_dir, ObservedRepository::Unknown(reason));
    }

    let observed: Vec<&ObservedWorktree> = main.iter().chain(&linked).collect();
    let seen = Seen { common_dir, observed: &observed, complete: unlisted.is_none() };
    let absences =
        absence::absences(&request.recorded, &seen, request.ask_git, &mut covered, &mut looker.marks);
    let origins = absence::origins(&observed, request.claims, &mut covered, &mut looker.marks);
    // Why something could not be looked at is in no mark: out of descriptors, say.
    let is_open = unlisted.is_some()
        || observed.iter().any(|found| matches!(found.presence, Presence::Unknown(_)))
        || absences.values().any(absence::is_open);
    looker.marks.distrust(is_open);
    Look {
        observation: Observation {
            common_dir: common_dir.to_owned(),
            repository: ObservedRepository::Present { identity, main, linked, unlisted },
            absences,
            origins,
            unsettled: looker.unsettled,
        },
        fingerprint: looker.marks.finish(covered),
        memory: looker.memory,
    }
}

/// In a bare repository, worktrees that are being made are taken to declare what the first that is made does: the offset
/// that each is given now is its own for good.
fn lend_project(linked: &mut [ObservedWorktree]) {
    let is_finished =
        |worktree: &ObservedWorktree| matches!(worktree.presence, Presence::Present { finished: true, .. });
    let Some(project) =
        linked.iter().find(|found| is_finished(found)).map(|found| Arc::clone(&found.project))
    else {
        return;
    };
    for worktree in linked.iter_mut().filter(|worktree| !is_finished(worktree)) {
        worktree.project = Arc::clone(&project);
    }
}

/// None when it is no repository.
fn repository_identity(common_dir: &Path) -> Result<Option<FileIdentity>, Unreadable> {
    if !git_dir::is_repository(common_dir)? {
        return Ok(None);
    }
    files::identity(common_dir).map(Some).map_err(|error| Unreadable::new(common_dir, error))
}

/// The names in `worktrees/`. It doesn't exist in a repository without linked worktrees.
fn entry_names(common_dir: &Path) -> Result<Vec<OsString>, Unreadable> {
    let worktrees = common_dir.join("worktrees");
    let unreadable = |error| Unreadable::new(&worktrees, error);
    match fs::symlink_metadata(&worktrees) {
        Ok(metadata) if metadata.is_dir() => match files::names(&worktrees) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            names => names.map_err(unreadable),
        },
        // `git worktree add` fails on a symbolic link here; what it leads to is another repository's.
        Ok(_) => Err(unreadable(std::io::Error::other("not a directory"))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(unreadable(error)),
    }
}

fn unknown(error: &Unreadable) -> ObservedRepository {
    ObservedRepository::Unknown(error.to_string())
}

/// Nothing more can be said of its worktrees, so nothing more is looked at.
fn without_repository(common_dir: &Path, repository: ObservedRepository) -> Look {
    Look {
        observation: Observation {
            common_dir: common_dir.to_owned(),
            repository,
            absences: HashMap::new(),
            origins: HashMap::new(),
            unsettled: false,
        },
        fingerprint: Fingerprint::unproven(common_dir),
        memory: Memory::default(),
    }
}
