//! Carries out a plan, one volume after the other. Whatever ends it, no volume is left half filled: what can't be cleared
//! away at once is recorded as unended, and goes later.

mod base_backup;
mod files;
mod helpers;
mod rename;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Mutex, mpsc};
use tracing::{info, warn};
use uuid::Uuid;
use wtd_protocol::seed::{SeedEvent, SeedMethod, SeedReport, Seeded};
use wtd_protocol::{PathText, Problem};

use self::base_backup::Backup;
use super::pauses::Cleared;
use super::{DONE, Seeds, UndoError, Wish, refused};
use crate::domain::draft::Record;
use crate::domain::gc::belongings::ALLOCATION_LABEL;
use crate::domain::seed::{Copy, Method, SEED_LABEL, Seeding};
use crate::engine::{Connection, Removed, Since};
use crate::errand::{Stop, tell};
use crate::problem;

/// How long copying a volume may take, and each program that is run for it.
const COPYING: Duration = Duration::from_hours(6);

/// How long a copy that is given up waits for the engine's answer to a pause; that comes after it is looked at again.
const LAST_WAIT: Duration = Duration::from_secs(5);

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    seeds: Seeds,
    wish: Wish,
    connection: Connection,
    events: mpsc::Sender<SeedEvent>,
    /// Held until the engine has said what became of pausing containers, be the copy given up meanwhile or not.
    pausing: Arc<Mutex<()>>,
    /// Whether the copy is given up, so that nothing more is paused for it.
    is_given_up: Arc<AtomicBool>,
}

impl Run {
    pub(super) fn new(
        seeds: Seeds,
        wish: Wish,
        connection: Connection,
        events: mpsc::Sender<SeedEvent>,
    ) -> Self {
        Self { seeds, wish, connection, events, pausing: Arc::default(), is_given_up: Arc::default() }
    }

    /// Does it all, and tells of it.
    pub(super) async fn run(self, copies: Vec<Copy>) {
        let mut report = SeedReport {
            from: PathText::of(&self.wish.source.path).text,
            engine: self.connection.host().to_string(),
            ..SeedReport::default()
        };
        for copy in &copies {
            match self.fill(copy).await {
                Ok(seeded) => report.volumes.push(seeded),
                Err(Stop::Failed(problem)) => {
                    report.failure = Some(problem);
                    break;
                }
                Err(Stop::Unheard) => {
                    info!(volume = %copy.volume, "copy ends: nobody listens any more");
                    break;
                }
            }
        }
        // Nobody may be listening.
        drop(self.events.send(SeedEvent::Report(report)).await);
    }

    async fn tell(&self, event: SeedEvent) -> Result<(), Stop> {
        tell(&self.events, event).await
    }

    async fn begin(&self, what: String) -> Result<(), Stop> {
        self.tell(SeedEvent::Begin { what }).await
    }

    /// Fills one volume, or leaves none.
    async fn fill(&self, copy: &Copy) -> Result<Seeded, Stop> {
        let mut seeding = Seeding {
            id: Uuid::now_v7().to_string(),
            allocation: self.wish.target.id,
            engine: self.connection.id().clone(),
            host: self.connection.host().to_string(),
            source: copy.source.clone(),
            volume: copy.volume.clone(),
            paused: Vec::new(),
        };
        if !self.seeds.record(Record::Seeding(Arc::new(seeding.clone())), Some(&self.wish.target)).await? {
            return Err(refused("the worktree is gone", "see `wtd-client list --all`").into());
        }
        self.seeds.0.pauses.begin(&seeding.id);
        let made = tokio::select! {
            made = self.make(copy, &seeding) => made,
            () = self.events.closed() => Err(Stop::Unheard),
            () = self.seeds.ending() => Err(Stop::Failed(problem::shutting_down())),
        };
        match made {
            Ok(seeded) => {
                self.seeds.conclude(&seeding.id, DONE).await?;
                info!(volume = %copy.volume, from = %copy.source, bytes = seeded.bytes, "volume seeded");
                Ok(seeded)
            }
            Err(stop) => {
                seeding.paused = copy.users().iter().map(|(id, _)| id.clone()).collect();
                Err(self.give_up(&seeding, stop).await)
            }
        }
    }

    /// Clears away what there is of a copy, and tells where that leaves something.
    async fn give_up(&self, seeding: &Seeding, stop: Stop) -> Stop {
        self.is_given_up.store(true, Ordering::SeqCst);
        // What is still being paused would be so after it was told to go on.
        drop(tokio::time::timeout(LAST_WAIT, self.pausing.lock()).await);
        let outcome = match &stop {
            Stop::Unheard => "ended when nobody listened any more".to_owned(),
            Stop::Failed(problem) => format!("failed: {}", problem.detail),
        };
        let volume = &seeding.volume;
        let left = match self.seeds.undo(&self.connection, seeding, &outcome, Since::Now).await {
            Ok(None) => return stop,
            Ok(Some(why)) => {
                warn!(%volume, why, "half-filled volume left as it is");
                format!("half filled, and left as it is, since {why}; `docker volume rm {volume}` removes it")
            }
            // It is recorded, and looked at again soon.
            Err(why) => {
                self.seeds.0.unended.tell();
                warn!(%volume, why = %why, "a copy can't be cleared away yet");
                match (&why, self.seeds.0.pauses.cleared(&seeding.id)) {
                    (UndoError::Unsettled(_), Some(Cleared::Away)) => format!("removed, but {why}"),
                    _ => format!("half filled, and can't be removed yet: {why}"),
                }
            }
        };
        match stop {
            Stop::Unheard => Stop::Unheard,
            Stop::Failed(problem) => {
                let detail = format!("{}; volume {volume} is {left}", problem.detail);
                Stop::Failed(Problem { detail, ..problem })
            }
        }
    }

    async fn make(&self, copy: &Copy, seeding: &Seeding) -> Result<Seeded, Stop> {
        let Copy { source, volume, .. } = copy;
        // Copies before this one may have taken hours.
        if !self.seeds.is_still_empty(copy, &self.connection).await? {
            return Err(self.seeds.not_empty(copy).await.into());
        }
        if copy.existing.is_some()
            && let Removed::InUse(why) = self.connection.remove_volume(volume).await?
        {
            return Err(in_use(copy, &why));
        }
        let mut labels: HashMap<String, String> = copy.labels.clone().into_iter().collect();
        labels.extend(copy.existing.iter().flat_map(|volume| volume.labels.clone()));
        labels.insert(ALLOCATION_LABEL.to_owned(), self.wish.target.id.to_string());
        labels.insert(SEED_LABEL.to_owned(), seeding.id.clone());
        self.connection.create_volume(volume, labels).await?;
        self.is_ours(copy, seeding).await?;
        let mut notes = Vec::new();
        let (method, bytes) = match &copy.method {
            Method::Files(users) => self.files(copy, seeding, users).await?,
            Method::BaseBackup(backup) => {
                self.begin(format!("copying {source} to {volume} while its server runs")).await?;
                match self.base_backup(copy, backup).await? {
                    Backup::Done(bytes) => (SeedMethod::BaseBackup, bytes),
                    Backup::Refused(why) if self.wish.may_pause => {
                        notes.push(format!("pg_basebackup could not be used: {why}"));
                        self.connection.remove_helpers(&self.seeds.0.owner).await?;
                        self.files(copy, seeding, &backup.users).await?
                    }
                    Backup::Refused(why) => {
                        let detail = format!("pg_basebackup can't copy volume {source}: {why}");
                        let remedy =
                            "let its user replicate, or have the containers paused: `wtd-client seed`";
                        return Err(refused(detail, remedy).into());
                    }
                }
            }
        };
        if let Some(rename) = &copy.rename {
            self.begin(format!("renaming database {} to {}", rename.from, rename.to)).await?;
            notes.extend(self.rename(copy, rename).await?);
        }
        self.connection.remove_helpers(&self.seeds.0.owner).await?;
        self.is_ours(copy, seeding).await?;
        Ok(Seeded { source: source.to_string(), volume: volume.to_string(), method, bytes, notes })
    }

    /// Fails when the volume is not the one that was made, or when something has begun to use it.
    async fn is_ours(&self, copy: &Copy, seeding: &Seeding) -> Result<(), Stop> {
        let there = self.connection.volume(&copy.volume).await?;
        if there.is_none_or(|there| there.labels.get(SEED_LABEL) != Some(&seeding.id)) {
            let detail = format!("volume {} was made by something else at that moment", copy.volume);
            return Err(refused(detail, "see what did, and seed again").into());
        }
        let users = self.connection.users(&copy.volume).await?;
        match users.first() {
            None => Ok(()),
            Some(user) => Err(in_use(copy, &format!("{} began to use it meanwhile", user.name))),
        }
    }
}

fn in_use(copy: &Copy, why: &str) -> Stop {
    let detail = format!("volume {} is in use: {why}", copy.volume);
    Stop::Failed(refused(detail, "run `docker compose down` in the worktree, and seed again"))
}

/// Where PostgreSQL's data directory is in the volume: nothing, or a path that ends in a slash.
fn data_directory(copy: &Copy) -> Option<String> {
    let (directory, mount) = match (&copy.method, &copy.rename) {
        (Method::BaseBackup(backup), _) => (&backup.data_directory, &backup.mount),
        (Method::Files(_), Some(rename)) => (&rename.data_directory, &rename.mount),
        (Method::Files(_), None) => return None,
    };
    let below = directory.strip_prefix(mount.trim_end_matches('/'))?.trim_matches('/');
    Some(if below.is_empty() { String::new() } else { format!("{below}/") })
}
