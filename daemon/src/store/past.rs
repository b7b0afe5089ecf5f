//! Letting go of the registry's past.
//!
//! Only readers of the past ever see rows of it: whoever decides anything goes by the ledger, which has no released
//! allocation in it ([`super::Registry::load`]). So an id in an old allocation file or in a volume's label means the same
//! before and after its row is gone: nothing. Nor is it ever another's, since ids are random.

use std::collections::BTreeSet;

use sqlx::sqlite::SqliteConnection;
use sqlx::{Connection, Error, Row};

use super::{History, StoreError, rows};

/// Released allocations, of these, that nothing tells of any more. What is not over holds one, and so does every row that
/// a released allocation is not to have: it is left alone rather than explained.
const FORGETTABLE: &str = "
    SELECT id FROM allocations
     WHERE id IN (SELECT value FROM json_each(?1)) AND state = 'released'
       AND NOT EXISTS (SELECT 1 FROM history WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM removals WHERE allocation = allocations.id AND ended IS NULL)
       AND NOT EXISTS (SELECT 1 FROM seedings WHERE allocation = allocations.id AND ended IS NULL)
       AND NOT EXISTS (SELECT 1 FROM ports WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM volumes WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM engine_looks WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM compose WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM compose_ports WHERE allocation = allocations.id)
       AND NOT EXISTS (SELECT 1 FROM database_objects WHERE allocation = allocations.id)";

/// Deletes the oldest changes but the `kept` latest, at most `at_most` of them, and with the last change of a released
/// allocation that allocation, with what was removed and copied for it.
pub(super) async fn prune(connection: &mut SqliteConnection, kept: u32, at_most: u32) -> Result<(), Error> {
    let old = sqlx::query(
        "SELECT sequence, allocation FROM history
          WHERE sequence <= (SELECT MAX(sequence) FROM history) - ?1 ORDER BY sequence LIMIT ?2",
    )
    .bind(kept)
    .bind(at_most)
    .fetch_all(&mut *connection)
    .await?;
    let Some(last) = old.last() else { return Ok(()) };
    let last: i64 = last.try_get("sequence")?;
    let allocations: BTreeSet<&str> =
        old.iter().map(|row| row.try_get("allocation")).collect::<Result<_, _>>()?;
    sqlx::query("DELETE FROM history WHERE sequence <= ?1").bind(last).execute(&mut *connection).await?;
    let forgettable: Vec<String> = sqlx::query_scalar(FORGETTABLE)
        .bind(rows::to_json(&allocations)?)
        .fetch_all(&mut *connection)
        .await?;
    let forgettable = rows::to_json(&forgettable)?;
    for delete in [
        "DELETE FROM removals WHERE allocation IN (SELECT value FROM json_each(?1))",
        "DELETE FROM seedings WHERE allocation IN (SELECT value FROM json_each(?1))",
        "DELETE FROM allocations WHERE id IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(delete).bind(&forgettable).execute(&mut *connection).await?;
    }
    Ok(())
}

impl History {
    /// Whether there are more than `kept` changes.
    pub async fn exceeds(&self, kept: u32) -> Result<bool, StoreError> {
        let mut connection = SqliteConnection::connect_with(&self.options).await?;
        // Numbers have no gaps but those at the beginning: one that was given in vain is given again.
        let exceeds = sqlx::query_scalar("SELECT MAX(sequence) - MIN(sequence) >= ?1 FROM history")
            .bind(kept)
            .fetch_one(&mut connection)
            .await?;
        connection.close().await?;
        Ok(Option::unwrap_or(exceeds, false))
    }
}

#[cfg(test)]
mod tests;
