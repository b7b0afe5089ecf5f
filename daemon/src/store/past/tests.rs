//! What of the past goes, and what keeps it.

use std::collections::BTreeSet;
use std::path::Path;

use sqlx::Executor as _;

use super::super::{Registry, open};
use super::FORGETTABLE;
use crate::domain::allocation::Moment;
use crate::domain::draft::Record;
use crate::domain::ledger::Ledger;

/// Fifty worktrees that came and went one after the other, each with three changes, a volume that was dropped and one that
/// was copied.
const FILL: &str = "
    CREATE TEMP TABLE worktrees AS
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 50)
        SELECT n, format('00000000-0000-0000-0000-%012d', n) AS id FROM n;
    INSERT INTO repositories VALUES ('r', x'2f', 1, 1, NULL, NULL, 1);
    INSERT INTO allocations (id, repository, git_dir, device, inode, path, path_device, finished, offset, project, database,
                             state, reason, since, created, passed_over, warnings)
        SELECT id, 'r', x'2f', 1, 1, x'2f', 1, 1, 0, 'p', 'd', 'released', '', 0, 0, '[]', '[]' FROM worktrees;
    INSERT INTO history (at, kind, allocation, offset, path, detail)
        SELECT 0, kind, id, 0, x'2f', '{}'
          FROM worktrees, (SELECT 1 AS k, 'allocated' AS kind UNION SELECT 2, 'stale' UNION SELECT 3, 'released')
         ORDER BY n, k;
    INSERT INTO removals (at, allocation, engine, kind, name, detail, ended, outcome)
        SELECT 0, id, 'e', 'volume', 'v', '{}', 1, 'dropped' FROM worktrees;
    INSERT INTO seedings SELECT id, 0, id, 'e', 'h', 's', 'v', '[]', 1, 'done' FROM worktrees;";

async fn filled(dir: &Path) -> Registry {
    let mut registry = open(dir, "a test").await.unwrap();
    registry.connection.execute(FILL).await.unwrap();
    registry
}

async fn prune(registry: &mut Registry, kept: u32, at_most: u32) {
    let records = [Record::Pruned { kept, at_most }];
    let changes = registry.write(&records, &Ledger::default(), Moment(0)).await.unwrap();
    assert!(changes.is_empty(), "nobody is told");
}

async fn count(registry: &mut Registry, of: &'static str) -> i64 {
    sqlx::query_scalar(of).fetch_one(&mut registry.connection).await.unwrap()
}

/// How many there are of changes, allocations, removals and copies.
async fn counts(registry: &mut Registry) -> [i64; 4] {
    [
        count(registry, "SELECT COUNT(*) FROM history").await,
        count(registry, "SELECT COUNT(*) FROM allocations").await,
        count(registry, "SELECT COUNT(*) FROM removals").await,
        count(registry, "SELECT COUNT(*) FROM seedings").await,
    ]
}

#[tokio::test]
async fn the_oldest_changes_go_in_steps_and_allocations_with_their_last_change() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = filled(dir.path()).await;
    let history = registry.history();
    assert!(history.exceeds(149).await.unwrap() && !history.exceeds(150).await.unwrap());
    prune(&mut registry, 31, 50).await;
    // The change after the fiftieth is the last one of the seventeenth worktree.
    assert_eq!(counts(&mut registry).await, [100, 34, 34, 34]);
    prune(&mut registry, 31, 50).await;
    prune(&mut registry, 31, 50).await;
    assert_eq!(counts(&mut registry).await, [31, 11, 11, 11]);
    assert_eq!(count(&mut registry, "SELECT MIN(sequence) FROM history").await, 120);
    assert!(!history.exceeds(31).await.unwrap());
    prune(&mut registry, 31, 50).await;
    assert_eq!(counts(&mut registry).await, [31, 11, 11, 11], "what is within bounds stays");
    assert_eq!(history.latest().await.unwrap(), 150, "numbers go on");
}

#[tokio::test]
async fn what_is_not_released_or_not_over_stays_without_its_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = filled(dir.path()).await;
    let not_over = "
        UPDATE allocations SET state = 'active' WHERE id LIKE '%001';
        UPDATE allocations SET state = 'stale', offset = 10000 WHERE id LIKE '%002';
        UPDATE allocations SET state = 'missing', offset = 20000 WHERE id LIKE '%003';
        UPDATE removals SET ended = NULL WHERE allocation LIKE '%004';
        UPDATE seedings SET ended = NULL WHERE allocation LIKE '%005';
        INSERT INTO engine_looks SELECT id, 'e', 'v', 0, 'h', 0 FROM worktrees WHERE n = 6;";
    registry.connection.execute(not_over).await.unwrap();
    prune(&mut registry, 0, 1_000).await;
    assert_eq!(counts(&mut registry).await, [0, 6, 6, 6]);
}

/// A row that refers to an allocation which is to go would fail the transaction, and whatever else is in that.
#[tokio::test]
async fn every_table_that_refers_to_allocations_is_asked_before_one_goes() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = filled(dir.path()).await;
    let referring: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT tables.name FROM sqlite_schema AS tables, pragma_foreign_key_list(tables.name) AS keys
          WHERE tables.type = 'table' AND keys.\"table\" = 'allocations'",
    )
    .fetch_all(&mut registry.connection)
    .await
    .unwrap();
    let asked: BTreeSet<&str> =
        FORGETTABLE.split("SELECT 1 FROM ").skip(1).filter_map(|rest| rest.split(' ').next()).collect();
    assert_eq!(referring.iter().map(String::as_str).collect::<BTreeSet<_>>(), asked);
}
