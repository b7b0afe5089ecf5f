//! What the daemon does for those who ask: every route of the API is one call here.

mod checks;
mod compose;
mod forget;
mod list;
mod reassign;
mod resolve;
mod seed;
mod sight;
mod trust;

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::broadcast;
use wtd_protocol::requests::Reloaded;
use wtd_protocol::{Change, Health, PathText, Problem, ProblemType, State};

use self::sight::Sight;
use crate::databases::Databases;
use crate::domain::identity::RepositoryId;
use crate::engine::Engine;
use crate::gc::Gc;
use crate::reconciler::Reconciler;
use crate::registry::Writer;
use crate::reload::{ReloadError, Reloader};
use crate::seed::Seeds;
use crate::store::{History, Place};
use crate::text::count;

/// How long the disk may take that the registry is on, where it is only to be told how that fares.
const REGISTRY_PATIENCE: Duration = Duration::from_millis(500);

/// The daemon's services; clones are handles to the same ones.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    parts: Parts,
    /// For what is read of repositories that are known.
    sight: Sight<RepositoryId>,
    /// For paths of which it is not known yet what they are in.
    discoveries: Sight<PathBuf>,
    /// For the registry's own files.
    registry_sight: Sight<PathBuf>,
}

impl Deref for Inner {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// What the services work with.
#[derive(Debug)]
pub struct Parts {
    /// The registry's writer and snapshots.
    pub writer: Writer,
    /// The reconciler.
    pub reconciler: Reconciler,
    /// The registry's past.
    pub history: History,
    /// The container engine.
    pub engine: Engine,
    /// The databases and schemas of worktrees.
    pub databases: Databases,
    /// gc.
    pub gc: Gc,
    /// Copies of volumes.
    pub seeds: Seeds,
    /// The daemon's configuration.
    pub reloader: Reloader,
    /// The registry's files.
    pub registry: Place,
    /// The socket.
    pub socket: PathBuf,
    /// Who made the socket: `systemd` or `self`.
    pub socket_from: &'static str,
    /// When the daemon was ready.
    pub started: Instant,
}

impl Service {
    /// Services that work with these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Inner {
            parts,
            sight: Sight::default(),
            discoveries: Sight::default(),
            registry_sight: Sight::default(),
        }))
    }

    /// What removed worktrees left: shown, dropped, and brought back.
    pub fn gc(&self) -> &Gc {
        &self.0.gc
    }

    /// The registry's past.
    pub fn history(&self) -> &History {
        &self.0.history
    }

    /// The changes from now on.
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.0.writer.subscribe()
    }

    /// How many repositories are polled, since they can't be watched.
    pub fn polled(&self) -> usize {
        self.0.reconciler.polled().len()
    }

    /// Puts the configuration in force as it is now.
    pub async fn reload(&self) -> Result<Reloaded, Problem> {
        self.0.reloader.reload().await.map_err(|error| match error {
            ReloadError::Config(_) | ReloadError::TimedOut => Problem::new(
                ProblemType::InvalidConfiguration,
                error.to_string(),
                "correct it, and reload again; the previous configuration stays in force until then",
            ),
            ReloadError::ShuttingDown => {
                Problem::new(ProblemType::ShuttingDown, error.to_string(), "ask again")
            }
        })
    }

    /// How the daemon fares.
    pub async fn health(&self) -> Health {
        let degraded = self.degraded().await;
        let snapshot = self.0.writer.snapshot();
        Health {
            status: if degraded.is_empty() { "ok" } else { "degraded" }.to_owned(),
            version: wtd_protocol::VERSION.to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.0.started.elapsed().as_secs(),
            registry: PathText::of(&self.0.registry.path).text,
            socket: PathText::of(&self.0.socket).text,
            socket_from: self.0.socket_from.to_owned(),
            repositories: snapshot.ledger.repositories().filter(|repository| repository.watched).count(),
            active: snapshot.ledger.count(State::Active),
            missing: snapshot.ledger.count(State::Missing),
            stale: snapshot.ledger.count(State::Stale),
            engine: self.0.engine.to_string(),
            degraded,
        }
    }

    /// Whether the registry's files are those that were opened; else what is wrong.
    async fn registry_in_place(&self) -> Result<(), String> {
        let registry = self.0.registry.clone();
        let asked = vec![(registry.path.clone(), registry)];
        let look = |registry: Place| registry.check().map_err(|error| error.to_string());
        let deadline = tokio::time::Instant::now() + REGISTRY_PATIENCE;
        let found = self.0.registry_sight.read(asked, deadline, look).await.pop().flatten();
        found.unwrap_or_else(|| {
            let path = self.0.registry.path.display();
            Err(format!("{path}: no answer within {REGISTRY_PATIENCE:?}, so the disk may hang"))
        })
    }

    /// What doesn't work as it should.
    async fn degraded(&self) -> Vec<String> {
        let mut degraded = Vec::new();
        if let Err(why) = self.registry_in_place().await {
            degraded.push(why);
        }
        if let Some(why) = self.0.reloader.refused() {
            degraded.push(format!("the configuration was not reloaded, the one before stays: {why}"));
        }
        let polled = self.0.reconciler.polled().len();
        if polled > 0 {
            let limit = self.0.reconciler.watches().and_then(crate::watch::Watches::limit);
            let why = limit.map_or_else(|| "they can't be watched".to_owned(), |limit| limit.to_string());
            degraded.push(format!("{} polled: {why}", count(polled, "repository is", "repositories are")));
        }
        let in_want = self.0.writer.snapshot().repositories_in_want().count();
        if in_want > 0 {
            let repositories = count(in_want, "repository", "repositories");
            degraded.push(format!("worktrees of {repositories} have no offset: none is left"));
        }
        degraded
    }
}
