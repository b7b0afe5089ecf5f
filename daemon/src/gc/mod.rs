//! gc at work: what of removed worktrees is left on container engines, and dropping it when a person asks.
//!
//! [`survey`] gathers what the plan is made from, [`run`] carries out what a person was shown, [`report`] puts both into
//! the words of the API, [`backup`] writes what is dropped to an [`archive`] and [`restore`] brings it back. [`recorder`]
//! notes which engine was there while an allocation lived. Nothing is ever dropped but by a request.

pub mod recorder;
pub mod report;
pub mod restore;
pub mod run;
pub mod survey;

mod archive;
mod backup;
mod proofs;

use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::{Mutex, mpsc, watch};
use tracing::warn;
use wtd_protocol::gc::{Age, GcEvent, GcReport, GcRequest, RestoreRequest};
use wtd_protocol::{Problem, ProblemType};

use crate::domain::gc::plan::Options;
use crate::engine::{Connection, Engine, EngineError, open_all};
use crate::problem;
use crate::registry::Writer;
use crate::release::Releaser;
use crate::retry::Unended;
use crate::store::StoreError;

/// How long a run waits for one that is under way.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long the daemon's end waits until a volume that is being restored is cleared away.
pub const CLEARING: Duration = Duration::from_secs(20);

/// What gc works with; clones are handles to the same one.
#[derive(Debug, Clone)]
pub struct Gc(Arc<Parts>);

#[derive(Debug)]
struct Parts {
    releaser: Releaser,
    engine: Engine,
    running: Arc<Mutex<()>>,
    /// Held while a volume is restored.
    restoring: Arc<Mutex<()>>,
    /// Told when a volume that was restored by half could not be cleared away at once.
    unended: Arc<Unended>,
    /// Whether the daemon is about to end.
    end: watch::Sender<bool>,
    /// Stands for this registry on an engine that others use too.
    owner: String,
}

/// A request, understood.
#[derive(Debug, Clone)]
pub struct Wish {
    options: Options,
    engine: Engine,
    asks_no_engine: bool,
    backup: Option<PathBuf>,
    only: Option<Vec<String>>,
}

impl Gc {
    /// A gc that works with these, for the registry at this path.
    pub fn new(releaser: Releaser, engine: Engine, registry: &Path) -> Self {
        let (end, _) = watch::channel(false);
        let (running, restoring, unended) = (Arc::default(), Arc::default(), Arc::default());
        let owner = owner_of(registry);
        Self(Arc::new(Parts { releaser, engine, running, restoring, unended, end, owner }))
    }

    /// What stands on an engine for what restoring makes there: gc's own helpers go by another name, since each clears
    /// away what it finds of its own.
    fn restorer(&self) -> String {
        format!("{}restore", self.0.owner)
    }

    fn writer(&self) -> &Writer {
        &self.0.releaser.writer
    }

    /// What a request asks for.
    pub fn wish(&self, request: &GcRequest) -> Result<Wish, Problem> {
        let bad = |detail: &str| Problem::new(ProblemType::BadRequest, detail, "see /v1/openapi.json");
        let backup = match &request.backup {
            None => None,
            Some(path) => {
                let path = path.path().map_err(|error| bad(&error.to_string()))?;
                if !path.is_absolute() {
                    return Err(bad("the directory for backups has to be an absolute path"));
                }
                Some(path)
            }
        };
        let Age { seconds } = request.older_than.unwrap_or_default();
        let older_than_ms = i64::try_from(seconds).unwrap_or(i64::MAX).saturating_mul(1000);
        Ok(Wish {
            options: Options {
                missing: request.missing,
                older_than_ms,
                down: request.down,
                backup: backup.is_some(),
            },
            engine: self.0.engine.of_person(&request.engine),
            asks_no_engine: request.no_engine,
            backup,
            only: request.only.clone(),
        })
    }

    /// What a run would do now.
    pub async fn plan(&self, wish: &Wish) -> Result<GcReport, Problem> {
        let survey = self.survey(wish, true).await?;
        Ok(report::of(&survey))
    }

    /// Looks at a file and at the engine that it is to be brought back to.
    pub async fn restore(&self, request: &RestoreRequest) -> Result<restore::Restore, Problem> {
        let bad = |detail: String| Problem::new(ProblemType::BadRequest, detail, "see /v1/openapi.json");
        let path = request.file.path().map_err(|error| bad(error.to_string()))?;
        if !path.is_absolute() {
            return Err(bad("the file has to be given by an absolute path".to_owned()));
        }
        let engine = self.0.engine.of_person(&request.engine);
        let connection = engine.open().await.map_err(|error| problem::no_engine(&error))?;
        let Some(connection) = connection else {
            let (why, remedy) = engine.wanted();
            return Err(Problem::new(ProblemType::EngineUnavailable, why, remedy));
        };
        let lock = Arc::clone(&self.0.restoring).lock_owned();
        let lock = tokio::time::timeout(PATIENCE, lock).await.map_err(|_| {
            Problem::new(
                ProblemType::GcRunning,
                "another volume is being restored",
                "wait until that has ended",
            )
        })?;
        let (writer, owner) = (self.writer().clone(), self.restorer());
        let reconciler = self.0.releaser.reconciler.clone();
        let (end, unended) = (self.0.end.subscribe(), Arc::clone(&self.0.unended));
        let turn = restore::Turn { writer, reconciler, owner, end, unended, _lock: lock };
        let volume = request.volume.clone();
        // By itself: a caller who goes away must not keep what an earlier process left from being cleared away whole.
        let prepared = tokio::spawn(async move {
            restore::clear(&turn.writer, &turn.owner, &connection).await?;
            restore::Restore::prepare(turn, connection, path, volume.as_deref()).await
        });
        prepared.await.map_err(|_| problem::shutting_down())?
    }

    /// Clears away what an earlier process was interrupted at and what this one could not clear away, as soon as the engines
    /// answer that it was at. Until the future is dropped.
    pub async fn recover(&self, resyncs: &watch::Receiver<Duration>) {
        self.0.unended.follow(resyncs, || self.is_all_cleared()).await;
    }

    /// Clears away what was restored by half; true when nothing of that is left.
    async fn is_all_cleared(&self) -> bool {
        let _lock = self.0.restoring.lock().await;
        let hosts: HashSet<String> =
            restore::unended(self.writer()).into_iter().map(|it| it.host.clone()).collect();
        for connection in open_all(hosts).await {
            if let Err(problem) = restore::clear(self.writer(), &self.restorer(), &connection).await {
                warn!(why = problem.detail, "what was restored by half waits");
            }
        }
        restore::unended(self.writer()).is_empty()
    }

    /// Clears away what was restored by half, unless it is being restored now.
    async fn clear(&self, connection: &Connection) -> Result<(), Problem> {
        match self.0.restoring.try_lock() {
            Ok(_lock) => restore::clear(self.writer(), &self.restorer(), connection).await,
            Err(_) => Ok(()),
        }
    }

    /// Ends restoring that is under way, and waits until it is cleared away; a run ends before its next step.
    pub async fn end(&self) {
        self.0.end.send_replace(true);
        let both = async { tokio::join!(self.0.restoring.lock(), self.0.running.lock()) };
        // What can't be cleared away in this time goes with the next start.
        drop(tokio::time::timeout(CLEARING, both).await);
    }

    fn is_ending(&self) -> bool {
        *self.0.end.borrow()
    }

    /// Waits until the daemon is about to end.
    async fn ending(&self) {
        // The sender lives as long as this does.
        drop(self.0.end.subscribe().wait_for(|ends| *ends).await);
    }

    /// Begins a run, which goes on by itself as long as somebody hears of its events. One run at a time.
    pub async fn begin(&self, wish: Wish) -> Result<mpsc::Receiver<GcEvent>, Problem> {
        let lock = Arc::clone(&self.0.running).lock_owned();
        let lock = tokio::time::timeout(PATIENCE, lock).await.map_err(|_| {
            Problem::new(ProblemType::GcRunning, "another gc is under way", "wait until it has ended")
        })?;
        let survey = self.survey(&wish, false).await?;
        let (events, heard) = mpsc::channel(16);
        let this = self.clone();
        tokio::spawn(async move {
            run::Run::new(&this, wish, survey, events).run().await;
            drop(lock);
        });
        Ok(heard)
    }
}

/// What stands for the registry at this path on an engine.
pub fn owner_of(registry: &Path) -> String {
    let digest = Sha256::digest(registry.as_os_str().as_bytes());
    digest.iter().take(8).fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

/// The engine can't be asked: what a person can do about it who wants offsets back.
fn not_asked(error: &EngineError) -> Problem {
    Problem::new(
        ProblemType::EngineUnavailable,
        error.to_string(),
        format!(
            "{}; `wtd-client gc --no-engine` releases offsets if it is gone for good",
            problem::REACH_ENGINE
        ),
    )
}

fn store_problem(error: &StoreError) -> Problem {
    Problem::new(ProblemType::RegistryUnavailable, error.to_string(), "see `wtd-client doctor`")
}
