//! Brings a volume back from a file that a backup wrote.
//!
//! Before anything is made the registry has the intent, and the volume a label with its id, so that another of its name is
//! not taken for it; what has no end in the registry is half filled, and goes when it is found ([`clear`]). As long as a
//! restored volume is there, the offset that its name leads to is given to nobody.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedMutexGuard, watch};
use tracing::{info, warn};
use uuid::Uuid;
use wtd_protocol::gc::Restored;
use wtd_protocol::{Problem, ProblemType};

use super::archive::{self, Content, inspect};
use crate::domain::allocation::Allocation;
use crate::domain::draft::Draft;
use crate::domain::gc::belongings::COMPOSE_PROJECT_LABEL;
use crate::domain::names::VolumeName;
use crate::domain::restoring::{RESTORE_LABEL, Restoring, offset_of};
use crate::engine::{Connection, EngineError, Held, Since, Usage, root_owner_in};
use crate::reconciler::Reconciler;
use crate::registry::{Decision, WriteError, Writer};
use crate::retry::Unended;
use crate::{problem, retry};

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How long unpacking a volume may take.
const UNPACKING: Duration = Duration::from_hours(2);

/// How much has the whole header of an archive's first entry, which is the volume's own directory, in bytes.
const ROOT_ENTRY: u64 = 8 * 1024;

/// A file that is to be brought back, looked at.
#[derive(Debug)]
pub struct Restore {
    connection: Connection,
    path: PathBuf,
    content: Content,
    /// The worktree that it may be put into though that lives: the one that it was written for. None where a person has
    /// named the volume, who means what is there then.
    of: Option<String>,
    name: VolumeName,
    labels: HashMap<String, String>,
    /// Its id, which the volume has as a label.
    id: String,
    turn: Turn,
}

/// The right to restore, which one has at a time.
#[derive(Debug)]
pub(super) struct Turn {
    /// The registry's writer.
    pub(super) writer: Writer,
    /// The reconciler: as long as the volume is there, its engine is listened to.
    pub(super) reconciler: Reconciler,
    /// Stands on an engine for what restoring makes there for this registry.
    pub(super) owner: String,
    /// Whether the daemon is about to end.
    pub(super) end: watch::Receiver<bool>,
    /// Is told when something could not be cleared away.
    pub(super) unended: Arc<Unended>,
    pub(super) _lock: OwnedMutexGuard<()>,
}

/// Clears away what was not restored to the end on this engine, unless something else may have used it since.
pub(super) async fn clear(writer: &Writer, owner: &str, connection: &Connection) -> Result<(), Problem> {
    let unended: Vec<Arc<Restoring>> =
        unended(writer).into_iter().filter(|it| it.engine == *connection.id()).collect();
    if unended.is_empty() {
        return Ok(());
    }
    let failed = |error: EngineError| problem::no_engine(&error);
    connection.remove_helpers(owner).await.map_err(failed)?;
    for restoring in unended {
        let found = connection.volume(&restoring.volume).await.map_err(failed)?;
        let kept = if found.is_some_and(|found| restoring.made(&found)) {
            connection.remove_unused(&restoring.volume, owner, Since::Before).await.map_err(failed)?
        } else {
            None
        };
        let (volume, outcome) = (&restoring.volume, interrupted(kept.as_deref()));
        conclude(writer, &restoring.id, outcome, kept.is_some())
            .await
            .map_err(|error| problem::not_written(&error))?;
        match kept {
            None => info!(%volume, "volume removed that was restored by half"),
            Some(why) => warn!(%volume, why, "volume left that was restored by half"),
        }
    }
    Ok(())
}

/// What was begun to be restored and has no end.
pub(super) fn unended(writer: &Writer) -> Vec<Arc<Restoring>> {
    writer.snapshot().ledger.restorings().filter(|it| !it.has_ended).cloned().collect()
}

fn interrupted(kept: Option<&str>) -> String {
    match kept {
        Some(why) => format!("was interrupted; it is left as it is: {why}"),
        None => "was interrupted; what was there of it is removed".to_owned(),
    }
}

/// Records how a restoring has ended, and whether its volume is there.
async fn conclude(writer: &Writer, id: &str, outcome: String, is_there: bool) -> Result<(), WriteError> {
    retry::record(|| {
        let (id, outcome) = (id.to_owned(), outcome.clone());
        writer.commit(move |ledger, _| {
            let mut draft = Draft::new(ledger);
            draft.end_restoring(&id, outcome, is_there);
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), ()))
        })
    })
    .await
}

impl Restore {
    /// Reads the file, and sees that the engine has no volume of that name.
    pub(super) async fn prepare(
        turn: Turn,
        connection: Connection,
        path: PathBuf,
        volume: Option<&str>,
    ) -> Result<Self, Problem> {
        let bad = |why: String| {
            Problem::new(
                ProblemType::PathUnreadable,
                format!("{}: {why}", path.display()),
                "give a file that `wtd-client gc --backup` wrote",
            )
        };
        let to_read = path.clone();
        let content = tokio::task::spawn_blocking(move || inspect(&to_read))
            .await
            .map_err(|_| problem::shutting_down())?
            .map_err(|error| bad(error.to_string()))?;
        let Some(manifest) = &content.manifest else {
            return Err(bad("it does not say which volume it was".to_owned()));
        };
        let name = VolumeName::new(volume.unwrap_or(&manifest.volume)).map_err(|error| {
            Problem::new(ProblemType::BadRequest, error.to_string(), "name another with --volume")
        })?;
        let found = connection.volume(&name).await.map_err(|error| problem::no_engine(&error))?;
        if found.is_some() {
            return Err(Problem::new(
                ProblemType::VolumeExists,
                format!("volume {name} exists"),
                format!(
                    "name another with --volume, or `docker volume rm {name}` if it is not needed; nothing is ever put into \
                     a volume that is there"
                ),
            ));
        }
        let id = Uuid::now_v7().to_string();
        let mut labels: HashMap<String, String> = manifest.labels.clone().into_iter().collect();
        labels.insert(RESTORE_LABEL.to_owned(), id.clone());
        let of = volume.is_none().then(|| manifest.worktree.clone());
        Ok(Self { connection, path, content, of, name, labels, id, turn })
    }

    /// Makes the volume and fills it. What can't be filled is removed again.
    pub async fn run(self) -> Result<Restored, Problem> {
        let reconciler = self.turn.reconciler.clone();
        let restored = self.run_to_end().await;
        reconciler.notice_stale();
        restored
    }

    async fn run_to_end(self) -> Result<Restored, Problem> {
        self.intend().await?;
        let mut end = self.turn.end.clone();
        let filled = async {
            // Not given up half-way: an engine may carry out what nobody waits for any more.
            let (held, file, first) = self.make().await?;
            tokio::select! {
                filled = self.fill(held, file, &first) => filled,
                // The sender lives as long as the daemon serves.
                _ = end.wait_for(|ends| *ends) => Err(problem::shutting_down()),
            }?;
            let ended = conclude(&self.turn.writer, &self.id, "restored".to_owned(), true).await;
            ended.map_err(|error| problem::not_written(&error))
        };
        if let Err(problem) = filled.await {
            return Err(self.undo(problem).await);
        }
        Ok(Restored {
            volume: self.name.to_string(),
            engine: self.connection.host().to_string(),
            entries: self.content.entries,
            failure: None,
        })
    }

    /// Records what is about to be made, unless it is the volume of a worktree that lives and is another.
    async fn intend(&self) -> Result<(), Problem> {
        let restoring = Restoring {
            id: self.id.clone(),
            engine: self.connection.id().clone(),
            host: self.connection.host().to_string(),
            volume: self.name.clone(),
            offset: offset_of(&self.name, self.labels.get(COMPOSE_PROJECT_LABEL).map(String::as_str)),
            has_ended: false,
        };
        let of = self.of.clone();
        let step = self.turn.writer.commit(move |ledger, _| {
            let opens = |it: &&Arc<Allocation>| {
                it.is_live() && it.own_volumes().any(|name| *name == restoring.volume)
            };
            if let (Some(of), Some(other)) = (of, ledger.allocations().find(opens))
                && other.path.to_string_lossy() != of
            {
                return Ok((None, Some(other.path.clone())));
            }
            let mut draft = Draft::new(ledger);
            draft.restore(restoring);
            Ok((Some(Decision { ledger: draft.ledger, records: draft.records, seen: None }), None))
        });
        match step.await.map_err(|error| problem::not_written(&error))? {
            None => Ok(()),
            Some(other) => Err(Problem::new(
                ProblemType::VolumeExists,
                format!("volume {} is that of another worktree by now, {}", self.name, other.display()),
                format!("name another with --volume, or `--volume {}` if that worktree is meant", self.name),
            )),
        }
    }

    /// Removes what was made, if it is ours and nobody's data can be in it; else tells of it by its name.
    async fn undo(&self, problem: Problem) -> Problem {
        let name = &self.name;
        let why = match self.remove_unused().await {
            Ok(kept) => {
                let outcome = format!("{}; {}", problem.detail, interrupted(kept.as_deref()));
                if let Err(error) = conclude(&self.turn.writer, &self.id, outcome, kept.is_some()).await {
                    self.turn.unended.tell();
                    warn!(%name, why = %error, "what was restored by half is cleared away later");
                }
                match kept {
                    None => return problem,
                    Some(why) => why,
                }
            }
            Err(error) => {
                self.turn.unended.tell();
                error.to_string()
            }
        };
        let detail = format!(
            "{}; volume {name} is half filled, and left: {why}; `docker volume rm {name}` removes it",
            problem.detail
        );
        Problem { detail, ..problem }
    }

    async fn remove_unused(&self) -> Result<Option<String>, EngineError> {
        self.connection.remove_helpers(&self.turn.owner).await?;
        if !self.is_ours().await? {
            return Ok(None);
        }
        self.connection.remove_unused(&self.name, &self.turn.owner, Since::Now).await
    }

    /// Whether the volume is the one that was made.
    async fn is_ours(&self) -> Result<bool, EngineError> {
        let found = self.connection.volume(&self.name).await?;
        Ok(found.is_some_and(|found| found.labels.get(RESTORE_LABEL) == Some(&self.id)))
    }

    /// Makes the volume; gives what holds it, the file, and as much of that as tells whose the volume's own directory is.
    async fn make(&self) -> Result<(Held, File, Vec<u8>), Problem> {
        let failed = |error: EngineError| problem::no_engine(&error);
        let unreadable = |error: io::Error| {
            Problem::new(ProblemType::PathUnreadable, error.to_string(), "see that the file can be read")
        };
        let (path, begins) = (self.path.clone(), self.content.begins);
        let opened = tokio::task::spawn_blocking(move || open(&path, begins));
        let (file, first) = opened.await.map_err(|_| problem::shutting_down())?.map_err(unreadable)?;
        self.connection.create_volume(&self.name, self.labels.clone()).await.map_err(failed)?;
        let held = self.connection.hold(&self.name, false, &self.turn.owner).await.map_err(failed)?;
        // Engines answer the same when something else has made it at that moment.
        if !self.is_ours().await.map_err(failed)? {
            self.connection.let_go(held).await.map_err(failed)?;
            return Err(Problem::new(
                ProblemType::VolumeExists,
                format!("volume {} was made by something else at that moment", self.name),
                "see what did, or name another with --volume",
            ));
        }
        Ok((held, file, first))
    }

    async fn fill(&self, held: Held, file: File, first: &[u8]) -> Result<(), Problem> {
        let failed = |error: EngineError| problem::no_engine(&error);
        if let Some(root) = root_owner_in(first) {
            self.connection.own(&held, root).await.map_err(failed)?;
        }
        let pieces = futures_util::stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let length = file.read(&mut piece)?;
                piece.truncate(length);
                Ok::<_, io::Error>((file, piece))
            });
            // What ends early must never look whole, so whatever goes wrong is an error of the stream.
            match read.await.map_err(io::Error::other).flatten() {
                Ok((_, piece)) if piece.is_empty() => None,
                Ok((file, piece)) => Some((Ok(Bytes::from(piece)), Some(file))),
                Err(error) => Some((Err(error), None)),
            }
        });
        self.connection.write(&held, pieces, UNPACKING).await.map_err(failed)?;
        if let Usage::By(user) = self.connection.usage(&self.name, &self.turn.owner).await.map_err(failed)? {
            return Err(Problem::new(
                ProblemType::VolumeExists,
                format!("{user} began to use volume {} while it was filled", self.name),
                "name another with --volume",
            ));
        }
        self.connection.let_go(held).await.map_err(failed)
    }
}

/// The file at where its archive begins, and as much of that as tells whose the volume's own directory is.
fn open(path: &Path, begins: u64) -> io::Result<(File, Vec<u8>)> {
    let mut file = archive::open(path)?;
    file.seek(SeekFrom::Start(begins))?;
    let mut first = Vec::new();
    (&mut file).take(ROOT_ENTRY).read_to_end(&mut first)?;
    file.seek(SeekFrom::Start(begins))?;
    Ok((file, first))
}
