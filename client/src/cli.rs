//! The command line: what clap reads, and nothing else. The comments are the help texts.
#![expect(clippy::doc_markdown, reason = "help texts are shown as they are, without Markdown")]

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Args, CommandFactory as _, Parser, Subcommand, ValueEnum, ValueHint};

use wtd_protocol::gc::Age;

use crate::shell::{Hooked, Shell};

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
    #[arg(long, global = true, value_name = "TIME", value_parser = duration, help_heading = "Daemon")]
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

// The structs below have no doc comments: clap would show those instead of the verb's.

// Arguments of `env`.
#[derive(Debug, Args)]
pub(crate) struct EnvArgs {
    /// Only these variables
    #[arg(value_name = "KEY")]
    pub(crate) keys: Vec<String>,
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// The shell that evaluates the output [default: the one that runs this command]
    #[arg(long, value_name = "SHELL", value_parser = shell_parser())]
    pub(crate) shell: Option<Shell>,
    /// How the variables are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Shell, hide_default_value = true)]
    pub(crate) format: Format,
    /// Fail with exit code 3 outside of a worktree, instead of printing nothing
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print nothing, and keep the variables in a marked block of FILE, which is in the worktree; whatever else is in
    /// FILE stays as it is
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, conflicts_with_all = ["shell", "format"])]
    pub(crate) write: Option<PathBuf>,
    /// Have git ignore FILE, by an entry in the repository's info/exclude
    #[arg(long, requires = "write")]
    pub(crate) exclude: bool,
}

/// How `env` writes variables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Code for the shell to evaluate (the default)
    Shell,
    /// KEY=value lines that Compose and POSIX shells read
    Dotenv,
    /// One flat JSON object
    Json,
}

// Arguments of `hook`.
#[derive(Debug, Args)]
pub(crate) struct HookArgs {
    /// The shell
    #[arg(value_name = "SHELL", value_parser = hooked_parser())]
    pub(crate) shell: Hooked,
    /// Print what that code evaluates: the changes of the variables in the shell with this process id
    #[arg(long, value_name = "PID", hide = true)]
    pub(crate) follow: Option<u32>,
}

// Arguments of `get`.
#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    /// The variable
    #[arg(value_name = "KEY")]
    pub(crate) key: String,
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
}

// Arguments of `exec`.
#[derive(Debug, Args)]
pub(crate) struct ExecArgs {
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// The command and its arguments
    #[arg(value_name = "CMD", required = true, trailing_var_arg = true, value_hint = ValueHint::CommandWithArguments)]
    pub(crate) command: Vec<OsString>,
}

// Arguments of `list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
    /// Stale and released allocations as well
    #[arg(long)]
    pub(crate) all: bool,
}

// Arguments of `add`.
#[derive(Debug, Args)]
pub(crate) struct AddArgs {
    /// A path in the repository
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) path: PathBuf,
}

// Arguments of `forget`.
#[derive(Debug, Args)]
pub(crate) struct ForgetArgs {
    /// A path in the repository, or the path of a missing worktree
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) path: PathBuf,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
}

// Arguments of `reassign`.
#[derive(Debug, Args)]
pub(crate) struct ReassignArgs {
    /// A path in the worktree [default: the working directory]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// Although the worktree's volume exists: its data stays behind under the old name
    #[arg(long)]
    pub(crate) force: bool,
}

// Arguments of `gc`.
#[derive(Debug, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct GcArgs {
    /// Only print what would be dropped
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Include worktrees that are missing, forgotten or moved to another offset
    #[arg(long)]
    pub(crate) missing: bool,
    /// Only worktrees that have been gone for so long, such as 7d, 12h or 2w
    #[arg(long, value_name = "AGE")]
    pub(crate) older_than: Option<Age>,
    /// Write each volume into a file in DIR before it is dropped; `restore` brings it back
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) backup: Option<PathBuf>,
    /// Stop and remove the containers of removed worktrees' own Compose projects first
    #[arg(long)]
    pub(crate) down: bool,
    /// Release offsets without asking the container engine, or a database server that does not answer: for what is gone for good
    #[arg(long, conflicts_with_all = ["down", "backup"])]
    pub(crate) no_engine: bool,
    /// JSON instead of a table
    #[arg(long)]
    pub(crate) json: bool,
}

// Arguments of `restore`.
#[derive(Debug, Args)]
pub(crate) struct RestoreArgs {
    /// The file
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) file: PathBuf,
    /// The volume's name [default: the one that it had]
    #[arg(long, value_name = "NAME")]
    pub(crate) volume: Option<String>,
}

// Arguments of `seed`.
#[derive(Debug, Args)]
pub(crate) struct SeedArgs {
    /// A path in the worktree that is filled [default: the working directory]
    #[arg(value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// A path in the worktree that is copied [default: the main worktree]
    #[arg(long, value_name = "PATH", value_hint = ValueHint::DirPath)]
    pub(crate) from: Option<PathBuf>,
    /// Copy every volume that both worktrees have, not the database's alone
    #[arg(long)]
    pub(crate) all: bool,
    /// Refuse what can't be copied without pausing the containers that use it
    #[arg(long)]
    pub(crate) no_pause: bool,
    /// JSON instead of sentences
    #[arg(long)]
    pub(crate) json: bool,
}

// Arguments of `init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// A Compose file of the project, as for `docker compose -f` [default: what Compose finds]
    #[arg(short, long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// Print the file, and write nothing
    #[arg(long)]
    pub(crate) print: bool,
}

// Arguments of `compose`.
#[derive(Debug, Args)]
pub(crate) struct ComposeArgs {
    /// A Compose file of the project, as for `docker compose -f` [default: what Compose finds]
    #[arg(short, long = "file", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) files: Vec<PathBuf>,
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// Put the override into the worktree's git dir, and COMPOSE_FILE among its variables
    #[arg(long)]
    pub(crate) write: bool,
    /// Take a written override away again
    #[arg(long, conflicts_with_all = ["write", "files"])]
    pub(crate) remove: bool,
}

// Arguments of `check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
}

// Arguments of `trust`.
#[derive(Debug, Args)]
pub(crate) struct TrustArgs {
    /// A path in the worktree [default: the working directory]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    pub(crate) path: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    pub(crate) yes: bool,
    /// Only show what takes trust, and whether it has it
    #[arg(long, conflicts_with_all = ["yes", "revoke"])]
    pub(crate) show: bool,
    /// Trust nothing of this repository any more; files stay as they are
    #[arg(long, conflicts_with = "yes")]
    pub(crate) revoke: bool,
}

// Arguments of verbs that only know `--json`.
#[derive(Debug, Args)]
pub(crate) struct JsonArgs {
    /// JSON instead of text
    #[arg(long)]
    pub(crate) json: bool,
}

// Arguments of `completions`.
#[derive(Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

// Arguments of `man`.
#[derive(Debug, Args)]
pub(crate) struct ManArgs {
    /// The page of this command, such as `env` [default: the page of wtd-client]
    #[arg(value_parser = verb_name)]
    pub(crate) command: Option<String>,
}

/// Reads the name of a shell.
fn shell_parser() -> impl TypedValueParser<Value = Shell> {
    named(Shell::ALL.map(Shell::name)).try_map(|name| Shell::from_name(&name))
}

/// Reads the name of a shell that has a hook.
fn hooked_parser() -> impl TypedValueParser<Value = Hooked> {
    named(Hooked::ALL.map(|hooked| hooked.shell().name())).try_map(|name| Hooked::from_name(&name))
}

/// Reads one of these names. csh and tcsh are read as well, to be refused with the reason: their quoting breaks on
/// newlines and on `!`, so no value could be printed safely.
fn named<const N: usize>(names: [&'static str; N]) -> PossibleValuesParser {
    let refused = ["tcsh", "csh"].map(|name| PossibleValue::new(name).hide(true));
    PossibleValuesParser::new(names.into_iter().map(PossibleValue::new).chain(refused))
}

/// Reads the name of a verb.
fn verb_name(text: &str) -> Result<String, &'static str> {
    if is_verb(text) { Ok(text.to_owned()) } else { Err("there is no such command") }
}

/// Reads a time such as `2s`, `500ms`, `1.5s` or plain seconds.
fn duration(text: &str) -> Result<Duration, String> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1e-3),
        None => (text.strip_suffix('s').unwrap_or(text), 1.0),
    };
    number
        .parse::<f64>()
        .ok()
        .filter(|_| number.starts_with(|first: char| first.is_ascii_digit()))
        .and_then(|number| Duration::try_from_secs_f64(number * unit).ok())
        .filter(|duration| *duration <= Duration::from_hours(24))
        .ok_or_else(|| "a time is written as 2s, 500ms or plain seconds, up to a day".to_owned())
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
    fn times_have_units() {
        assert_eq!(duration("2s"), Ok(Duration::from_secs(2)));
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for bad in ["", "s", "ms", "-1", "1m", "inf", "NaN", "1e99", "2 s", "+1"] {
            assert!(duration(bad).is_err(), "{bad:?}");
        }
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
