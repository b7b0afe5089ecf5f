//! The command line of `wtd`.

use clap::Parser;

use crate::config::Flags;

/// Gives every git worktree on this machine a PORT_OFFSET, and with it ports, a Docker volume, a database name
/// and a Compose project of its own.
///
/// The daemon is started by systemd, or by `wtd-client` when it is needed; there is seldom a reason to start it
/// by hand. What a flag says goes before its environment variable, and that before the configuration file.
#[derive(Debug, Clone, Parser)]
#[command(name = "wtd", version)]
#[expect(clippy::doc_markdown, reason = "these comments are the help text, where a backtick is a backtick")]
pub struct Cli {
    /// Where the registry and the socket are, and what the configuration file has keys for.
    #[command(flatten)]
    pub flags: Flags,

    /// The daemon was started by a client: nobody reads its output, and it belongs to no terminal.
    #[arg(long, hide = true)]
    pub detached: bool,

    /// Print the manual page (roff), and do nothing else.
    #[arg(long, hide = true)]
    pub man: bool,
}

/// A usage error as one line: clap's first paragraph, without its advice.
pub(crate) fn in_one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let told = text.strip_prefix("error: ").unwrap_or(&text).lines().map(str::trim);
    told.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
