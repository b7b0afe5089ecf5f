//! What each verb of the command line takes.
#![expect(clippy::doc_markdown, reason = "help texts are shown as they are, without Markdown")]

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use wtd_protocol::gc::Age;

use super::values::{hooked_parser, shell_parser, verb_name};
use crate::shell::{Hooked, Shell};

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
