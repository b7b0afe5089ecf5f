//! `exec -- CMD…`: the client becomes the command, under the worktree's variables.

use std::convert::Infallible;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use crate::cli::ExecArgs;
use crate::daemon::Daemon;
use crate::environment::Environment;
use crate::error::Error;
use crate::foreign;

/// Replaces this process with the command; only returns when that fails.
pub(crate) fn run(daemon: &Daemon, args: &ExecArgs) -> Result<Infallible, Error> {
    let environment = Environment::of(daemon, args.path.as_deref(), &mut || {})?;
    environment.tell_mistakes("exec");
    let [program, arguments @ ..] = args.command.as_slice() else {
        return Err(Error::failed("no command is given", "name one after --"));
    };
    let mut command = Command::new(program);
    command.args(arguments).envs(&environment.variables);
    for name in foreign::variables(&environment) {
        command.env_remove(name);
    }
    let why = command.exec();
    let remedy = if why.kind() == io::ErrorKind::NotFound {
        "look at the command's name and at PATH"
    } else {
        "look at the file and its permissions"
    };
    Err(Error::Exec { command: program.clone(), why, remedy })
}
