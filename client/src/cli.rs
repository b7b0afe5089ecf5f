//! The command line: what clap reads, and nothing else. The comments are the help texts.
//!
//! | module | subject |
//! |---|---|
//! | [`arguments`] | what each verb takes |
//! | [`values`] | how an argument is read |
#![expect(clippy::doc_markdown, reason = "help texts are shown as they are, without Markdown")]

mod arguments;
mod values;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueHint};

pub(crate) use arguments::{
    AddArgs, CheckArgs, CompletionsArgs, ComposeArgs, EnvArgs, ExecArgs, ForgetArgs, Format, GcArgs, GetArgs,
    HookArgs, InitArgs, JsonArgs, ListArgs, ManArgs, ReassignArgs, RestoreArgs, SeedArgs, TrustArgs,
};

/// Ports and names of a git worktree's own, for shells and programs.
///
/// Exit codes: 0 done; 1 failed; 2 usage; 3 not in a worktree (get, exec, env --write, --strict); 4 the daemon cannot be
/// reached; 5 no offset left.
#[derive(Debug, Parser)]
#[command(name = "wtd-client", version, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) daemon: DaemonArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How the daemon is found.
#[derive(Debug, Args)]
pub(crate) struct DaemonArgs {
    /// The daemon's socket [default: $WTD_SOCKET, else the user's runtime directory]
    #[arg(long, global = true, value_name = "PATH", value_hint = ValueHint::FilePath, help_heading = "Daemon")]
    pub(crate) socket: Option<PathBuf>,
    /// Do not start a daemon when none answers (also: WTD_NO_START=1)
    #[arg(long, global = true, help_heading = "Daemon")]
    pub(crate) no_start: bool,
    /// Longest time to wait for the daemon, such as 2s or 500ms [default: 2s, and for gc and others that give it work up
    /// to 30s once it has answered]
    #[arg(long, global = true, value_name = "TIME", value_parser = values::duration, help_heading = "Daemon")]
    pub(crate) timeout: Option<Duration>,
}

/// The verbs. Their arguments are built only for the one that was given: the client runs at every prompt.
#[derive(Debug, Subcommand)]
#[command(defer = true)]
pub(crate) enum Command {
    /// Print the worktree's variables, for eval
    Env(EnvArgs),
    /// Print shell code for an rc file: the variables then follow every change of directory
    Hook(HookArgs),
    /// Print the value of one variable
    Get(GetArgs),
    /// Run a command under the worktree's variables
    Exec(ExecArgs),
    /// Show the worktrees and what each one has
    List(ListArgs),
    /// Watch a repository from now on
    Add(AddArgs),
    /// Stop watching a repository; its allocations become stale
    Forget(ForgetArgs),
    /// Give a worktree another offset
    Reassign(ReassignArgs),
    /// Drop the volumes that removed worktrees left, after a question
    Gc(GcArgs),
    /// Bring a volume back that `gc --backup` wrote to a file
    Restore(RestoreArgs),
    /// Fill the worktree's database volume with a copy of another worktree's
    Seed(SeedArgs),
    /// Write a wtd.toml from what the project's Compose files say
    Init(InitArgs),
    /// Isolate the worktree's Compose project without changing its files
    Compose(ComposeArgs),
    /// Tell whether the shell's variables are this worktree's
    Check(CheckArgs),
    /// Trust the templates and files of a repository's wtd.toml, after a question
    Trust(TrustArgs),
    /// Show how the daemon fares
    Status(JsonArgs),
    /// Follow the changes of allocations until interrupted
    Events(JsonArgs),
    /// Have the daemon read its configuration again
    Reload(JsonArgs),
    /// Check everything that wtd needs, with the remedy for what is amiss
    Doctor(JsonArgs),
    /// Print the completion script of a shell
    Completions(CompletionsArgs),
    /// Print a manual page (roff)
    Man(ManArgs),
}

impl Command {
    /// The verb, as error messages name it.
    pub(crate) const fn verb(&self) -> &'static str {
        match self {
            Self::Env(_) => "env",
            Self::Hook(_) => "hook",
            Self::Get(_) => "get",
            Self::Exec(_) => "exec",
            Self::List(_) => "list",
            Self::Add(_) => "add",
            Self::Forget(_) => "forget",
            Self::Reassign(_) => "reassign",
            Self::Gc(_) => "gc",
            Self::Seed(_) => "seed",
            Self::Restore(_) => "restore",
            Self::Init(_) => "init",
            Self::Compose(_) => "compose",
            Self::Check(_) => "check",
            Self::Trust(_) => "trust",
            Self::Status(_) => "status",
            Self::Events(_) => "events",
            Self::Reload(_) => "reload",
            Self::Doctor(_) => "doctor",
            Self::Completions(_) => "completions",
            Self::Man(_) => "man",
        }
    }
}

/// The verb on a command line that clap refuses; none if there is none of that name.
pub(crate) fn verb(arguments: impl Iterator<Item = OsString>) -> Option<String> {
    let mut arguments = arguments.skip(1);
    while let Some(argument) = arguments.next() {
        match argument.to_str()? {
            "--socket" | "--timeout" => drop(arguments.next()),
            option if option.starts_with('-') => {}
            verb => return is_verb(verb).then(|| verb.to_owned()),
        }
    }
    None
}

fn is_verb(name: &str) -> bool {
    Cli::command().find_subcommand(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        let mut command = Cli::command();
        command.build();
        command.debug_assert();
    }

    #[test]
    fn each_command_is_described_as_in_the_list() {
        let mut command = Cli::command();
        let listed: Vec<_> = command.get_subcommands().map(|verb| verb.get_about().cloned()).collect();
        command.build();
        let described: Vec<_> = command.get_subcommands().map(|verb| verb.get_about().cloned()).collect();
        assert!(listed.iter().all(Option::is_some));
        assert_eq!(described.get(..listed.len()), Some(listed.as_slice()));
    }

    #[test]
    fn global_options_stand_before_or_after_the_verb() {
        for line in [
            ["wtd-client", "--timeout", "3", "--no-start", "list"],
            ["wtd-client", "list", "--timeout", "3", "--no-start"],
        ] {
            let cli = Cli::try_parse_from(line).unwrap();
            assert_eq!(cli.daemon.timeout, Some(Duration::from_secs(3)), "{line:?}");
            assert!(cli.daemon.no_start, "{line:?}");
        }
    }

    #[test]
    fn what_follows_the_command_of_exec_is_the_commands() {
        let Command::Exec(args) =
            Cli::try_parse_from(["wtd-client", "exec", "--", "make", "--path", "x", "--timeout", "1"])
                .unwrap()
                .command
        else {
            panic!("exec")
        };
        assert_eq!(args.command, ["make", "--path", "x", "--timeout", "1"]);
        assert_eq!(args.path, None);
    }

    #[test]
    fn tcsh_is_refused_with_the_reason() {
        let error =
            |line: &[&str]| Cli::try_parse_from([&["wtd-client"], line].concat()).unwrap_err().to_string();
        for line in [&["env", "--shell", "tcsh"][..], &["hook", "tcsh"]] {
            assert!(error(line).contains("quoted"), "{}", error(line));
        }
        for line in [&["env", "--shell", "dos"][..], &["hook", "dos"]] {
            assert!(error(line).contains("bash") && !error(line).contains("tcsh"), "{}", error(line));
        }
    }
}
