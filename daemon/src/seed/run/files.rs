//! A copy file by file, of what nothing writes meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use wtd_protocol::seed::{SeedEvent, SeedMethod};

use super::{COPYING, Run, Stop, data_directory};
use crate::domain::draft::Record;
use crate::domain::seed::{Copy, Seeding};
use crate::engine::{ContainerId, EngineError, Owner, Resumed, root_owner_in};
use crate::problem;
use crate::seed::refused;

/// How often it is told how far a copy is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How long the engine may take to pause containers.
const PAUSING: Duration = Duration::from_secs(10);

/// What a server's lock file says in a copy that was made while it ran: no process has this number
/// (`PID_MAX_LIMIT`, Linux), so that the next server takes the file for a dead one's.
const DEAD: &[u8] = b"2147483646\n";

impl Run {
    /// Copies file by file, and pauses these containers for it.
    pub(super) async fn files(
        &self,
        copy: &Copy,
        seeding: &Seeding,
        users: &[(String, String)],
    ) -> Result<(SeedMethod, u64), Stop> {
        let Copy { source, volume, .. } = copy;
        if users.is_empty() {
            self.begin(format!("copying {source} to {volume}")).await?;
            let bytes = self.pump(copy).await?;
            let running = self.connection.users(source).await?.into_iter();
            let running =
                running.filter(crate::domain::gc::Container::is_running).map(|user| user.name).next();
            return match running {
                None => Ok((SeedMethod::Files, bytes)),
                Some(user) => {
                    let detail = format!("{user} was started on volume {source} while it was copied");
                    Err(refused(detail, "seed again").into())
                }
            };
        }
        let names: Vec<&str> = users.iter().map(|(_, name)| name.as_str()).collect();
        let [are, go] = if names.len() == 1 { ["is", "goes"] } else { ["are", "go"] };
        let names = names.join(", ");
        let paused = users.iter().map(|(id, _)| id.clone()).collect();
        self.seeds.record(Record::Seeding(Arc::new(Seeding { paused, ..seeding.clone() })), None).await?;
        self.tell(SeedEvent::Notice {
            text: format!("{names} {are} paused while volume {source} is copied"),
        })
        .await?;
        self.pause(&seeding.id, users.iter().filter_map(|(id, _)| ContainerId::new(id)).collect()).await?;
        self.begin(format!("copying {source} to {volume}")).await?;
        let bytes = self.pump(copy).await?;
        for (id, name) in users.iter().filter_map(|(id, name)| Some((ContainerId::new(id)?, name))) {
            if self.connection.resume(&id).await? != Resumed::Now {
                let detail = format!("{name} went on while volume {source} was copied");
                return Err(refused(detail, "leave it paused as long as it is copied, and seed again").into());
            }
        }
        self.tell(SeedEvent::Notice { text: format!("{names} {go} on") }).await?;
        if let Some(directory) = data_directory(copy) {
            let held = self.connection.hold(volume, false, &self.seeds.0.owner).await?;
            let version = format!("{directory}PG_VERSION");
            if let Some(owner) = self.connection.owner_in_volume(&held, &version).await? {
                let owner = Owner { mode: 0o600, ..owner };
                self.connection.put_file(&held, &format!("{directory}postmaster.pid"), DEAD, owner).await?;
            }
            self.connection.let_go(held).await?;
        }
        Ok((SeedMethod::Paused, bytes))
    }

    /// Pauses containers. By itself: what the engine was asked for it does, be the copy given up meanwhile or not.
    async fn pause(&self, copy: &str, ids: Vec<ContainerId>) -> Result<(), Stop> {
        let until_answered = Arc::clone(&self.pausing).lock_owned().await;
        let (connection, seeds, copy) = (self.connection.clone(), self.seeds.clone(), copy.to_owned());
        let is_given_up = Arc::clone(&self.is_given_up);
        let mut pausing = tokio::spawn(async move {
            let mut answered = Ok(());
            for id in &ids {
                if answered.is_err() || is_given_up.load(Ordering::SeqCst) {
                    break;
                }
                seeds.0.pauses.ask(&copy, id);
                answered = connection.pause(id).await;
                seeds.0.pauses.answer(&copy, id, &answered);
            }
            drop(until_answered);
            if is_given_up.load(Ordering::SeqCst) {
                seeds.look_again(&connection).await;
            }
            answered
        });
        match tokio::time::timeout(PAUSING, &mut pausing).await {
            Ok(paused) => Ok(paused.map_err(|_| problem::shutting_down())??),
            Err(_) => Err(EngineError::TimedOut(self.connection.host().clone()).into()),
        }
    }

    /// Unpacks into the volume what the engine packs of the source.
    async fn pump(&self, copy: &Copy) -> Result<u64, Stop> {
        if !self.connection.tells_owners() {
            let detail = format!("Podman's API does not tell who owns the files of volume {}", copy.source);
            return Err(refused(
                detail,
                "start the database's container, which copies itself, and seed again",
            )
            .into());
        }
        let owner = &self.seeds.0.owner;
        let from = self.connection.hold(&copy.source, true, owner).await?;
        let to = self.connection.hold(&copy.volume, false, owner).await?;
        let mut packed = Box::pin(self.connection.read(&from));
        let Some(first) = packed.next().await.transpose()? else {
            return Err(
                refused(format!("the engine gives nothing of volume {}", copy.source), "seed again").into()
            );
        };
        if let Some(root) = root_owner_in(&first) {
            self.connection.own(&to, root).await?;
        }
        let copied = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&copied);
        let all = futures_util::stream::once(async { Ok(first) }).chain(packed).map(move |piece| {
            let piece = piece.map_err(std::io::Error::other)?;
            counted.fetch_add(piece.len() as u64, Ordering::Relaxed);
            Ok(piece)
        });
        {
            let mut written = std::pin::pin!(self.connection.write(&to, all, COPYING));
            let mut ticks = tokio::time::interval(TELL_EVERY);
            loop {
                tokio::select! {
                    written = &mut written => break written?,
                    _ = ticks.tick() => {
                        let bytes = copied.load(Ordering::Relaxed);
                        self.tell(SeedEvent::Copied { bytes, total: None }).await?;
                    }
                }
            }
        }
        self.connection.let_go(from).await?;
        self.connection.let_go(to).await?;
        Ok(copied.load(Ordering::Relaxed))
    }
}
