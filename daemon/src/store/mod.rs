//! The registry on disk: all SQL of the daemon.
//!
//! Queries are checked when they run, not when they compile: sqlx's `query!` needs a database or committed
//! metadata at every build, guesses the nullability of SQLite's columns, and would want an override for each
//! newtype. What it buys is bought by the tests below it instead, which run every statement of this module
//! against the migrated schema.

mod compose;
mod gc;
mod migrations;
mod open;
mod past;
mod restore;
mod rows;
mod seed;

use std::path::PathBuf;

use futures_util::TryStreamExt as _;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteRow};
use sqlx::{Connection, Row};
use wtd_protocol::{Change, State};

pub use open::{Place, Registry, check_directory, describe, lock_file, open};

use crate::domain::allocation::{Moment, Repository};
use crate::domain::draft::Record;
use crate::domain::ledger::Ledger;
use crate::wire;

/// Why the registry can't be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The state directory can't be made or entered.
    #[error("the state directory {}: {source}", path.display())]
    StateDirectory {
        /// The directory.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The state directory is another user's, or open to others.
    #[error("the state directory {} is not ours alone ({why}); set WTD_STATE_DIR to one that is", path.display())]
    ForeignDirectory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Its path is not UTF-8, which SQLite needs.
    #[error("the registry's path {} is not UTF-8; set WTD_STATE_DIR to one that is", .0.display())]
    NotUtf8(PathBuf),
    /// It is on a file system where SQLite's WAL is not safe.
    #[error("the registry {} is on a network file system, where SQLite can't keep it safe; set WTD_STATE_DIR to a local directory", .0.display())]
    NetworkFileSystem(PathBuf),
    /// Another daemon has it.
    #[error("the registry {} is held by {}; ask that one, or stop it first", path.display(), if holder.is_empty() { "another wtd" } else { holder })]
    Held {
        /// The registry.
        path: PathBuf,
        /// Who has it; empty where it does not say.
        holder: String,
        /// The socket that it serves; empty where it does not say.
        socket: PathBuf,
        /// Whether that is the socket that we were to serve.
        serves_our_socket: bool,
    },
    /// Not a registry, or one that is damaged.
    #[error("the registry {} is damaged: {why}; nothing was changed: restore it from a backup, or move it away to begin anew", path.display())]
    Corrupt {
        /// The registry.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Written by a later version.
    #[error("the registry {} was written by a later version of wtd (schema {version}); install that version again", path.display())]
    Newer {
        /// The registry.
        path: PathBuf,
        /// The schema's version.
        version: i64,
    },
    /// The SQLite library can corrupt a WAL.
    #[error(
        "SQLite {0} is older than 3.51.3 and can damage the registry; build wtd with the bundled library"
    )]
    OldSqlite(String),
    /// The file is no longer the one that was opened.
    #[error("the registry {} was deleted or replaced while it was open; restart wtd", .0.display())]
    Replaced(PathBuf),
    /// SQLite failed. (sqlx's own message repeats its source.)
    #[error("the registry: {}; see that the state directory has room and can be written", plain(.0))]
    Sql(sqlx::Error),
    /// A migration failed.
    #[error("the registry {}: {source}", path.display())]
    Migrate {
        /// The registry.
        path: PathBuf,
        /// What sqlx says.
        source: sqlx::migrate::MigrateError,
    },
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

/// What SQLite says, without the wrapping.
fn plain(error: &sqlx::Error) -> String {
    error.as_database_error().map_or_else(|| error.to_string(), |error| error.message().to_owned())
}

impl Registry {
    /// Everything that is not released.
    pub async fn load(&mut self) -> Result<Ledger, StoreError> {
        let mut ledger = Ledger::default();
        self.each("SELECT * FROM trusted_contents", |row| {
            let (repository, content) = rows::trusted(row)?;
            ledger.trusted.insert(repository, content);
            Ok(())
        })
        .await?;
        self.each("SELECT * FROM repositories", |row| {
            ledger.put_repository(rows::repository(row)?.into());
            Ok(())
        })
        .await?;
        for restoring in restore::there(&mut self.connection).await? {
            ledger.put_restoring(restoring.into());
        }
        let mut parts = rows::Parts::default();
        self.each("SELECT * FROM ports", |row| parts.add_port(row)).await?;
        self.each("SELECT * FROM volumes", |row| parts.add_volume(row)).await?;
        self.each("SELECT * FROM database_objects", |row| parts.add_object(row)).await?;
        let compose = sqlx::query("SELECT * FROM compose").fetch_all(&mut self.connection).await?;
        let published = sqlx::query("SELECT * FROM compose_ports").fetch_all(&mut self.connection).await?;
        let mut compose = compose::load(&compose, &published)?;
        let mut overlaps = Vec::new();
        self.each("SELECT * FROM allocations WHERE state <> 'released' ORDER BY created, id", |row| {
            let mut allocation = rows::allocation(row, &mut parts)?;
            if let Some((shared_volumes, compose)) = compose.remove(&allocation.id) {
                (allocation.shared_volumes, allocation.compose) = (shared_volumes, compose);
            }
            overlaps.extend(ledger.put(allocation.into()).err());
            Ok(())
        })
        .await?;
        if let Some(overlap) = overlaps.first() {
            return Err(self.corrupt(overlap.to_string()));
        }
        // Every page of the file went through SQLite's cache, and a step needs a few of them.
        sqlx::query("PRAGMA shrink_memory").execute(&mut self.connection).await?;
        Ok(ledger)
    }

    /// Reads one row after the other: together they would take more memory than all that is made of them.
    async fn each(
        &mut self,
        query: &'static str,
        mut read: impl FnMut(&SqliteRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), sqlx::Error> {
        let mut rows = sqlx::query(query).fetch(&mut self.connection);
        while let Some(row) = rows.try_next().await? {
            read(&row)?;
        }
        Ok(())
    }

    /// Writes the records of any number of steps in one transaction, durably. Gives the changes that are worth
    /// telling, numbered. `ledger` is the state afterwards.
    pub async fn write(
        &mut self,
        records: &[Record],
        ledger: &Ledger,
        now: Moment,
    ) -> Result<Vec<Change>, StoreError> {
        self.place().check()?;
        let written = write(&mut self.connection, records, ledger, now).await;
        if written.is_err() {
            // SQLite rolls back by itself when the disk is full or fails (its "Transaction Control", 2.3). sqlx
            // doesn't hear of that, takes the connection to be in a transaction for ever, and begins no other.
            self.reconnect().await;
        }
        Ok(written?)
    }

    /// Ends the connection, leaving one file.
    pub async fn close(self) -> Result<(), StoreError> {
        let place = self.place().clone();
        self.connection.close().await?;
        let path = place.path.clone();
        place.withdraw_log().map_err(|source| StoreError::StateDirectory { path, source })
    }
}

async fn write(
    connection: &mut SqliteConnection,
    records: &[Record],
    ledger: &Ledger,
    now: Moment,
) -> Result<Vec<Change>, sqlx::Error> {
    let mut changes = Vec::new();
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    for record in records {
        match record {
            Record::Repository(repository) => put_repository(&mut transaction, repository).await?,
            Record::Trusted { repository, content, at } => {
                sqlx::query(
                    "INSERT OR IGNORE INTO trusted_contents (repository, sha256, at) VALUES (?1, ?2, ?3)",
                )
                .bind(repository.to_string())
                .bind(&content.0[..])
                .bind(at.0)
                .execute(&mut *transaction)
                .await?;
            }
            Record::Revoked(repository) => {
                sqlx::query("DELETE FROM trusted_contents WHERE repository = ?1")
                    .bind(repository.to_string())
                    .execute(&mut *transaction)
                    .await?;
            }
            Record::Allocation { allocation, kind } => {
                rows::put(&mut transaction, allocation).await?;
                compose::put(&mut transaction, allocation).await?;
                let Some(kind) = *kind else { continue };
                let common_dir =
                    ledger.repository(allocation.repository).map(|known| known.common_dir.as_path());
                let wire = wire::allocation(allocation, common_dir.unwrap_or(&allocation.git_dir), false);
                let sequence = rows::append_history(&mut transaction, allocation, kind, &wire, now).await?;
                changes.push(Change { sequence, at: wire::time(now), kind, allocation: wire });
            }
            Record::Look { allocation, look } => gc::put_look(&mut transaction, *allocation, look).await?,
            Record::Removal(removal) => gc::put_removal(&mut transaction, removal, now).await?,
            Record::Removed { removal, outcome } => {
                gc::end_removal(&mut transaction, removal, outcome, now).await?;
            }
            Record::Restoring(restoring) => restore::put(&mut transaction, restoring, now).await?,
            Record::Restored { id, outcome } => {
                rows::end(&mut transaction, restore::END, id, outcome, now).await?;
            }
            Record::RestoredGone(id) => restore::gone(&mut transaction, id, now).await?,
            Record::Seeding(seeding) => seed::put(&mut transaction, seeding, now).await?,
            Record::Seeded { id, outcome } => {
                rows::end(&mut transaction, seed::END, id, outcome, now).await?;
            }
            Record::Pruned { kept, at_most } => past::prune(&mut transaction, *kept, *at_most).await?,
        }
    }
    transaction.commit().await?;
    Ok(changes)
}

async fn put_repository(
    connection: &mut SqliteConnection,
    repository: &Repository,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO repositories (id, common_dir, device, inode, born_ns, main_root, watched)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
         ON CONFLICT (id) DO UPDATE SET common_dir = ?2, device = ?3, inode = ?4, born_ns = ?5, main_root = ?6, watched = ?7",
    )
    .bind(repository.id.to_string())
    .bind(rows::bytes(&repository.common_dir))
    .bind(repository.identity.device.cast_signed())
    .bind(repository.identity.inode.cast_signed())
    .bind(repository.identity.born_ns)
    .bind(repository.main_root.as_deref().map(rows::bytes))
    .bind(repository.watched)
    .execute(connection)
    .await
    .map(drop)
}

/// Reads history beside the writer, on a connection of its own.
#[derive(Debug, Clone)]
pub struct History {
    options: SqliteConnectOptions,
}

impl History {
    /// The changes after `sequence`, oldest first, at most `limit`.
    pub async fn after(&self, sequence: i64, limit: u32) -> Result<Vec<Change>, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let found = sqlx::query(
            "SELECT sequence, at, kind, detail FROM history WHERE sequence > ?1 ORDER BY sequence LIMIT ?2",
        )
        .bind(sequence)
        .bind(limit)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        found.iter().map(|row| rows::change(row).map_err(StoreError::from)).collect()
    }

    /// The allocations that are released, as they last were, latest first, at most `limit`.
    pub async fn released(&self, limit: u32) -> Result<Vec<wtd_protocol::Allocation>, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let found = sqlx::query(
            "SELECT sequence, at, kind, detail FROM history WHERE kind = 'released' ORDER BY sequence DESC LIMIT ?1",
        )
        .bind(limit)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        let changes: Result<Vec<Change>, sqlx::Error> = found.iter().map(rows::change).collect();
        let released = changes?.into_iter().map(|change| change.allocation);
        Ok(released.filter(|allocation| allocation.state == State::Released).collect())
    }

    /// The number of the latest change.
    pub async fn latest(&self) -> Result<i64, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let row =
            sqlx::query("SELECT COALESCE(MAX(sequence), 0) FROM history").fetch_one(&mut connection).await?;
        connection.close().await?;
        Ok(row.try_get(0)?)
    }
}

#[cfg(test)]
mod tests;
