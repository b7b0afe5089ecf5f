//! Whether a volume was made after an allocation: only then can it be the worktree's.

use wtd_protocol::State;

use super::belongings::{compose_prefix, has_project, is_labelled};
use super::{Look, Volume};
use crate::domain::allocation::{Allocation, Moment};
use crate::domain::names::ComposeProject;

/// The names to look for when an engine is first seen with an allocation: the recorded ones, the beginning of those that
/// Compose would give, and the mark of its project, under which others can be that the project's files name.
pub fn names_to_look_for(allocation: &Allocation) -> Vec<String> {
    let names = allocation.own_volumes().map(ToString::to_string);
    names.chain(compose_prefix(allocation)).chain(project_mark(allocation)).collect()
}

/// What stands before a project's name in what stands for all its volumes; no volume can have such a name.
const PROJECT: &str = "project ";

/// What stands for all volumes of the allocation's Compose project.
fn project_mark(allocation: &Allocation) -> Option<String> {
    allocation.compose_project.as_ref().map(|project| format!("{PROJECT}{project}"))
}

impl Look {
    /// The Compose projects whose volumes were looked for.
    pub fn projects(&self) -> impl Iterator<Item = ComposeProject> {
        self.names.keys().filter_map(|name| name.strip_prefix(PROJECT)?.parse().ok())
    }
}

/// Whether something of this name, beginning with this prefix, or of this project, is there.
pub fn is_there(allocation: &Allocation, name: &str, volumes: &[Volume]) -> bool {
    let is = |other: Option<String>| other.as_deref() == Some(name);
    let (is_prefix, is_project) = (is(compose_prefix(allocation)), is(project_mark(allocation)));
    volumes.iter().any(|volume| match () {
        () if is_prefix => volume.name.starts_with(name),
        () if is_project => has_project(allocation, volume),
        () => volume.name == name,
    })
}

/// Whether the volume was made after the allocation, or for it.
///
/// Its label says so. Without one, what proves it is that the engine did not have it when wtd first looked there for
/// this allocation. `CreatedAt` counts only where the engine means by it what it says, and only when it is a later
/// second than the allocation's: it is cut to seconds, and a volume that somebody made a moment before is theirs.
pub fn is_made_after(
    allocation: &Allocation,
    volume: &Volume,
    look: Option<&Look>,
    tells_creation: bool,
    created: Option<Moment>,
) -> bool {
    if is_labelled(allocation, volume) {
        return true;
    }
    let was_absent = |name: &str| look.and_then(|look| look.names.get(name)) == Some(&false);
    let prefix = compose_prefix(allocation).filter(|prefix| volume.name.starts_with(prefix.as_str()));
    let project = project_mark(allocation).filter(|_| has_project(allocation, volume));
    if was_absent(&volume.name) || prefix.into_iter().chain(project).any(|name| was_absent(&name)) {
        return true;
    }
    tells_creation && created.is_some_and(|created| seconds(created) > seconds(allocation.created))
}

/// Whether the volume was made when the worktree was gone, by an engine that tells when: in a registry that was restored
/// from an older copy, the offset can be another worktree's since then, and that one's name for its volume is the same.
pub fn is_made_too_late(allocation: &Allocation, volume: &Volume, created: Option<Moment>) -> bool {
    let went = allocation.state == State::Stale && allocation.ending.is_none();
    let is_later = created.is_some_and(|created| seconds(created) > seconds(allocation.since));
    went && is_later && !is_labelled(allocation, volume)
}

fn seconds(moment: Moment) -> i64 {
    moment.0.div_euclid(1000)
}
