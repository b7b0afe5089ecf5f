//! What the registry keeps of copies: those that have begun, and how they ended.

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error, Row};

use super::{History, StoreError, rows};
use crate::domain::allocation::Moment;
use crate::domain::gc::EngineId;
use crate::domain::identity::AllocationId;
use crate::domain::names::VolumeName;
use crate::domain::seed::Seeding;

/// Records a copy that is about to begin, or which containers are paused for it.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    seeding: &Seeding,
    now: Moment,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO seedings (id, at, allocation, engine, host, source, volume, paused)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) ON CONFLICT (id) DO UPDATE SET paused = ?8",
    )
    .bind(&seeding.id)
    .bind(now.0)
    .bind(seeding.allocation.to_string())
    .bind(seeding.engine.as_str())
    .bind(&seeding.host)
    .bind(seeding.source.as_str())
    .bind(seeding.volume.as_str())
    .bind(rows::to_json(&seeding.paused)?)
    .execute(connection)
    .await
    .map(drop)
}

/// Records how a copy ended.
pub(super) const END: &str = "UPDATE seedings SET ended = ?1, outcome = ?2 WHERE id = ?3 AND ended IS NULL";

impl History {
    /// How the copy of this id has ended; none when it has not, or there is none.
    pub async fn outcome_of_seeding(&self, id: &str) -> Result<Option<String>, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let found = sqlx::query_scalar("SELECT outcome FROM seedings WHERE id = ?1")
            .bind(id)
            .fetch_optional(&mut connection)
            .await?;
        connection.close().await?;
        Ok(found.flatten())
    }

    /// The copies that have begun and not ended, oldest first. A row that makes no sense is an error: what it stands for
    /// may be half filled.
    pub async fn unended_seedings(&self) -> Result<Vec<Seeding>, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let found = sqlx::query("SELECT * FROM seedings WHERE ended IS NULL ORDER BY at, id")
            .fetch_all(&mut connection)
            .await?;
        connection.close().await?;
        let name = |row: &sqlx::sqlite::SqliteRow, column: &str| {
            let text: String = row.try_get(column)?;
            VolumeName::new(&text).map_err(|error| Error::Decode(error.into()))
        };
        let seeding = |row: &sqlx::sqlite::SqliteRow| {
            let paused: String = row.try_get("paused")?;
            Ok(Seeding {
                id: row.try_get("id")?,
                allocation: AllocationId(rows::uuid(row, "allocation")?),
                engine: EngineId::new(row.try_get("engine")?),
                host: row.try_get("host")?,
                source: name(row, "source")?,
                volume: name(row, "volume")?,
                paused: serde_json::from_str(&paused).map_err(|error| Error::Decode(error.into()))?,
            })
        };
        found.iter().map(|row| seeding(row).map_err(|error: Error| StoreError::from(error))).collect()
    }
}
