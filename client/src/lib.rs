//! `wtd-client`: asks the daemon for what is a git worktree's own, on behalf of shells and programs.
//!
//! It runs at every prompt, so it has no runtime and no threads, and makes few system calls.
//!
//! | module | subject |
//! |---|---|
//! | [`cli`] | the command line |
//! | [`commands`] | the verbs, one file each |
//! | [`environment`] | a worktree's variables, wherever they come from |
//! | [`daemon`], [`connection`], [`transport`], [`events`], [`deadline`] | asking the daemon |
//! | [`start`], [`fallback`] | when no daemon answers |
//! | [`hook`] | what the shell hook changes, and what it remembers |
//! | [`compose`] | the override that isolates a Compose project |
//! | [`init`] | a `wtd.toml` for a project |
//! | [`shell`], [`dotenv`] | variables in the words of those who read them |
//! | [`git`] | what git says of a file |
//! | [`output`], [`table`], [`error`] | what people see |

mod cli;
mod commands;
mod compose;
mod connection;
mod daemon;
mod deadline;
mod dotenv;
mod environment;
mod error;
mod events;
mod fallback;
mod foreign;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod git;
mod hook;
mod init;
mod output;
mod shell;
mod start;
mod table;
mod transport;

use std::process::ExitCode;

use clap::Parser as _;

use cli::{Cli, Command, DaemonArgs};
use daemon::{CHANGE_WORK, Daemon, ENGINE_WORK, GC_WORK, PATIENCE, RELOAD_WORK};
use error::Error;

/// Runs the program; gives its exit code.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            return match output::usage(cli::verb(std::env::args_os()).as_deref(), &error) {
                Ok(()) => ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2)),
                Err(error) => failed("help", &error),
            };
        }
    };
    match run(&cli.daemon, &cli.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => failed(cli.command.verb(), &error),
    }
}

fn failed(verb: &str, error: &Error) -> ExitCode {
    output::error(verb, error);
    ExitCode::from(error.exit_code())
}

/// Runs a verb; false when it has nothing to add to its output and still is no success.
fn run(args: &DaemonArgs, command: &Command) -> Result<bool, Error> {
    let daemon = || Daemon::new(args, PATIENCE);
    let working = |work| Daemon::working(args, work);
    match command {
        Command::Env(args) => commands::env::run(&daemon(), args),
        Command::Hook(hook) => return commands::hook::run(args, hook),
        Command::Get(args) => commands::get::run(&daemon(), args),
        Command::Exec(args) => match commands::exec::run(&daemon(), args)? {},
        Command::List(args) => commands::list::run(&daemon(), args),
        Command::Add(args) => commands::add::run(&working(CHANGE_WORK), args),
        Command::Forget(args) => commands::forget::run(&working(CHANGE_WORK), args),
        Command::Reassign(args) => commands::reassign::run(&working(ENGINE_WORK), args),
        Command::Gc(args) => return commands::gc::run(&working(GC_WORK), args),
        Command::Seed(args) => commands::seed::run(&working(GC_WORK), args),
        Command::Restore(args) => commands::restore::run(&working(GC_WORK), args),
        Command::Init(args) => commands::init::run(args),
        Command::Compose(args) => commands::compose::run(&working(CHANGE_WORK), args),
        Command::Check(args) => commands::check::run(&daemon(), args),
        Command::Trust(args) => commands::trust::run(&working(ENGINE_WORK), args),
        Command::Status(args) => commands::status::run(daemon(), args),
        Command::Events(args) => commands::events::run(&daemon(), args),
        Command::Reload(args) => commands::reload::run(working(RELOAD_WORK), args),
        Command::Doctor(args) => return commands::doctor::run(&working(ENGINE_WORK), args),
        Command::Completions(args) => commands::completions::run(args),
        Command::Man(args) => commands::man::run(args),
    }
    .map(|()| true)
}
