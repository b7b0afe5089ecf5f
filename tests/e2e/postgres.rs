//! A real PostgreSQL on the port that everybody uses.

use crate::harness::{Postgres, Sandbox, free_port, require};

const PORT: u16 = 5432;

#[test]
fn a_postgresql_on_5432_moves_the_next_worktree_and_list_says_why() {
    if !require::part(free_port(PORT), "something listens on 5432 already") {
        return;
    }
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = true\n");
    let Some(mut server) = Postgres::start(&sandbox, PORT) else { return };

    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let row = daemon.await_agreement(&repo).at(&repo.path).clone();
    assert_ne!(row.offset, 0);
    let why = serde_json::to_string(&row.passed_over).unwrap();
    assert!(
        why.contains("5432") && why.contains("postgres") && why.contains(&format!("pid {}", server.pid())),
        "{why}"
    );
    let table = sandbox.client(["list"]).ok();
    assert!(table.contains("5432") && table.contains("postgres"), "{table}");
    let doctor = sandbox.client(["doctor"]).text();
    assert!(doctor.contains("5432") && doctor.contains("postgres"), "{doctor}");

    server.stop();
    let one = repo.add("one");
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).offset, 0, "once it is gone, offset 0 is to be had");
    assert_eq!(rows.at(&repo.path).offset, row.offset);
}
