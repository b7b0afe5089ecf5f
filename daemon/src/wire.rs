//! From the registry's own terms to those on the wire.

use std::collections::BTreeMap;
use std::path::Path;

use jiff::Timestamp;
use wtd_protocol::{AllocationFile, ComposeOverride, PassedOver, PathText, allocation_file};

use crate::domain::allocation::{Allocation, Moment};
use crate::domain::allocator::Obstacle;
use crate::domain::compose::Compose;
use crate::domain::variables::variables;

/// RFC 3339, UTC, whole milliseconds.
pub fn time(moment: Moment) -> String {
    Timestamp::from_millisecond(moment.0).unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}

/// What is told of an allocation whose configuration takes trust that it doesn't have.
const UNTRUSTED: &str =
    "wtd.toml has templates or files that are not applied: `wtd-client trust` shows them, and asks";

/// The allocation as the API shows it; `variables` only where a single worktree is asked for.
pub fn allocation(
    allocation: &Allocation,
    common_dir: &Path,
    with_variables: bool,
) -> wtd_protocol::Allocation {
    let path = PathText::of(&allocation.path);
    let repository = PathText::of(common_dir);
    let notice = (allocation.untrusted && allocation.is_live()).then(|| UNTRUSTED.to_owned());
    wtd_protocol::Allocation {
        id: allocation.id.to_string(),
        repository: repository.text,
        repository_base64: repository.base64,
        path: path.text,
        path_base64: path.base64,
        main: allocation.is_main(),
        offset: allocation.offset.0,
        ports: allocation.ports.iter().map(|(name, port)| (name.to_string(), port.port)).collect(),
        mode: allocation.mode.as_str().to_owned(),
        volume: allocation.volume.name().to_string(),
        base_ports: allocation.ports.iter().map(|(name, port)| (name.to_string(), port.base.get())).collect(),
        shared_volumes: allocation.shared_volumes.iter().cloned().collect(),
        compose: allocation.compose.as_ref().map(|compose| compose_override(allocation, compose)),
        volumes: allocation
            .volumes
            .iter()
            .map(|(name, volume)| (name.to_string(), volume.to_string()))
            .collect(),
        database: allocation.database.to_string(),
        schema: allocation.schema.as_ref().map(ToString::to_string),
        database_made: allocation.wanted_object().is_some().then(|| allocation.has_wanted_object()),
        project: allocation.project.clone(),
        state: allocation.state,
        reason: allocation.reason.clone(),
        since: time(allocation.since),
        created: time(allocation.created),
        passed_over: allocation.passed_over.iter().map(passed_over).collect(),
        warnings: allocation.warnings.iter().cloned().chain(notice).collect(),
        mistakes: allocation.mistakes().cloned().collect(),
        untrusted: allocation.untrusted,
        variables: if with_variables { variables(allocation) } else { BTreeMap::new() },
    }
}

fn compose_override(allocation: &Allocation, compose: &Compose) -> ComposeOverride {
    let text = |path: &Path| PathText::of(path).text;
    ComposeOverride {
        files: compose.files.iter().map(|file| text(&allocation.path.join(file))).collect(),
        file: text(&allocation.git_dir.join(wtd_protocol::compose::FILE_NAME)),
        ports: wtd_protocol::compose::ranges(&compose.ports),
    }
}

/// A candidate that was passed over, as the API shows it.
pub fn passed_over(obstacle: &Obstacle) -> PassedOver {
    PassedOver {
        offset: obstacle.offset.0,
        variable: obstacle.variable.clone(),
        port: obstacle.port,
        reason: obstacle.reason.clone(),
    }
}

/// The content of the allocation file that belongs in the worktree's git dir.
pub fn allocation_file(allocation: &Allocation) -> AllocationFile {
    let PathText { text, base64 } = PathText::of(&allocation.path);
    AllocationFile {
        format: allocation_file::FORMAT,
        id: allocation.id.to_string(),
        offset: allocation.offset.0,
        path: text,
        path_base64: base64,
        variables: variables(allocation),
    }
}
