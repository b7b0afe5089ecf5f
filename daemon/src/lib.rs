//! `wtd`: a daemon that gives every git worktree on a machine a `PORT_OFFSET` of its own.
//!
//! [`domain`] decides, and knows nothing of files, SQL or HTTP. [`git`] reads repositories, [`store`] keeps the
//! registry, [`watch`] hears of changes, and [`reconciler`] brings the three together. [`service`] answers those who
//! ask, through [`http`]. [`daemon`] puts it all together.

pub mod cli;
pub mod config;
pub mod daemon;
pub mod databases;
pub mod domain;
pub mod engine;
pub mod env_files;
pub mod errand;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod gc;
pub mod git;
pub mod http;
pub mod inherited;
pub mod listeners;
pub mod manual;
pub(crate) mod permit;
pub mod probe;
pub mod problem;
pub mod project_file;
pub mod pruning;
pub mod reconciler;
pub mod registry;
pub mod release;
pub mod reload;
pub mod retry;
pub mod roots;
pub mod seed;
pub mod service;
pub mod socket;
pub mod store;
pub mod systemd;
pub mod telemetry;
pub mod text;
pub mod vacancy;
pub mod watch;
pub mod wire;

use std::io::{IsTerminal as _, Write};
use std::process::ExitCode;

use clap::Parser;
use listenfd::ListenFd;
use rustix::fs::Mode;
use wtd_protocol::socket::FAILED;

/// The exit code of a daemon that broke while it served (sysexits.h(3head)). One that could not start exits with 1, which
/// the systemd unit tells from this.
const EX_SOFTWARE: u8 = 70;

/// Runs the daemon as its command line says.
pub fn main() -> ExitCode {
    // Takes LISTEN_FDS out of the environment, which is safe only as long as there is one thread.
    let passed = ListenFd::from_env();
    let cli = match cli::Cli::try_parse() {
        Ok(cli) => cli,
        Err(said) => return answer(&said),
    };
    if cli.detached {
        inherited::let_go();
    }
    if cli.man {
        return match manual::write(&mut std::io::stdout().lock()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        };
    }
    match start(&cli, passed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if cli.detached {
                tracing::error!("{}", in_one_line(&error));
            }
            say(&format!("wtd: {}", in_one_line(&error)));
            if cli.detached && !another_serves(&error) {
                tell_starter(&format!("{FAILED}{}\n", in_one_line(&error)));
            }
            if error.is::<daemon::Broken>() { ExitCode::from(EX_SOFTWARE) } else { ExitCode::FAILURE }
        }
    }
}

/// Prints what a command line asks for instead of a daemon, or in one line why it makes no sense.
fn answer(said: &clap::Error) -> ExitCode {
    if said.use_stderr() {
        say(&format!("wtd: {}; see `wtd --help`", cli::in_one_line(said)));
        return ExitCode::from(2);
    }
    let mut stdout = std::io::stdout();
    // Styled on a terminal only, whatever CLICOLOR_FORCE says.
    let printed = if stdout.is_terminal() {
        said.print()
    } else {
        write!(stdout, "{}", said.render()).and_then(|()| stdout.flush())
    };
    match printed {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => ExitCode::FAILURE,
        _ => ExitCode::SUCCESS,
    }
}

/// Whether the daemon ended because another one was quicker, which then answers in its place.
fn another_serves(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(store::StoreError::Held { serves_our_socket: true, .. }))
        || matches!(error.downcast_ref(), Some(socket::SocketError::Served(_)))
}

/// An error with its causes, each once: some tell their cause themselves.
fn in_one_line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.contains(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

/// Says why there is no daemon to the client that started us; it may have gone away.
fn tell_starter(line: &str) {
    let mut stdout = std::io::stdout().lock();
    drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()));
}

#[expect(clippy::print_stderr, reason = "the one line that tells a person why there is no daemon")]
fn say(line: &str) {
    eprintln!("{line}");
}

fn start(cli: &cli::Cli, passed: ListenFd) -> anyhow::Result<()> {
    let sources = config::Sources::new(cli.flags.clone(), |name| std::env::var_os(name));
    let config = sources.load()?;
    // Nothing that the daemon makes is for others.
    rustix::process::umask(Mode::RWXG | Mode::RWXO);
    if cli.detached {
        // Away from the terminal of the shell that started us. Who leads a process group already can't, and need not.
        match rustix::process::setsid() {
            Ok(_) | Err(rustix::io::Errno::PERM) => {}
            Err(errno) => return Err(std::io::Error::from(errno).into()),
        }
    }
    let log = telemetry::start(&config.log, cli.detached, &config.state_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(64)
        .thread_name("wtd")
        .enable_all()
        .build()?;
    let result = runtime.block_on(daemon::run(sources, config, log, passed, cli.detached));
    // A look at a disk that hangs must not keep the daemon from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}

#[cfg(test)]
mod tests {
    use super::in_one_line;

    #[test]
    fn a_cause_that_an_error_tells_itself_is_told_once() {
        let cause = || std::io::Error::other("no room");
        let own = anyhow::Error::from(cause()).context("/x: no room");
        assert_eq!(in_one_line(&own), "/x: no room");
        assert_eq!(
            in_one_line(&anyhow::Error::from(cause()).context("/x can't be read")),
            "/x can't be read: no room"
        );
    }
}
