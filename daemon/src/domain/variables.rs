//! The environment variables that go with an allocation.

use std::collections::BTreeMap;

use wtd_protocol::variable;

use super::allocation::Allocation;
use super::compose_override::compose_file;
use super::project::DatabaseMode;

/// The variables of an allocation's worktree. `WTD_WORKTREE` is lossy where the path is not UTF-8; who needs the
/// exact bytes takes them from the path.
pub fn variables(allocation: &Allocation) -> BTreeMap<String, String> {
    let mut variables = given(allocation);
    variables.extend(allocation.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
    variables
}

/// The variables that follow from the allocation alone: those that templates can use.
pub fn given(allocation: &Allocation) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    let mut set = |name: &str, value: String| variables.insert(name.to_owned(), value);
    set(variable::PORT_OFFSET, allocation.offset.to_string());
    for (name, port) in allocation.ports.iter() {
        set(name.as_str(), port.port.to_string());
    }
    set(variable::DB_VOLUME, allocation.volume.name().to_string());
    for (name, volume) in &allocation.volumes {
        set(name.as_str(), volume.to_string());
    }
    set(variable::POSTGRES_DB, allocation.database.to_string());
    if let Some(schema) = &allocation.schema {
        set(variable::DB_SCHEMA, schema.to_string());
        // Without a space, since env files have no quoting that all their readers share (`wtd_env_file::block`).
        set(variable::PGOPTIONS, format!("-csearch_path={schema}"));
        // In a URL's parameter a space separates options and `=` a name from its value (RFC 3986, 2.1).
        set(variable::DB_URL_OPTIONS, format!("options=-csearch_path%3D{schema}"));
    }
    if allocation.mode != DatabaseMode::Isolated {
        set(variable::DB_MODE, allocation.mode.as_str().to_owned());
        set(variable::REDIS_PREFIX, redis_prefix(allocation));
    }
    if let Some(project) = &allocation.compose_project {
        set(variable::COMPOSE_PROJECT_NAME, project.to_string());
    }
    if let Some((files, separator)) = compose_file(allocation) {
        set(variable::COMPOSE_FILE, files);
        if let Some(separator) = separator {
            set(variable::COMPOSE_PATH_SEPARATOR, separator.to_string());
        }
    }
    set(variable::WTD_WORKTREE, allocation.path.to_string_lossy().into_owned());
    variables
}

/// What the worktree's keys begin with in a Redis that worktrees share: `<project>-<offset>-<id>:`. The end of the
/// allocation's id is in it because nobody deletes the keys of a worktree that is gone: the next one at its offset must
/// not take them for its own. No prefix begins another, since `:` is in none of the parts.
fn redis_prefix(allocation: &Allocation) -> String {
    let id = allocation.id.0.simple().to_string();
    let end = id.get(24..).unwrap_or(&id);
    format!("{}-{}-{end}:", allocation.project, allocation.offset)
}
