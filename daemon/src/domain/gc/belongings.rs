//! What a container engine has of an allocation.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::{Container, EngineView, Look, Volume};
use crate::domain::allocation::Allocation;
use crate::domain::names::ComposeProject;

pub use wtd_protocol::contract::ALLOCATION_LABEL;

/// The label in which Compose names the project (Compose specification, "labels").
pub const COMPOSE_PROJECT_LABEL: &str = "com.docker.compose.project";

/// The label in which Compose names a volume as the Compose file does.
pub const COMPOSE_VOLUME_LABEL: &str = "com.docker.compose.volume";

/// The label in which Compose names the directory that the project was started from.
pub const COMPOSE_WORKING_DIR_LABEL: &str = "com.docker.compose.project.working_dir";

/// The least number that says whose a volume is in whose name it stands: smaller ones are versions and the like, in names
/// that every worktree has.
const TELLING: u16 = 1000;

/// What the names of the volumes begin with that Compose makes for the allocation's project; none for a main
/// worktree, whose project's name is not wtd's.
pub fn compose_prefix(allocation: &Allocation) -> Option<String> {
    allocation.compose_project.as_ref().map(|project| format!("{project}_"))
}

/// Whether the volume carries the allocation's label.
pub fn is_labelled(allocation: &Allocation, volume: &Volume) -> bool {
    volume.labels.get(ALLOCATION_LABEL).is_some_and(|label| *label == allocation.id.to_string())
}

/// Whether a volume would be opened by a worktree with the allocation's offset and names: it has its label, a recorded
/// name, or Compose made it for the allocation's project under a name that only that project has.
pub fn is_volume_of(allocation: &Allocation, volume: &Volume) -> bool {
    is_labelled(allocation, volume)
        || allocation.own_volumes().any(|name| name.as_str() == volume.name)
        || is_of_project(allocation, volume)
}

/// Whether Compose says that it made the volume for the allocation's project.
pub fn has_project(allocation: &Allocation, volume: &Volume) -> bool {
    let project = allocation.compose_project.as_ref();
    project.is_some_and(|ours| {
        volume.labels.get(COMPOSE_PROJECT_LABEL).is_some_and(|name| name == ours.as_str())
    })
}

/// A volume to which the project's Compose file gives a fixed name is not the worktree's, as every other worktree opens it
/// too. One whose name has a variable of wtd's in it is.
fn is_of_project(allocation: &Allocation, volume: &Volume) -> bool {
    let (Some(project), true) = (&allocation.compose_project, has_project(allocation, volume)) else {
        return false;
    };
    let short = volume.labels.get(COMPOSE_VOLUME_LABEL);
    short.is_some_and(|short| {
        volume.name == format!("{project}_{short}") || is_named_by_variable(allocation, &volume.name)
    })
}

/// Whether a name has a word in it that `${COMPOSE_PROJECT_NAME}`, `${PORT_OFFSET}` or the variable of a port gives it in
/// this worktree and in no other.
fn is_named_by_variable(allocation: &Allocation, name: &str) -> bool {
    let project = allocation.compose_project.iter().map(ToString::to_string);
    let moved = allocation.ports.values().filter(|port| !port.shared).map(|port| port.port);
    // At offset 0 these are what a Compose file says as well without any variable.
    let numbers = std::iter::once(allocation.offset.0).chain(moved);
    let numbers = numbers.filter(|number| allocation.offset.0 != 0 && *number >= TELLING);
    project.chain(numbers.map(|number| number.to_string())).any(|word| has_word(name, &word))
}

fn has_word(text: &str, word: &str) -> bool {
    let is_end = |next: Option<char>| next.is_none_or(|next| !next.is_ascii_alphanumeric());
    text.match_indices(word).any(|(at, found)| {
        let (before, rest) = text.split_at(at);
        is_end(before.chars().next_back()) && is_end(rest.chars().nth(found.chars().count()))
    })
}

/// Whether a container is of the Compose project that wtd named for the worktree, started in it.
pub fn is_container_of(allocation: &Allocation, container: &Container) -> bool {
    let Some(project) = &allocation.compose_project else { return false };
    let label = |name| container.labels.get(name).map(String::as_str);
    label(COMPOSE_PROJECT_LABEL) == Some(project.as_str())
        && label(COMPOSE_WORKING_DIR_LABEL)
            .is_some_and(|directory| std::path::Path::new(directory).starts_with(&allocation.path))
}

/// Whether a container is of a Compose project with the name that wtd gave the worktree's, wherever it was started.
fn has_project_name(allocation: &Allocation, container: &Container) -> bool {
    allocation.compose_project.as_ref().is_some_and(|ours| {
        container.labels.get(COMPOSE_PROJECT_LABEL).is_some_and(|name| name == ours.as_str())
    })
}

/// The allocation as it is, and as it was under each Compose project that it had before its configuration gave it another
/// name: engines were looked at for each. A worktree with that configuration and this offset would open what is left of it.
pub fn versions(allocation: &Arc<Allocation>, looks: &[Look]) -> Vec<Arc<Allocation>> {
    let projects: BTreeSet<ComposeProject> = looks.iter().flat_map(Look::projects).collect();
    let former = projects.into_iter().map(Some).filter(|project| *project != allocation.compose_project);
    let as_it_was =
        |project| Arc::new(Allocation { compose_project: project, ..Allocation::clone(allocation) });
    std::iter::once(Arc::clone(allocation)).chain(former.map(as_it_was)).collect()
}

/// What is left of an allocation, by kind and name. While there is anything, its offset is nobody else's: a worktree
/// with the same offset would open it.
pub fn left_overs(allocation: &Arc<Allocation>, looks: &[Look], engine: &EngineView) -> Vec<String> {
    let versions = versions(allocation, looks);
    let volumes = engine.volumes.iter().filter(|volume| versions.iter().any(|it| is_volume_of(it, volume)));
    let containers = engine
        .containers
        .iter()
        .filter(|container| versions.iter().any(|it| has_project_name(it, container)));
    volumes
        .map(|volume| format!("volume {}", volume.name))
        .chain(containers.map(|container| format!("container {}", container.name)))
        .collect()
}
