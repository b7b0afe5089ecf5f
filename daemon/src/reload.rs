//! The configuration in force. It is read again on request, and handed to the parts of the daemon that go by it.
//!
//! What is asked for from then on is decided by the new values; no offset that was given changes (a reassignment is a
//! person's own decision). A configuration that can't be read or makes no sense leaves the one in force as it is.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::sync::{Mutex, watch};
use tracing::{error, info, warn};
use wtd_protocol::PathText;
use wtd_protocol::requests::Reloaded;

use crate::config::{Config, ConfigError, Sources};
use crate::domain::allocator::Rules;
use crate::engine::Engine;
use crate::listeners;
use crate::probe::{PortProbe, SystemProbe};
use crate::reconciler::Reconciler;
use crate::registry::{WriteError, Writer};
use crate::roots::Roots;
use crate::systemd;
use crate::telemetry::Log;

/// How long reading the configuration may take: it can be on a disk that does not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why the configuration in force stays as it is.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The new one is none.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Reading it took too long.
    #[error("the configuration could not be read within {} s", PATIENCE.as_secs())]
    TimedOut,
    /// The daemon is about to end.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// The parts of the daemon that go by the configuration.
#[derive(Debug)]
pub struct Governed {
    /// Rules and probe, for whoever is given an offset.
    pub writer: Writer,
    /// Where the container engine is.
    pub engine: Engine,
    /// Who has to look again after a change.
    pub reconciler: Reconciler,
    /// Where repositories are found.
    pub roots: Arc<Roots>,
    /// The time between looks at every repository.
    pub resync: watch::Sender<Duration>,
    /// What is logged.
    pub log: Log,
}

/// The configuration in force; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Reloader(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    sources: Sources,
    /// Locked for as long as a reload takes, so that two don't mix.
    in_force: Mutex<Config>,
    governed: Governed,
    /// Why the last reload put nothing in force.
    refused: parking_lot::Mutex<Option<String>>,
}

/// How the configuration compares with the one in force.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Keys that a reload puts in force.
    pub reloadable: Vec<&'static str>,
    /// Keys that only a restart does.
    pub at_restart: Vec<&'static str>,
}

impl Reloader {
    /// Parts that go by `in_force`, which came from `sources`.
    pub fn new(sources: Sources, in_force: Config, governed: Governed) -> Self {
        Self(Arc::new(Inner {
            sources,
            in_force: Mutex::new(in_force),
            governed,
            refused: parking_lot::Mutex::default(),
        }))
    }

    /// Reads the configuration again and puts it in force, as far as that can be done without a restart. Says so in the
    /// log and to systemd.
    pub async fn reload(&self) -> Result<Reloaded, ReloadError> {
        systemd::notify_reloading();
        let result = self.replace().await;
        *self.0.refused.lock() = result.as_ref().err().map(ToString::to_string);
        let status = match &result {
            Ok(reloaded) => {
                info!(changed = reloaded.changed.join(" "), "configuration reloaded");
                if !reloaded.needs_restart.is_empty() {
                    let keys = reloaded.needs_restart.join(" ");
                    warn!(keys, "part of the configuration takes a restart of wtd");
                }
                String::new()
            }
            Err(why) => {
                error!(
                    error = why as &dyn std::error::Error,
                    "configuration not reloaded, the one before stays"
                );
                format!("configuration not reloaded: {why}")
            }
        };
        systemd::notify(&[NotifyState::Status(&status), NotifyState::Ready]);
        result
    }

    /// Why the last reload put nothing in force, if it did not.
    pub fn refused(&self) -> Option<String> {
        self.0.refused.lock().clone()
    }

    async fn replace(&self) -> Result<Reloaded, ReloadError> {
        let mut in_force = self.0.in_force.lock().await;
        let wanted = self.read().await?;
        let difference = Difference::between(&in_force, &wanted);
        // What takes a restart stays in force, so that it is told again to whoever asks.
        let next = Config { listen: in_force.listen, ..wanted };
        self.0.governed.go_by(&next).await?;
        let file = next.file.as_deref().map(|file| PathText::of(file).text);
        *in_force = next;
        let owned = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect();
        Ok(Reloaded {
            file,
            changed: owned(&difference.reloadable),
            needs_restart: owned(&difference.at_restart),
        })
    }

    /// The configuration as its sources have it now, and what of that is not in force.
    pub async fn compare(&self) -> Result<(Config, Difference), ReloadError> {
        let wanted = self.read().await?;
        let difference = Difference::between(&*self.0.in_force.lock().await, &wanted);
        Ok((wanted, difference))
    }

    async fn read(&self) -> Result<Config, ReloadError> {
        let sources = self.0.sources.clone();
        let reading = tokio::task::spawn_blocking(move || sources.load());
        let read = tokio::time::timeout(PATIENCE, reading).await.map_err(|_| ReloadError::TimedOut)?;
        Ok(read.map_err(|_| ReloadError::ShuttingDown)??)
    }
}

impl Governed {
    async fn go_by(&self, config: &Config) -> Result<(), ReloadError> {
        self.engine.configure(config.engine.clone());
        match self.writer.govern(rules(config), probe(config, &self.engine)).await {
            // Steps of others that were decided together with this one were not recorded; the rules hold all the same.
            Ok(()) | Err(WriteError::Store(_) | WriteError::Overlap(_) | WriteError::Panicked) => {}
            Err(WriteError::ShuttingDown) => return Err(ReloadError::ShuttingDown),
        }
        self.resync.send_replace(config.resync);
        self.roots.configure(&config.roots);
        if let Err(error) = self.log.filter(&config.log) {
            warn!(%error, "what is logged stays as it was");
        }
        // Another engine may say that nothing is left of a stale allocation, other rules may leave room for a worktree
        // that found none.
        self.reconciler.notice_stale();
        self.reconciler.mark_in_want();
        Ok(())
    }
}

/// The rules by which offsets are given.
pub fn rules(config: &Config) -> Rules {
    Rules {
        step: config.step,
        reserved: config.reserved_ports.ranges().to_vec(),
        avoided: if config.avoid_ephemeral { listeners::ephemeral_range() } else { None },
    }
}

/// The probe of ports, unless there is to be none.
pub fn probe(config: &Config, engine: &Engine) -> Option<Box<dyn PortProbe + Send>> {
    let engine = engine.clone();
    // Asked only about a port that is taken, from where the writer may block.
    let published_by =
        move |port| tokio::runtime::Handle::current().block_on(engine.published_ports()).remove(&port);
    config.probe.then(|| Box::new(SystemProbe::new(published_by)) as _)
}

impl Difference {
    /// The keys in which two configurations differ, by their names in the file.
    fn between(in_force: &Config, wanted: &Config) -> Self {
        // Taken apart so that a key that comes to the configuration is not forgotten here. The registry's directory and
        // the socket are not in the file, and what flags and variables say stays as it is.
        let Config {
            file: _,
            state_dir: _,
            socket: _,
            roots,
            reserved_ports,
            probe,
            engine,
            resync,
            log,
            step,
            avoid_ephemeral,
            listen,
        } = in_force;
        let reloadable = [
            ("roots", *roots != wanted.roots),
            ("reserved_ports", *reserved_ports != wanted.reserved_ports),
            ("probe", *probe != wanted.probe),
            ("engine", *engine != wanted.engine),
            ("resync", *resync != wanted.resync),
            ("log", *log != wanted.log),
            ("step", *step != wanted.step),
            ("avoid_ephemeral", *avoid_ephemeral != wanted.avoid_ephemeral),
        ];
        let at_restart = [("listen", *listen != wanted.listen)];
        let differing = |keys: &[(&'static str, bool)]| {
            keys.iter().filter(|(_, differs)| *differs).map(|(key, _)| *key).collect()
        };
        Self { reloadable: differing(&reloadable), at_restart: differing(&at_restart) }
    }
}
