//! The environment variables that go with an allocation.

use std::collections::BTreeMap;

use wtd_protocol::variable;

use super::allocation::Allocation;

/// The variables of an allocation's worktree. `WTD_WORKTREE` is lossy where the path is not UTF-8; who needs the
/// exact bytes takes them from the path.
pub fn variables(allocation: &Allocation) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set(variable::PORT_OFFSET, allocation.offset.to_string());
    for (name, port) in &allocation.ports {
        set(name.as_str(), port.port.to_string());
    }
    set(variable::DB_VOLUME, allocation.volume.to_string());
    for (name, volume) in &allocation.volumes {
        set(name.as_str(), volume.to_string());
    }
    set(variable::POSTGRES_DB, allocation.database.to_string());
    if let Some(project) = &allocation.compose_project {
        set(variable::COMPOSE_PROJECT_NAME, project.to_string());
    }
    set(variable::WTD_WORKTREE, allocation.path.to_string_lossy().into_owned());
    variables
}
