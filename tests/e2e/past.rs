//! What the registry keeps of allocations that are no more.

use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{ConnectOptions as _, Connection as _};

use crate::harness::{Sandbox, until};

/// How many changes are kept (docs/reliability.md).
const KEPT: i64 = 100_000;

/// Twenty thousand worktrees more that came and went as the one that did, each with five changes.
const FILL: &str = "
    CREATE TEMP TABLE worktrees AS
        WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000)
        SELECT n, format('00000000-0000-0000-0000-%012d', n) AS id FROM n;
    CREATE TEMP TABLE past AS SELECT * FROM allocations WHERE state = 'released';
    INSERT INTO allocations (id, repository, git_dir, device, inode, path, path_device, finished, offset, project, database,
                             state, reason, since, created, passed_over, warnings)
        SELECT worktrees.id, repository, git_dir, device, inode, path, path_device, finished, offset, project, database,
               state, reason, since, created, passed_over, warnings FROM worktrees, past;
    INSERT INTO history (at, kind, allocation, offset, path, detail)
        SELECT at, kind, worktrees.id, offset, path, detail
          FROM worktrees, (SELECT * FROM history WHERE kind = 'released' LIMIT 1),
               (SELECT 1 UNION SELECT 2 UNION SELECT 3 UNION SELECT 4 UNION SELECT 5);";

/// What `ask` gives of the registry.
fn registry<T>(path: &Path, ask: impl AsyncFnOnce(&mut SqliteConnection) -> T) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
        let given = ask(&mut connection).await;
        connection.close().await.unwrap();
        given
    })
}

fn number(path: &Path, of: &'static str) -> i64 {
    registry(path, async |connection| sqlx::query_scalar(of).fetch_one(connection).await.unwrap())
}

#[test]
fn the_latest_changes_are_kept_and_every_worktree_that_has_an_offset() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let [gone, stays] = ["gone", "stays"].map(|name| repo.add(name));
    let before = daemon.put(&stays);
    daemon.put(&gone);
    repo.remove(&gone);
    daemon.await_state(&gone, "released");
    daemon.terminate();
    let path = sandbox.registry();
    registry(&path, async |connection| sqlx::raw_sql(FILL).execute(connection).await.unwrap());
    let latest = number(&path, "SELECT MAX(sequence) FROM history");
    assert!(latest > KEPT);

    let daemon = sandbox.daemon();
    let changes = || number(&path, "SELECT COUNT(*) FROM history");
    until("what is older goes", changes, |changes| *changes <= KEPT);
    assert_eq!((changes(), number(&path, "SELECT MAX(sequence) FROM history")), (KEPT, latest));
    let forgotten = "SELECT COUNT(*) FROM allocations WHERE state = 'released'
                        AND NOT EXISTS (SELECT 1 FROM history WHERE allocation = allocations.id)";
    assert_eq!(number(&path, forgotten), 0, "nothing is left of allocations of which nothing is told");
    assert_eq!(daemon.events(Some(0)).next().id, latest - KEPT + 1, "a reader of all gets what there is");
    drop(daemon);

    let daemon = sandbox.daemon();
    let after = daemon.put(&stays);
    assert_eq!((&after["id"], &after["offset"]), (&before["id"], &before["offset"]));
    let mut events = daemon.events(None);
    let again = repo.add("again");
    assert_eq!(events.next().id, latest + 1);
    assert_eq!(daemon.put(&again)["offset"], 10_000);
}
