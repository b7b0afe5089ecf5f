//! The command line of `wtd`.

use std::path::PathBuf;

use clap::Parser;

use crate::config::Settings;

/// Gives every git worktree on this machine a PORT_OFFSET, and with it ports, a Docker volume, a database name
/// and a Compose project of its own.
///
/// The daemon is started by systemd, or by `wtd-client` when it is needed; there is seldom a reason to start it
/// by hand. What a flag says goes before its environment variable, and that before the configuration file.
#[derive(Debug, Clone, Parser)]
#[command(name = "wtd", version)]
#[expect(clippy::doc_markdown, reason = "these comments are the help text, where a backtick is a backtick")]
pub struct Cli {
    /// Configuration file [env: WTD_CONFIG] [default: $XDG_CONFIG_HOME/wtd/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of the registry [env: WTD_STATE_DIR] [default: $XDG_STATE_HOME/wtd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Unix socket to answer on [env: WTD_SOCKET] [default: $XDG_RUNTIME_DIR/wtd/wtd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// The daemon was started by a client: nobody reads its output, and it belongs to no terminal.
    #[arg(long, hide = true)]
    pub detached: bool,

    /// Print the manual page (roff), and do nothing else.
    #[arg(long, hide = true)]
    pub man: bool,

    /// The keys of the configuration file, as flags.
    #[command(flatten)]
    pub settings: Settings,
}

/// A usage error as one line: clap's first paragraph, without its advice.
pub(crate) fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text.strip_prefix("error: ").unwrap_or(&text).lines().map(str::trim);
    told.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
