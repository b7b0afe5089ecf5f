//! A copy that PostgreSQL makes of itself while it runs.

use super::helpers::last_line;
use super::{Run, Stop};
use crate::domain::seed::{BaseBackup, Copy};
use crate::engine::{ContainerId, EngineError, Helper, Owner};
use crate::seed::refused;

/// How `pg_basebackup` ended.
pub(super) enum Backup {
    Done(u64),
    /// It did not begin; in its words.
    Refused(String),
}

impl Run {
    /// Has a server give a copy of itself, over its own loopback, by the program in its own image.
    pub(super) async fn base_backup(&self, copy: &Copy, backup: &BaseBackup) -> Result<Backup, Stop> {
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
}
