//! Rows about Compose to values and back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row};
use wtd_protocol::State;

use super::rows::{foreign, json, to_json, uuid};
use crate::domain::allocation::Allocation;
use crate::domain::compose::Compose;
use crate::domain::identity::AllocationId;

/// The shared volumes and the override of one allocation.
pub(super) type OfAllocation = (BTreeSet<String>, Option<Box<Compose>>);

/// What the rows of `compose` and `compose_ports` say of each allocation.
pub(super) fn load(
    rows: &[SqliteRow],
    published: &[SqliteRow],
) -> Result<HashMap<AllocationId, OfAllocation>, Error> {
    let mut ports: HashMap<AllocationId, BTreeSet<u16>> = HashMap::new();
    for row in published {
        ports.entry(AllocationId(uuid(row, "allocation")?)).or_default().insert(row.try_get("port")?);
    }
    let mut loaded = HashMap::new();
    for row in rows {
        let id = AllocationId(uuid(row, "allocation")?);
        let compose = match row.try_get::<Option<&str>, _>("files")? {
            None => None,
            Some(_) => Some(Box::new(Compose {
                files: json::<Vec<PathBuf>>(row, "files")?,
                files_digest: row.try_get("files_digest")?,
                further: further(row)?,
                separator: separator(row.try_get("separator")?)?,
                digest: digest(row, "digest")?,
                inputs: digest(row, "inputs")?,
                ports: ports.remove(&id).unwrap_or_default(),
            })),
        };
        loaded.insert(id, (json(row, "shared_volumes")?, compose));
    }
    Ok(loaded)
}

/// None are recorded of an override that is older than the column.
fn further(row: &SqliteRow) -> Result<BTreeMap<PathBuf, String>, Error> {
    match row.try_get::<Option<&str>, _>("further")? {
        None => Ok(BTreeMap::new()),
        Some(_) => json(row, "further"),
    }
}

fn separator(text: &str) -> Result<char, Error> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(separator), None) => Ok(separator),
        _ => Err(foreign("separator", text)),
    }
}

fn digest(row: &SqliteRow, column: &str) -> Result<[u8; 32], Error> {
    row.try_get::<&[u8], _>(column)?.try_into().map_err(|_| foreign(column, "no SHA-256"))
}

/// Writes what of Compose an allocation has, in place of what was written before. After the allocation itself.
pub(super) async fn put(connection: &mut SqliteConnection, allocation: &Allocation) -> Result<(), Error> {
    let id = allocation.id.to_string();
    for clear in
        ["DELETE FROM compose_ports WHERE allocation = ?1", "DELETE FROM compose WHERE allocation = ?1"]
    {
        sqlx::query(clear).bind(&id).execute(&mut *connection).await?;
    }
    let compose = allocation.compose.as_deref();
    let is_plain = compose.is_none() && allocation.shared_volumes.is_empty();
    if is_plain || allocation.state == State::Released {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO compose (allocation, shared_volumes, files, files_digest, separator, digest, inputs, further)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
    )
    .bind(&id)
    .bind(to_json(&allocation.shared_volumes)?)
    .bind(compose.map(|compose| to_json(&compose.files)).transpose()?)
    .bind(compose.map(|compose| &compose.files_digest))
    .bind(compose.map(|compose| compose.separator.to_string()))
    .bind(compose.map(|compose| compose.digest.as_slice()))
    .bind(compose.map(|compose| compose.inputs.as_slice()))
    .bind(compose.map(|compose| to_json(&compose.further)).transpose()?)
    .execute(&mut *connection)
    .await?;
    let Some(compose) = compose else { return Ok(()) };
    sqlx::query("INSERT INTO compose_ports (port, allocation) SELECT value, ?1 FROM json_each(?2)")
        .bind(&id)
        .bind(to_json(&compose.ports)?)
        .execute(connection)
        .await
        .map(drop)
}
