//! Whether a volume was made after an allocation: only then can it be the worktree's.

use super::belongings::{compose_prefix, is_labelled};
use super::{Look, Volume};
use crate::domain::allocation::{Allocation, Moment};

/// The names to look for when an engine is first seen with an allocation: the recorded ones, and the beginning of
/// those that Compose would give.
pub fn names_to_look_for(allocation: &Allocation) -> Vec<String> {
    allocation.own_volumes().map(ToString::to_string).chain(compose_prefix(allocation)).collect()
}

/// Whether something of this name, or beginning with this prefix, is there.
pub fn is_there(name: &str, volumes: &[Volume], prefix: Option<&str>) -> bool {
    let matches = |volume: &Volume| {
        if prefix == Some(name) { volume.name.starts_with(name) } else { volume.name == name }
    };
    volumes.iter().any(matches)
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
    if was_absent(&volume.name) || prefix.is_some_and(|prefix| was_absent(&prefix)) {
        return true;
    }
    tells_creation && created.is_some_and(|created| seconds(created) > seconds(allocation.created))
}

fn seconds(moment: Moment) -> i64 {
    moment.0.div_euclid(1000)
}
