//! Carries out a plan, one volume after the other. Whatever ends it, no volume is left half filled: what can't be cleared
//! away at once is recorded as unended, and goes later.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;
use tracing::{info, warn};
use uuid::Uuid;
use wtd_protocol::seed::{SeedEvent, SeedMethod, SeedReport, Seeded};
use wtd_protocol::{PathText, Problem};

use super::{Seeds, Wish, engine_problem, refused};
use crate::domain::draft::Record;
use crate::domain::gc::belongings::ALLOCATION_LABEL;
use crate::domain::seed::{BaseBackup, Copy, Method, Rename, SEED_LABEL, Seeding};
use crate::engine::{Connection, ContainerId, EngineError, Helper, Output, Owner, Removed, root_owner_in};
use crate::registry::WriteError;

/// How long a listener may leave an event unread before nobody is taken to listen.
const UNHEARD: Duration = Duration::from_secs(10);

/// How often it is told how far a copy is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How long unpacking a volume may take.
const UNPACKING: Duration = Duration::from_hours(6);

/// How long an engine may take to know that a process has ended whose output has.
const ENDING: Duration = Duration::from_secs(10);

/// So much of what a helper prints last is kept, in bytes.
const KEPT: usize = 4 * 1024;

/// What a server's lock file says in a copy that was made while it ran: no process has this number
/// (`PID_MAX_LIMIT`, Linux), so that the next server takes the file for a dead one's.
const DEAD: &[u8] = b"2147483646\n";

/// Renames a database by a server of one process that listens nowhere (postgres(1), "Options for Single-User Mode").
/// What it can't do it says with the error's code, in whatever language.
const RENAME: &str = r#"printf '%s\n' "$WTD_SQL" | exec postgres --single -D "$PGDATA" -c logging_collector=off \
    -c log_destination=stderr -c log_error_verbosity=verbose template1"#;

/// A run.
#[derive(Debug)]
pub(super) struct Run {
    seeds: Seeds,
    wish: Wish,
    connection: Connection,
    events: mpsc::Sender<SeedEvent>,
}

/// Why a run ends before its end.
#[derive(Debug)]
enum Stop {
    /// The person who asked is gone.
    Unheard,
    /// Something failed.
    Failed(Problem),
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Failed(problem)
    }
}

impl From<WriteError> for Stop {
    fn from(error: WriteError) -> Self {
        Self::Failed(crate::service::write_problem(&error))
    }
}

impl From<EngineError> for Stop {
    fn from(error: EngineError) -> Self {
        Self::Failed(engine_problem(&error))
    }
}

/// How `pg_basebackup` ended.
enum Backup {
    Done(u64),
    /// It did not begin; in its words.
    Refused(String),
}

impl Run {
    pub(super) fn new(
        seeds: Seeds,
        wish: Wish,
        connection: Connection,
        events: mpsc::Sender<SeedEvent>,
    ) -> Self {
        Self { seeds, wish, connection, events }
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
        match tokio::time::timeout(UNHEARD, self.events.send(event)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Stop::Unheard),
        }
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
        let made = tokio::select! {
            made = self.make(copy, &seeding) => made,
            () = self.events.closed() => Err(Stop::Unheard),
            () = self.seeds.ending() => Err(Stop::Failed(super::shutting_down())),
        };
        match made {
            Ok(seeded) => {
                self.seeds.close(&seeding.id, "done").await?;
                info!(volume = %copy.volume, from = %copy.source, bytes = seeded.bytes, "volume seeded");
                Ok(seeded)
            }
            Err(stop) => {
                seeding.paused = paused_by(copy).iter().map(|(id, _)| id.clone()).collect();
                let outcome = match &stop {
                    Stop::Unheard => "nobody listened any more".to_owned(),
                    Stop::Failed(problem) => format!("failed: {}", problem.detail),
                };
                // What is left of it is recorded, and goes with the next copy or the next start.
                if let Err(why) = self.seeds.undo(&self.connection, &seeding, &outcome).await {
                    warn!(volume = %copy.volume, why = %why, "half-filled volume left");
                }
                Err(stop)
            }
        }
    }

    async fn make(&self, copy: &Copy, seeding: &Seeding) -> Result<Seeded, Stop> {
        let Copy { source, volume, .. } = copy;
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

    /// Has a server give a copy of itself, over its own loopback, by the program in its own image.
    async fn base_backup(&self, copy: &Copy, backup: &BaseBackup) -> Result<Backup, Stop> {
        let Some(container) = ContainerId::new(&backup.container) else {
            return Ok(Backup::Refused("its container has no id".to_owned()));
        };
        let version = format!("{}/PG_VERSION", backup.data_directory);
        let Some(owner) = self.connection.owner_of(&container, &version).await? else {
            return Ok(Backup::Refused(format!("there is no {version}")));
        };
        if self.connection.has_entries(&container, &format!("{}/pg_tblspc", backup.data_directory)).await? {
            let detail = format!("the database in {} has tablespaces of its own", copy.source);
            return Err(refused(detail, "they are not in the volume; copy it with pg_dump").into());
        }
        // PostgreSQL takes no data directory that others may read (its manual, 19.2).
        let mode = if backup.data_directory == backup.mount.trim_end_matches('/') { 0o700 } else { 0o755 };
        let held = self.connection.hold(&copy.volume, false, &self.seeds.0.owner).await?;
        self.connection.own(&held, Owner { mode, ..owner }).await?;
        self.connection.let_go(held).await?;
        let command = [
            "pg_basebackup",
            &format!("--pgdata={}", backup.data_directory),
            "--host=127.0.0.1",
            &format!("--port={}", backup.port),
            &format!("--username={}", backup.user),
            "--no-password",
            "--wal-method=stream",
            "--checkpoint=fast",
            "--progress",
        ];
        let helper = Helper {
            image: &backup.image,
            command: command.map(str::to_owned).to_vec(),
            env: backup.password.iter().map(|password| format!("PGPASSWORD={password}")).collect(),
            owner,
            volume: (&copy.volume, &backup.mount),
            network_of: Some(&container),
        };
        let (id, output) = match self.connection.start_helper(helper, &self.seeds.0.owner).await {
            Ok(started) => started,
            // The image has no such program.
            Err(error @ EngineError::Failed { .. }) => return Ok(Backup::Refused(error.to_string())),
            Err(error) => return Err(error.into()),
        };
        let (said, bytes) = self.listen(output).await?;
        match (self.ended(&id).await?, bytes) {
            (0, _) => Ok(Backup::Done(bytes)),
            (_, 0) => Ok(Backup::Refused(last_line(&said))),
            (code, _) => {
                let detail = format!("pg_basebackup ended with {code}: {}", last_line(&said));
                Err(refused(detail, "see that there is room, and seed again").into())
            }
        }
    }

    /// What a helper prints, and how many bytes it says that it has copied.
    async fn listen(&self, mut output: Output) -> Result<(String, u64), Stop> {
        let (mut said, mut bytes) = (String::new(), 0);
        while let Some(piece) = output.next().await {
            let piece = piece?;
            for line in piece.split(['\r', '\n']) {
                if let Some((copied, total)) = progress(line) {
                    bytes = copied;
                    self.tell(SeedEvent::Copied { bytes, total: Some(total) }).await?;
                }
            }
            said.push_str(&piece);
            if said.len() > KEPT {
                let mut cut = said.len() - KEPT;
                while !said.is_char_boundary(cut) {
                    cut += 1;
                }
                said.drain(..cut);
            }
        }
        Ok((said, bytes))
    }

    /// How a helper ended whose output has.
    async fn ended(&self, id: &ContainerId) -> Result<i64, Stop> {
        let code = async {
            loop {
                if let Some(code) = self.connection.exit_code(id).await? {
                    return Ok::<_, EngineError>(code);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(ENDING, code).await {
            Ok(code) => Ok(code?),
            Err(_) => Err(refused("the copying program goes on without a word", "seed again").into()),
        }
    }

    /// Copies file by file, and pauses these containers for it.
    async fn files(
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
        let names = names.join(", ");
        let paused = users.iter().map(|(id, _)| id.clone()).collect();
        self.seeds.record(Record::Seeding(Arc::new(Seeding { paused, ..seeding.clone() })), None).await?;
        self.tell(SeedEvent::Notice { text: format!("{names} is paused while volume {source} is copied") })
            .await?;
        let ids: Vec<ContainerId> = users.iter().filter_map(|(id, _)| ContainerId::new(id)).collect();
        for id in &ids {
            self.connection.pause(id).await?;
        }
        self.begin(format!("copying {source} to {volume}")).await?;
        let bytes = self.pump(copy).await?;
        for id in &ids {
            self.connection.resume(id).await?;
        }
        self.tell(SeedEvent::Notice { text: format!("{names} goes on") }).await?;
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
            let mut written = std::pin::pin!(self.connection.write(&to, all, UNPACKING));
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

    /// Gives the database in the copy the name that the worktree's has; a note where that can't be done.
    async fn rename(&self, copy: &Copy, rename: &Rename) -> Result<Option<String>, Stop> {
        let left = |why: &str| {
            Some(format!("the database in volume {} is still called {}: {why}", copy.volume, rename.from))
        };
        let held = self.connection.hold(&copy.volume, true, &self.seeds.0.owner).await?;
        let version = format!("{}PG_VERSION", data_directory(copy).unwrap_or_default());
        let owner = self.connection.owner_in_volume(&held, &version).await;
        self.connection.let_go(held).await?;
        let Some(owner) = owner? else { return Ok(left("there is no PG_VERSION in the volume")) };
        // Neither name has a quotation mark or a line's end (`DatabaseName`).
        let sql = format!("ALTER DATABASE \"{}\" RENAME TO \"{}\"", rename.from, rename.to);
        let helper = Helper {
            image: &rename.image,
            command: ["sh", "-c", RENAME].map(str::to_owned).to_vec(),
            env: vec![format!("WTD_SQL={sql}"), format!("PGDATA={}", rename.data_directory)],
            owner,
            volume: (&copy.volume, &rename.mount),
            network_of: None,
        };
        let (id, output) = self.connection.start_helper(helper, &self.seeds.0.owner).await?;
        let (said, _) = self.listen(output).await?;
        let code = self.ended(&id).await?;
        let is_there = |code: &str| said.contains(&format!("{code}: "));
        Ok(if code != 0 {
            left(&last_line(&said))
        } else if is_there("3D000") || is_there("42P04") {
            // The project names its database itself (invalid_catalog_name), or has one of the new name already.
            None
        } else {
            said.lines().find_map(|line| line.split_once("ERROR:")).and_then(|(_, why)| left(why.trim()))
        })
    }
}

/// The containers that may be paused for a copy.
fn paused_by(copy: &Copy) -> &[(String, String)] {
    match &copy.method {
        Method::Files(users) => users,
        Method::BaseBackup(backup) => &backup.users,
    }
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

fn in_use(copy: &Copy, why: &str) -> Stop {
    let detail = format!("volume {} is in use: {why}", copy.volume);
    Stop::Failed(refused(detail, "run `docker compose down` in the worktree, and seed again"))
}

/// The last line that says something.
fn last_line(said: &str) -> String {
    let mut lines = said.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("it says nothing").chars().take(300).collect()
}

/// How far `pg_basebackup --progress` says that it is, in bytes: `30440/30440 kB (100%), 0/1 tablespace`.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (copied, rest) = line.trim().split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    Some((
        copied.trim().parse::<u64>().ok()?.saturating_mul(1024),
        total.parse::<u64>().ok()?.saturating_mul(1024),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_is_printed() {
        assert_eq!(progress("  30440/30441 kB (99%), 0/1 tablespace"), Some((30440 * 1024, 30441 * 1024)));
        assert_eq!(progress(" 0/0 kB (100%), 1/1 tablespace"), Some((0, 0)));
        for other in
            ["", "waiting for checkpoint", "pg_basebackup: error: could not write to file \"a/b kB\""]
        {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_words_are_those_that_are_told() {
        assert_eq!(last_line("a\r\npg_basebackup: error: no\r\n\n"), "pg_basebackup: error: no");
        assert_eq!(last_line(" \n"), "it says nothing");
    }
}
