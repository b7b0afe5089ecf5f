//! Logging: to the journal with fields where systemd started us, else to standard error or a file.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::IsTerminal;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Mutex;

use anyhow::Context as _;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

/// The log file of a daemon that was started by a client, in the state directory.
pub const LOG_FILE: &str = "wtd.log";

/// A log file that is larger than this is put aside at the next start, in bytes.
const LARGE: u64 = 1024 * 1024;

/// What is logged, which can be changed.
#[derive(Debug, Clone)]
pub struct Log(reload::Handle<EnvFilter, Registry>);

impl Log {
    /// Logs what these directives let through from now on.
    pub fn filter(&self, directives: &str) -> anyhow::Result<()> {
        Ok(self.0.reload(EnvFilter::try_new(directives)?)?)
    }
}

/// Begins to log what `filter` lets through. `detached`: nobody reads standard error.
pub fn start(filter: &str, detached: bool, state_dir: &Path) -> anyhow::Result<Log> {
    let (filter, handle) = reload::Layer::new(EnvFilter::try_new(filter)?);
    let journal = is_for_journal().then(tracing_journald::layer).and_then(Result::ok);
    let layer = match journal {
        // The fields of our own can be searched for: `journalctl --user WTD_OFFSET=10000`.
        Some(journal) => journal.with_field_prefix(Some("WTD".to_owned())).boxed(),
        None if detached => {
            fmt::layer().with_ansi(false).with_writer(Mutex::new(log_file(state_dir)?)).boxed()
        }
        None => fmt::layer().with_ansi(std::io::stderr().is_terminal()).with_writer(std::io::stderr).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(filter)).try_init()?;
    Ok(Log(handle))
}

/// Whether systemd connected our standard error with the journal. The variable names the connection's device and inode,
/// since it is inherited by processes whose standard error is something else (systemd.exec(5)).
fn is_for_journal() -> bool {
    let Ok(stderr) = rustix::fs::fstat(std::io::stderr()) else { return false };
    std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| stream == format!("{}:{}", stderr.st_dev, stderr.st_ino))
}

fn log_file(state_dir: &Path) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(state_dir)
        .with_context(|| format!("the state directory {}", state_dir.display()))?;
    crate::store::check_directory(state_dir)?;
    let path = state_dir.join(LOG_FILE);
    let named = || format!("the log {}", path.display());
    if path.metadata().is_ok_and(|there| there.len() > LARGE) {
        std::fs::rename(&path, path.with_extension("log.old")).with_context(named)?;
    }
    OpenOptions::new().append(true).create(true).mode(0o600).open(&path).with_context(named)
}
