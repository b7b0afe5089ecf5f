//! Logging: to the journal with fields where systemd started us, else to standard error or a file.

use std::fs::{File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// The log file of a daemon that was started by a client, in the state directory.
pub const LOG_FILE: &str = "wtd.log";

/// A log file that is larger than this is put aside at the next start, in bytes.
const LARGE: u64 = 1024 * 1024;

/// Begins to log what `filter` lets through. `detached`: nobody reads standard error.
pub fn start(filter: &str, detached: bool, state_dir: &Path) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(filter)?;
    let journal = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match journal {
        Some(journal) => journal.boxed(),
        None if detached => {
            fmt::layer().with_ansi(false).with_writer(Mutex::new(log_file(state_dir)?)).boxed()
        }
        None => fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(())
}

fn log_file(state_dir: &Path) -> std::io::Result<File> {
    std::fs::create_dir_all(state_dir)?;
    let path = state_dir.join(LOG_FILE);
    if path.metadata().is_ok_and(|there| there.len() > LARGE) {
        std::fs::rename(&path, path.with_extension("log.old"))?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}
