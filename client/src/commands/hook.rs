//! `hook SHELL`: the code for an rc file, and what that code evaluates when the directory has changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use wtd_protocol::ProblemType;
use wtd_protocol::variable::WTD_WORKTREE;

use crate::cli::{DaemonArgs, HookArgs};
use crate::daemon::{Daemon, variable};
use crate::environment::Environment;
use crate::error::Error;
use crate::foreign;
use crate::hook::{self, Before, DIRENV_DIFF, State, WTD_HOOK};
use crate::output;
use crate::shell::Hooked;

/// How long a prompt waits for the daemon at most, unless `--timeout` says otherwise.
const PATIENCE: Duration = Duration::from_millis(500);

/// Prints the code for the rc file; with `--follow` the changes. False when the daemon had no answer, so that it is
/// worth another attempt.
pub(crate) fn run(daemon: &DaemonArgs, args: &HookArgs) -> Result<bool, Error> {
    match args.follow {
        Some(shell) => follow(&Daemon::new(daemon, PATIENCE), args.shell, shell),
        None => {
            let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("wtd-client"));
            output::bytes(&args.shell.script(&program, &options(daemon)?)).map(|()| true)
        }
    }
}

/// The options that the hook was made with.
fn options(daemon: &DaemonArgs) -> Result<Vec<OsString>, Error> {
    let mut options = Vec::new();
    if let Some(socket) = &daemon.socket {
        options.extend(["--socket".into(), crate::environment::absolute(Some(socket))?.into()]);
    }
    if daemon.no_start {
        options.push("--no-start".into());
    }
    if let Some(timeout) = daemon.timeout {
        options.extend(["--timeout".into(), format!("{}ms", timeout.as_millis()).into()]);
    }
    Ok(options)
}

/// Prints what takes the shell with this process id to the variables of the working directory. Whatever the daemon
/// says, the variables of a worktree that the shell has left are taken back.
fn follow(daemon: &Daemon, hooked: Hooked, shell: u32) -> Result<bool, Error> {
    let (variables, error) = match Environment::of(daemon, None, &mut || {}) {
        Ok(environment) => (environment.variables, None),
        Err(error) => (BTreeMap::new(), Some(error)),
    };
    let state = variable(WTD_HOOK).and_then(|value| State::parse(&value));
    let direnv = variable(DIRENV_DIFF).map(|record| hook::changed_by_direnv(&record)).unwrap_or_default();
    let (worktree, wanted) = (variable(WTD_WORKTREE), variables.get(WTD_WORKTREE));
    let left = worktree.as_ref().filter(|worktree| Some(*worktree) != wanted);
    // Where the hook has set the worktree's variables, direnv has not.
    let is_ours = state.as_ref().is_some_and(|state| state.memories.contains_key(WTD_WORKTREE));
    let before = Before {
        is_set_by_env: (direnv.is_empty() || is_ours) && worktree.is_some() && left.is_none(),
        given: left.map(|left| foreign::given_by_env(left)).unwrap_or_default(),
        state,
        direnv,
        value: &|name| std::env::var_os(name),
    };
    let (state, changes) = hook::follow(&before, &variables, shell);
    if before.state.as_ref() != Some(&state) || !changes.is_empty() {
        output::bytes(&hooked.changes(&changes, (WTD_HOOK, &state.to_value()?)))?;
    }
    match error {
        Some(error) if error.exit_code() == 4 => Ok(false),
        Some(error) if !is_quiet(&error) => {
            output::error("hook", &error);
            Ok(true)
        }
        _ => Ok(true),
    }
}

/// Whether an error is none that a person wants to read whenever the directory changes.
fn is_quiet(error: &Error) -> bool {
    match error {
        Error::NotInAWorktree(_) => true,
        Error::Problem(problem) => matches!(
            problem.kind,
            ProblemType::NotInAWorktree | ProblemType::PathNotFound | ProblemType::PathUnreadable
        ),
        _ => false,
    }
}
