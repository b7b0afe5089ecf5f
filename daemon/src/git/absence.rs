//! Looks for what is recorded and was not observed: where a vanished worktree was, and whether a git dir that
//! an allocation file leads back to still stands.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::ask::Listing;
use super::entry::{answers_for, is_same};
use super::files::{self, Unreadable};
use super::fingerprint::{Covered, Marks};
use super::links::{self, DotGit};
use crate::domain::identity::AllocationId;
use crate::domain::observation::{
    Absence, Claim, DirectoryLook, GitAnswer, ObservedWorktree, Origin, OriginLook, Presence, Recorded,
};

/// What was seen of a repository.
#[derive(Debug)]
pub(super) struct Seen<'a> {
    pub(super) common_dir: &'a Path,
    /// The worktrees.
    pub(super) observed: &'a [&'a ObservedWorktree],
    /// Whether `worktrees/` was listed whole.
    pub(super) complete: bool,
}

/// A look at each recorded worktree that no observed one answers for. Git is asked at most once.
pub(super) fn absences(
    recorded: &[Recorded],
    seen: &Seen<'_>,
    ask_git: &dyn Fn(&Path) -> Option<Listing>,
    covered: &mut Covered,
    marks: &mut Marks,
) -> HashMap<AllocationId, Absence> {
    let mut listing = None;
    let absent = |recorded: &&Recorded| !seen.observed.iter().any(|found| answers_for(found, recorded));
    recorded
        .iter()
        .filter(absent)
        .map(|recorded| {
            marks.root(&recorded.path);
            covered.absent.push(recorded.path.clone());
            let directory = look_for_directory(recorded, seen.observed);
            let git = if speaks_for_removal(recorded, &directory, seen) {
                let listing = listing.get_or_insert_with(|| ask_git(seen.common_dir));
                listing
                    .as_ref()
                    .map_or(GitAnswer::NotAsked, |listing| answer(recorded, listing, seen.observed))
            } else {
                GitAnswer::NotAsked
            };
            (recorded.id, Absence { git_dir: recorded.git_dir.clone(), directory, git })
        })
        .collect()
}

/// Whether a question about it had no answer.
pub(super) fn is_open(absence: &Absence) -> bool {
    matches!(absence.directory, DirectoryLook::Unknown(_)) || matches!(absence.git, GitAnswer::Failed(_))
}

fn look_for_directory(recorded: &Recorded, observed: &[&ObservedWorktree]) -> DirectoryLook {
    let root = recorded.path.as_path();
    let device = match links::present(fs::metadata(root)) {
        Ok(Some(metadata)) if metadata.is_dir() => metadata.dev(),
        Ok(_) => return DirectoryLook::Gone { device_above: files::device_above(root) },
        Err(error) => return DirectoryLook::Unknown(Unreadable::new(root, error).to_string()),
    };
    let elsewhere = DirectoryLook::PointsElsewhere { device };
    let is_present =
        |found: &&ObservedWorktree| found.path == root && matches!(found.presence, Presence::Present { .. });
    if observed.iter().any(is_present) {
        return elsewhere;
    }
    let points_back = match links::dot_git(root) {
        Ok(DotGit::Absent | DotGit::Other) => Ok(false),
        Ok(DotGit::Directory { directory, .. }) => Ok(files::identity_of(&directory) == recorded.identity),
        Ok(DotGit::File { git_dir, .. }) => links::identity_at(&git_dir).map(|identity| {
            // Where nothing is any more, nobody can tell what was: the repository may have been moved meanwhile.
            let Some(identity) = identity else { return true };
            // By name too: git may have used the entry's name again for a worktree elsewhere.
            is_same(recorded, &git_dir, identity) || links::canonical(&git_dir) == recorded.git_dir
        }),
        Ok(DotGit::Unfinished { .. }) => {
            let reason = format!("{}: it names no git dir", root.join(".git").display());
            return DirectoryLook::Unknown(reason);
        }
        Err(error) => Err(error),
    };
    match points_back {
        Ok(true) => DirectoryLook::StillPointsBack,
        Ok(false) => elsewhere,
        Err(error) => DirectoryLook::Unknown(error.to_string()),
    }
}

/// Whether git's word is all that is missing.
fn speaks_for_removal(recorded: &Recorded, directory: &DirectoryLook, seen: &Seen<'_>) -> bool {
    let device = match directory {
        DirectoryLook::Gone { device_above } => *device_above,
        DirectoryLook::PointsElsewhere { device } => Some(*device),
        DirectoryLook::StillPointsBack | DirectoryLook::Unknown(_) => None,
    };
    !recorded.main && seen.complete && device == Some(recorded.device)
}

/// `git worktree list` shows no ids, and a path may be a new worktree's by now. So the path counts as listed
/// when it is listed more often than there are entries that name it.
fn answer(recorded: &Recorded, listing: &Listing, observed: &[&ObservedWorktree]) -> GitAnswer {
    match listing {
        Ok(listed) => {
            let listed = listed.iter().filter(|&path| links::canonical(path) == recorded.path).count();
            let named = observed.iter().filter(|found| found.path == recorded.path).count();
            if listed > named { GitAnswer::Listed } else { GitAnswer::NotListed }
        }
        Err(error) => GitAnswer::Failed(error.to_string()),
    }
}

/// For each observed worktree whose allocation file names an allocation recorded with another git dir: what
/// is at that one.
pub(super) fn origins(
    observed: &[&ObservedWorktree],
    claims: &dyn Fn(AllocationId) -> Option<Recorded>,
    covered: &mut Covered,
    marks: &mut Marks,
) -> HashMap<AllocationId, Origin> {
    let mut origins = HashMap::new();
    for worktree in observed {
        let Claim::Allocation { id, .. } = worktree.claim else { continue };
        let Some(recorded) = claims(id).filter(|recorded| recorded.git_dir != worktree.git_dir) else {
            continue;
        };
        origins.entry(id).or_insert_with(|| {
            marks.origin(&recorded.git_dir);
            covered.origins.push(recorded.git_dir.clone());
            let look = look_for_origin(&recorded);
            Origin { git_dir: recorded.git_dir, look }
        });
    }
    origins
}

fn look_for_origin(recorded: &Recorded) -> OriginLook {
    let git_dir = recorded.git_dir.as_path();
    match links::present(files::identity(git_dir)) {
        Ok(Some(identity)) if is_same(recorded, git_dir, identity) => OriginLook::Standing,
        Ok(_) if files::device_above(git_dir) == Some(recorded.identity.device) => OriginLook::Gone,
        Ok(_) => OriginLook::Unknown(format!("{}: its disk may not be mounted", git_dir.display())),
        Err(error) => OriginLook::Unknown(Unreadable::new(git_dir, error).to_string()),
    }
}
