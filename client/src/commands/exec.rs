//! `exec -- CMD…`: the client becomes the command, under the worktree's variables.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use wtd_protocol::variable::{COMPOSE_PROJECT_NAME, PORT_OFFSET};

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
    if !environment.variables.contains_key(COMPOSE_PROJECT_NAME) && is_another_worktrees_project() {
        command.env_remove(COMPOSE_PROJECT_NAME);
    }
    let why = command.exec();
    let remedy = if why.kind() == io::ErrorKind::NotFound {
        "look at the command's name and at PATH"
    } else {
        "look at the file and its permissions"
    };
    Err(Error::Exec { command: program.clone(), why, remedy })
}

/// Whether the shell's project name is one that wtd gave to a linked worktree. A main worktree has none of its
/// own, and under that one its commands would act on the other worktree's containers.
fn is_another_worktrees_project() -> bool {
    let text = |value: OsString| value.into_string().ok();
    match (variable(COMPOSE_PROJECT_NAME).and_then(text), variable(PORT_OFFSET).and_then(text)) {
        (Some(project), Some(offset)) => {
            project.strip_suffix(&offset).is_some_and(|stem| stem.ends_with('-'))
        }
        _ => false,
    }
}
