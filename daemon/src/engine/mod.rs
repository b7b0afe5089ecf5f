//! The container engine: where it is, what it has, and the few things that wtd asks it to do.
//!
//! [`place`] finds it, [`connection`] speaks to it, [`archive`] reads and writes what volumes hold, and [`helper`]
//! runs what copies them, for which [`pausing`] halts others; [`usage`] tells who has used one, [`news`] what has gone.
//! Every wait has an end, and a question without an answer is an error, never an empty answer.

mod archive;
mod connection;
mod helper;
mod news;
mod pausing;
mod place;
mod sizes;
mod usage;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tracing::warn;
use wtd_protocol::gc::EngineHint;

pub use archive::{HELPER_LABEL, Held};
pub use connection::{Connection, ContainerId, Removed};
pub use helper::{Helper, Output, Owner, root_owner_in};
pub use news::News;
pub use pausing::Resumed;
use place::Place;
pub use place::{Environment, Host};
pub use usage::{Since, Usage};

use crate::config;

/// How long the engine may take where its answer is a courtesy.
const SOON: Duration = Duration::from_millis(500);

/// Why the engine gave no answer. That is never the same as "nothing there".
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There should be one, and nothing says where it listens.
    #[error("a container engine is installed but its socket was not found")]
    NoSocket,
    /// The address is none that wtd can speak to.
    #[error("the container engine {address:?} can't be asked: {why}")]
    Address {
        /// What was given, at most so much of it as tells what it is.
        address: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The Docker context can't be read.
    #[error("the Docker context {0:?} names no engine")]
    Context(String),
    /// It is to be spoken to through TLS.
    #[error(
        "the container engine at {0} wants TLS, which wtd doesn't speak; forward its socket, and name that"
    )]
    Tls(Host),
    /// It did not answer, or not as it should.
    #[error("the container engine at {host}: {}", plain(source))]
    Failed {
        /// Where it was asked.
        host: Host,
        /// What went wrong.
        source: bollard::errors::Error,
    },
    /// It has drivers that gave it no answer, so what it lists is not all.
    #[error("the container engine at {host} can't list all of its volumes: {why}")]
    Incomplete {
        /// Where it was asked.
        host: Host,
        /// Its own words.
        why: String,
    },
    /// It did not answer in time.
    #[error("the container engine at {0} did not answer within {patience} s", patience = connection::PATIENCE.as_secs())]
    TimedOut(Host),
    /// Its API is older than any that was tried.
    #[error(
        "the container engine at {host} speaks version {version} of the API; 1.41 (Docker 20.10) is the oldest that wtd drops volumes with"
    )]
    TooOld {
        /// Where it is.
        host: Host,
        /// The version.
        version: String,
    },
    /// It says nothing by which it could be known again.
    #[error("the container engine at {0} has no id")]
    NoId(Host),
    /// What it gave of a directory is no archive, or only a part of one.
    #[error("the container engine at {host} gave of {directory} what can't be understood")]
    Unclear {
        /// Where it is.
        host: Host,
        /// The directory, as its container names it.
        directory: String,
    },
}

impl EngineError {
    /// What the engine's library says of the engine at `host`.
    fn of(host: &Host, source: bollard::errors::Error) -> Self {
        match source {
            bollard::errors::Error::RequestTimeoutError => Self::TimedOut(host.clone()),
            source => Self::Failed { host: host.clone(), source },
        }
    }
}

/// What lies at the bottom of an error: the layers above say only that something failed.
fn plain(error: &bollard::errors::Error) -> String {
    use bollard::errors::Error;
    match error {
        Error::DockerResponseServerError { status_code, message } => {
            format!("it answered {status_code}: {message}")
        }
        error => {
            let mut cause: &dyn std::error::Error = error;
            while let Some(below) = cause.source() {
                cause = below;
            }
            cause.to_string()
        }
    }
}

/// The engine, looked for anew whenever it is needed: it may be installed, started or moved at any time.
#[derive(Debug, Clone)]
pub struct Engine {
    configured: Arc<ArcSwap<config::Engine>>,
    environment: Environment,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Ok(Place::Host(host)) => f.write_str(host.as_str()),
            Ok(Place::None { .. }) => f.write_str("none"),
            Err(EngineError::NoSocket) => f.write_str("not found"),
            Err(why) => why.fmt(f),
        }
    }
}

impl Engine {
    /// The engine that the configuration and the environment name.
    pub fn new(configured: config::Engine, environment: Environment) -> Self {
        Self { configured: Arc::new(ArcSwap::from_pointee(configured)), environment }
    }

    /// Has the engine looked for where the configuration says now. Holds for every clone.
    pub fn configure(&self, configured: config::Engine) {
        self.configured.store(Arc::new(configured));
    }

    /// Whether both are looked for in the same way.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.configured, &other.configured) && self.environment == other.environment
    }

    /// The engine that a person means whose shell has these variables. The daemon's configuration stands before them.
    #[must_use]
    pub fn of_person(&self, hint: &EngineHint) -> Self {
        let environment =
            self.environment.of_person(hint.docker_host.as_deref(), hint.docker_context.as_deref());
        Self { configured: Arc::clone(&self.configured), environment }
    }

    fn place(&self) -> Result<Place, EngineError> {
        match &**self.configured.load() {
            config::Engine::None => Ok(Place::None { is_configured: true }),
            config::Engine::Host(host) => Host::new(host).map(Place::Host),
            config::Engine::Detect => self.environment.detect(),
        }
    }

    /// Whether the configuration says that there is none.
    pub fn is_configured_away(&self) -> bool {
        matches!(self.place(), Ok(Place::None { is_configured: true }))
    }

    /// Whether there is none, be it by the configuration or on this machine. One that is merely down is there.
    pub fn is_absent(&self) -> bool {
        matches!(self.place(), Ok(Place::None { .. }))
    }

    /// Why there is none, where [`Engine::open`] gives none.
    fn absence(&self) -> &'static str {
        if self.is_configured_away() {
            "there is none, as the daemon's configuration says"
        } else {
            "there is none on this machine"
        }
    }

    /// What to do where an engine is needed and [`Engine::open`] gives none, with the reason before it.
    pub fn wanted(&self) -> (String, &'static str) {
        let remedy = if self.is_configured_away() {
            "change `engine` there, then `wtd-client reload`, or start wtd anew without WTD_ENGINE or --engine"
        } else {
            "install one, or name one in DOCKER_HOST"
        };
        (format!("a container engine is needed, and {}", self.absence()), remedy)
    }

    /// Reaches the engine, and learns which one it is. None where there is none on this machine.
    pub async fn open(&self) -> Result<Option<Connection>, EngineError> {
        match self.place()? {
            Place::None { .. } => Ok(None),
            Place::Host(host) => Connection::open(host).await.map(Some),
        }
    }

    /// The ports that containers of Compose projects publish, each with the project's working directory. Empty when the
    /// engine does not say within [`SOON`]: this only tells whose a listener is.
    pub async fn published_ports(&self) -> HashMap<u16, PathBuf> {
        let Ok(Place::Host(host)) = self.place() else { return HashMap::new() };
        match tokio::time::timeout(SOON, connection::published_ports(&host)).await {
            Ok(Ok(ports)) => ports,
            Ok(Err(_)) | Err(_) => HashMap::new(),
        }
    }

    /// Whether the engine answers; where it is, or why not.
    pub async fn ping(&self) -> Result<String, String> {
        match self.open().await {
            Ok(None) => Ok(self.absence().to_owned()),
            Ok(Some(connection)) => Ok(format!("{} {}", connection.host(), connection.version())),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// Reaches those of the engines at these addresses that answer; of the others it is told why not.
pub async fn open_all(hosts: impl IntoIterator<Item = String>) -> Vec<Connection> {
    let mut connections = Vec::new();
    for host in hosts {
        let opened = match Host::new(&host) {
            Ok(host) => Connection::open(host).await,
            Err(error) => Err(error),
        };
        match opened {
            Ok(connection) => connections.push(connection),
            Err(error) => warn!(why = %error, "what was interrupted waits for its engine"),
        }
    }
    connections
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_not_an_empty_one() {
        let engine = Engine::new(
            config::Engine::Host("unix:///nowhere/docker.sock".to_owned()),
            Environment::default(),
        );
        assert!(engine.open().await.is_err());
        assert!(engine.ping().await.is_err());
    }
}
