//! What the registry keeps of volumes that were restored: until they are gone again.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row};

use super::rows;
use crate::domain::allocation::Moment;
use crate::domain::gc::EngineId;
use crate::domain::names::VolumeName;
use crate::domain::offset::Offset;
use crate::domain::restoring::Restoring;

/// Records a volume that is about to be restored.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    restoring: &Restoring,
    now: Moment,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO restorings (id, at, engine, host, volume, offset) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(&restoring.id)
    .bind(now.0)
    .bind(restoring.engine.as_str())
    .bind(&restoring.host)
    .bind(restoring.volume.as_str())
    .bind(restoring.offset.map(|offset| offset.0))
    .execute(connection)
    .await
    .map(drop)
}

/// Records how restoring a volume ended.
pub(super) const END: &str = "UPDATE restorings SET ended = ?1, outcome = ?2 WHERE id = ?3 AND ended IS NULL";

/// Records that a volume that was restored is not there any more.
pub(super) async fn gone(connection: &mut SqliteConnection, id: &str, now: Moment) -> Result<(), Error> {
    let update = sqlx::query("UPDATE restorings SET gone = ?1 WHERE id = ?2 AND gone IS NULL");
    update.bind(now.0).bind(id).execute(connection).await.map(drop)
}

/// The volumes that may be there, as far as is known. A row that makes no sense is an error: what it stands for may be
/// half filled.
pub(super) async fn there(connection: &mut SqliteConnection) -> Result<Vec<Restoring>, Error> {
    let found = sqlx::query("SELECT * FROM restorings WHERE gone IS NULL ORDER BY at, id")
        .fetch_all(connection)
        .await?;
    found.iter().map(restoring).collect()
}

fn restoring(row: &SqliteRow) -> Result<Restoring, Error> {
    Ok(Restoring {
        id: row.try_get("id")?,
        engine: EngineId::new(row.try_get("engine")?),
        host: row.try_get("host")?,
        volume: VolumeName::new(row.try_get("volume")?).map_err(|why| rows::foreign("volume", why))?,
        offset: row.try_get::<Option<u16>, _>("offset")?.map(Offset),
        has_ended: row.try_get::<Option<i64>, _>("ended")?.is_some(),
    })
}
