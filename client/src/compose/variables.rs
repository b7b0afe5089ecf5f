//! The variables with which Compose reads a project: the worktree's, and what they would be at another offset.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use serde_json::Value;
use wtd_protocol::Allocation;
use wtd_protocol::variable::{COMPOSE_PROJECT_NAME, PORT_OFFSET};

use super::docker::Docker;
use super::files::Files;
use super::model::Model;
use crate::environment::Environment;
use crate::error::Error;
use crate::foreign;

/// What a variable is in a run of Compose; none: it is not there.
pub(super) type Variables = BTreeMap<String, Option<OsString>>;

/// The worktree's variables, less those that wtd has given the shell for another one.
pub(super) fn own(environment: &Environment) -> Variables {
    let others = foreign::variables(environment).into_iter().map(|name| (name, None));
    others
        .chain(environment.variables.iter().map(|(name, value)| (name.clone(), Some(value.clone()))))
        .collect()
}

/// The project with the worktree's variables, and with those of another offset.
pub(super) fn models(
    allocation: &Allocation,
    environment: &Environment,
    docker: &Docker,
    files: &Files,
) -> Result<(Model, Model), Error> {
    let own = docker.config(&files.paths, &[], None)?;
    let raw = docker.config(&files.paths, &["--no-interpolate"], None)?;
    let own = Model::parse(&own.output()?)?;
    let elsewhere = elsewhere(allocation);
    // A port that a variable of the project's own moves: with its default in place of the value, the base is seen.
    let mut defaults = elsewhere.clone();
    let variables = raw.output().map(|raw| defaulted(&raw)).unwrap_or_default();
    let foreign = variables.into_iter().filter(|name| !environment.variables.contains_key(name));
    defaults.extend(foreign.map(|name| (name, Some(OsString::new()))));
    let read = |variables: &Variables| {
        Model::parse(&docker.with(variables).config(&files.paths, &[], None)?.output()?)
    };
    let reference = match read(&defaults) {
        Ok(reference) => reference,
        // The variable is needed elsewhere in the files.
        Err(_) => read(&elsewhere)?,
    };
    Ok((own, reference))
}

/// What the worktree's variables would be at another offset, as far as they name ports and volumes: at 0, or at 10000
/// where the worktree's own is 0. As in a main worktree, there is no project's name.
fn elsewhere(allocation: &Allocation) -> Variables {
    let offset: u16 = if allocation.offset == 0 { 10000 } else { 0 };
    let other = |name: &str| {
        let stem =
            name.strip_suffix(&allocation.offset.to_string()).filter(|stem| stem.ends_with(['_', '-']));
        stem.map(|stem| format!("{stem}{offset}"))
    };
    let mut variables: BTreeMap<String, Option<String>> = allocation
        .variables
        .iter()
        .filter(|(name, _)| !allocation.ports.contains_key(*name))
        .filter_map(|(name, value)| Some((name.clone(), Some(other(value)?))))
        .collect();
    variables.insert(PORT_OFFSET.to_owned(), Some(offset.to_string()));
    variables.insert(COMPOSE_PROJECT_NAME.to_owned(), None);
    for (name, base) in &allocation.base_ports {
        let is_shared = allocation.offset != 0 && allocation.ports.get(name) == Some(base);
        let port = base.checked_add(offset).filter(|_| !is_shared).unwrap_or(*base);
        variables.insert(name.clone(), Some(port.to_string()));
    }
    variables.into_iter().map(|(name, value)| (name, value.map(OsString::from))).collect()
}

/// Variables with a default that stands in for an empty value too (`${NAME:-default}`), in the published ports of a
/// project that was read without interpolation.
fn defaulted(raw: &[u8]) -> BTreeSet<String> {
    let raw: Value = serde_json::from_slice(raw).unwrap_or_default();
    let services = raw.get("services").and_then(Value::as_object);
    let ports = services
        .into_iter()
        .flat_map(|services| services.values())
        .filter_map(|service| service.get("ports")?.as_array())
        .flatten();
    let texts = ports.filter_map(|port| port.as_str().or_else(|| port.get("published")?.as_str()));
    let mut names = BTreeSet::new();
    for text in texts {
        for part in text.split("${").skip(1) {
            if let Some((name, _)) = part.split_once(":-")
                && !name.is_empty()
                && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            {
                names.insert(name.to_owned());
            }
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_with_defaults_are_found_in_ports_only() {
        let raw = r#"{"services": {"a": {"ports": ["${A:-1}:1", {"published": "${B:-2}", "target": 2}, 3, "${C}:3", "${D:?x}:4", "${E-5}:5"],
            "environment": {"F": "${F:-6}"}}, "b": {"ports": null}}}"#;
        assert_eq!(defaulted(raw.as_bytes()).into_iter().collect::<Vec<_>>(), ["A", "B"]);
        assert!(defaulted(b"").is_empty());
    }
}
