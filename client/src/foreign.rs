//! Variables that wtd gave the shell for another worktree, and that this one doesn't have: a further port of another project,
//! or the Compose project of a linked worktree in a main one. With them a command would act on the other's containers, or
//! in its schema.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::Path;

use wtd_protocol::compose::is_ours;
use wtd_protocol::variable::{
    COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME, DB_MODE, DB_SCHEMA, DB_URL_OPTIONS,
    PGOPTIONS, PORT_OFFSET, REDIS_PREFIX, WTD_WORKTREE, may_be_set,
};

use crate::compose::files::separator_of;
use crate::daemon::{text_variable, variable};
use crate::environment::Environment;
use crate::fallback::{self, Found};

/// Their names.
pub(crate) fn variables(here: &Environment) -> Vec<String> {
    let mut names: Vec<String> = known_by_name(&text_variable).into_iter().map(str::to_owned).collect();
    // Of this very project, at another offset than the shell's: variables that were read in without taking back what was
    // there before.
    let sibling = here.project.as_deref().zip(text_variable(COMPOSE_PROJECT_NAME));
    if sibling.is_some_and(|(project, set)| is_of_project(&set, project)) {
        names.push(COMPOSE_PROJECT_NAME.to_owned());
    }
    if let Some(other) = variable(WTD_WORKTREE).filter(|other| Path::new(other) != here.worktree) {
        names.extend(given_for(&other));
    }
    names.retain(|name| variable(name).is_some() && !here.variables.contains_key(name));
    names.sort();
    names.dedup();
    names
}

/// Whether a Compose project's name is that of a worktree of `project`: with an offset behind it, which is a multiple of 10.
fn is_of_project(name: &str, project: &str) -> bool {
    let offset = name.strip_prefix(project).and_then(|rest| rest.strip_prefix('-'));
    offset.is_some_and(|text| text.parse::<u16>().is_ok_and(|it| it % 10 == 0 && it.to_string() == text))
}

/// What the shell has as wtd gave it for the worktree at `root`: all that its allocation file says, and what tells by itself
/// that it is ours where the file has gone with the worktree.
pub(crate) fn given_by_env(root: &OsStr) -> BTreeMap<String, OsString> {
    let mut names = given_for(root);
    if has_our_compose_file(&text_variable) {
        names.push(COMPOSE_FILE.to_owned());
    }
    names.into_iter().filter_map(|name| variable(&name).map(|value| (name, value))).collect()
}

/// What the shell has as the allocation file of the worktree at `root` says, if there is one.
fn given_for(root: &OsStr) -> Vec<String> {
    let Ok(Found::Allocation(file)) = fallback::find(Path::new(root)) else { return Vec::new() };
    let is_as_given = |(name, value): &(String, String)| {
        may_be_set(name) && variable(name).is_some_and(|set| set == **value)
    };
    file.variables.into_iter().filter(is_as_given).map(|(name, _)| name).collect()
}

/// Whether `COMPOSE_FILE` has an override of wtd's in it.
fn has_our_compose_file(shell: &dyn Fn(&str) -> Option<String>) -> bool {
    let separator = separator_of(shell(COMPOSE_PATH_SEPARATOR));
    shell(COMPOSE_FILE).is_some_and(|files| is_ours(&files, separator))
}

/// Those that tell by themselves that wtd gave them, whatever has become of the worktree that they were for.
fn known_by_name(shell: &dyn Fn(&str) -> Option<String>) -> Vec<&'static str> {
    let mut names = Vec::new();
    if has_our_compose_file(shell) {
        names.push(COMPOSE_FILE);
    }
    if let (Some(project), Some(offset)) = (shell(COMPOSE_PROJECT_NAME), shell(PORT_OFFSET))
        && project.strip_suffix(&offset).is_some_and(|stem| stem.ends_with('-'))
    {
        names.push(COMPOSE_PROJECT_NAME);
    }
    // `isolated` sets none.
    if shell(DB_MODE).is_some_and(|mode| matches!(mode.as_str(), "database" | "schema" | "shared")) {
        names.extend([DB_MODE, DB_SCHEMA, DB_URL_OPTIONS, REDIS_PREFIX]);
    }
    if let (Some(options), Some(schema)) = (shell(PGOPTIONS), shell(DB_SCHEMA))
        && options.strip_prefix("-csearch_path=") == Some(&schema)
    {
        names.push(PGOPTIONS);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sibling_is_told_by_the_project_and_an_offset() {
        for (name, expected) in [
            ("shop-10000", true),
            ("shop-0", true),
            ("shop-10", true),
            ("shop", false),
            ("shop-7", false),
            ("shop-010", false),
            ("shop-70000", false),
            ("shop-test", false),
            ("my-shop-10000", false),
        ] {
            assert_eq!(is_of_project(name, "shop"), expected, "{name}");
        }
    }

    #[test]
    fn what_another_worktree_left_in_the_shell_is_told_from_a_persons_own() {
        let names = |set: &[(&str, &str)]| {
            let shell =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            known_by_name(&shell)
        };
        assert_eq!(
            names(&[("COMPOSE_PROJECT_NAME", "shop-10000"), ("PORT_OFFSET", "10000")]),
            ["COMPOSE_PROJECT_NAME"]
        );
        assert_eq!(names(&[("COMPOSE_FILE", "/w/c.yaml:/g/wtd.compose.yaml")]), ["COMPOSE_FILE"]);
        assert!(names(&[("COMPOSE_FILE", "c.yaml:compose.dev.yaml")]).is_empty());
        assert!(names(&[("COMPOSE_PROJECT_NAME", "shop"), ("PORT_OFFSET", "10000")]).is_empty());
        assert!(names(&[("PGOPTIONS", "-c statement_timeout=1s"), ("REDIS_PREFIX", "mine:")]).is_empty());
        let ours = [("DB_MODE", "schema"), ("DB_SCHEMA", "shop_0"), ("PGOPTIONS", "-csearch_path=shop_0")];
        assert_eq!(names(&ours), ["DB_MODE", "DB_SCHEMA", "DB_URL_OPTIONS", "REDIS_PREFIX", "PGOPTIONS"]);
    }
}
