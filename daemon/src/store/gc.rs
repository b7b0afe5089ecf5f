//! What gc keeps in the registry: looks at engines, and removals.

use std::collections::BTreeMap;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error, Row};

use super::{History, StoreError, rows};
use crate::domain::allocation::Moment;
use crate::domain::gc::removal::Removal;
use crate::domain::gc::{EngineId, Look, Looks};
use crate::domain::identity::AllocationId;

/// Records a look; what was recorded of the same names before stands.
pub(super) async fn put_look(
    connection: &mut SqliteConnection,
    allocation: AllocationId,
    look: &Look,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO engine_looks (allocation, engine, name, was_there, host, at)
         SELECT ?1, ?2, key, value, ?3, ?4 FROM json_each(?5) WHERE TRUE ON CONFLICT DO NOTHING",
    )
    .bind(allocation.to_string())
    .bind(look.engine.as_str())
    .bind(&look.host)
    .bind(look.at.0)
    .bind(rows::to_json(&look.names)?)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn delete_looks(connection: &mut SqliteConnection, allocation: &str) -> Result<(), Error> {
    let delete = sqlx::query("DELETE FROM engine_looks WHERE allocation = ?1");
    delete.bind(allocation).execute(connection).await.map(drop)
}

/// Records what is about to be removed.
pub(super) async fn put_removal(
    connection: &mut SqliteConnection,
    removal: &Removal,
    now: Moment,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO removals (at, allocation, engine, kind, name, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(now.0)
    .bind(removal.allocation.to_string())
    .bind(removal.engine.as_str())
    .bind(removal.kind)
    .bind(&removal.name)
    .bind(rows::to_json(&removal.detail)?)
    .execute(connection)
    .await
    .map(drop)
}

/// Records what came of the latest removal of this thing.
pub(super) async fn end_removal(
    connection: &mut SqliteConnection,
    removal: &Removal,
    outcome: &str,
    now: Moment,
) -> Result<(), Error> {
    sqlx::query(
        "UPDATE removals SET ended = ?1, outcome = ?2 WHERE id =
             (SELECT MAX(id) FROM removals WHERE allocation = ?3 AND engine = ?4 AND kind = ?5 AND name = ?6)",
    )
    .bind(now.0)
    .bind(outcome)
    .bind(removal.allocation.to_string())
    .bind(removal.engine.as_str())
    .bind(removal.kind)
    .bind(&removal.name)
    .execute(connection)
    .await
    .map(drop)
}

impl History {
    /// The looks at engines for these allocations.
    pub async fn looks(&self, allocations: &[AllocationId]) -> Result<Looks, StoreError> {
        let ids: Vec<String> = allocations.iter().map(ToString::to_string).collect();
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        let found = sqlx::query(
            "SELECT * FROM engine_looks WHERE allocation IN (SELECT value FROM json_each(?1)) ORDER BY allocation, engine",
        )
        .bind(rows::to_json(&ids)?)
        .fetch_all(&mut connection)
        .await?;
        connection.close().await?;
        let mut looks = Looks::new();
        for row in &found {
            let of_allocation = looks.entry(AllocationId(rows::uuid(row, "allocation")?)).or_default();
            let engine = EngineId::new(row.try_get("engine")?);
            if of_allocation.last().is_none_or(|last| last.engine != engine) {
                let (host, at) = (row.try_get("host")?, Moment(row.try_get("at")?));
                of_allocation.push(Look { engine, host, at, names: BTreeMap::new() });
            }
            if let Some(look) = of_allocation.last_mut() {
                look.at = look.at.min(Moment(row.try_get("at")?));
                look.names.insert(row.try_get("name")?, row.try_get("was_there")?);
            }
        }
        Ok(looks)
    }
}
