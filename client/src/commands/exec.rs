//! `exec -- CMD…`: the client becomes the command, under the worktree's variables.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use wtd_protocol::compose::{SEPARATOR, is_ours};
use wtd_protocol::variable::{
    COMPOSE_FILE, COMPOSE_PATH_SEPARATOR, COMPOSE_PROJECT_NAME, DB_MODE, DB_SCHEMA, DB_URL_OPTIONS,
    PGOPTIONS, PORT_OFFSET, REDIS_PREFIX,
};

use crate::cli::ExecArgs;
use crate::daemon::{Daemon, variable};
use crate::environment::Environment;
use crate::error::Error;

/// Replaces this process with the command; only returns when that fails.
pub(crate) fn run(daemon: &Daemon, args: &ExecArgs) -> Result<Infallible, Error> {
    let environment = Environment::of(daemon, args.path.as_deref(), &mut || {})?;
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Error::failed("no command is given", "name one after --"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(&environment.variables);
    for name in of_another_worktree(&|name| variable(name).and_then(|value| value.into_string().ok())) {
        if !environment.variables.contains_key(name) {
            command.env_remove(name);
        }
    }
    let why = command.exec();
    let remedy = if why.kind() == io::ErrorKind::NotFound {
        "look at the command's name and at PATH"
    } else {
        "look at the file and its permissions"
    };
    Err(Error::Exec { command: program.clone(), why, remedy })
}

/// Variables of the shell that wtd gave it for some worktree, and that not every worktree has. Where this one has
/// none of its own, a command would act on the other worktree's containers, or in its schema.
pub(crate) fn of_another_worktree(shell: &dyn Fn(&str) -> Option<String>) -> Vec<&'static str> {
    let mut names = Vec::new();
    let separator = shell(COMPOSE_PATH_SEPARATOR).and_then(|text| text.chars().next()).unwrap_or(SEPARATOR);
    if shell(COMPOSE_FILE).is_some_and(|files| is_ours(&files, separator)) {
        names.push(COMPOSE_FILE);
    }
    if let (Some(project), Some(offset)) = (shell(COMPOSE_PROJECT_NAME), shell(PORT_OFFSET))
        && project.strip_suffix(&offset).is_some_and(|stem| stem.ends_with('-'))
    {
        names.push(COMPOSE_PROJECT_NAME);
    }
    if shell(DB_MODE).is_some() {
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
    fn what_another_worktree_left_in_the_shell_is_told_from_a_persons_own() {
        let names = |set: &[(&str, &str)]| {
            let shell =
                |name: &str| set.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
            of_another_worktree(&shell)
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
