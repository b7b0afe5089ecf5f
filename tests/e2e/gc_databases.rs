//! `gc` on a real PostgreSQL: the databases and schemas of removed worktrees are dropped, and nothing else.

use std::path::{Path, PathBuf};

use crate::database_servers::{daemon, declare, is_made};
use crate::gc::Line;
use crate::harness::{Cut, Cutter, Daemon, Postgres, Ran, Repo, Sandbox, free_base, until};

/// What `gc` with these arguments says, as JSON.
#[track_caller]
fn gc<const N: usize>(sandbox: &Sandbox, arguments: [&str; N]) -> Vec<Line> {
    let ran = sandbox.client(["gc", "--json"].into_iter().chain(arguments));
    serde_json::from_str(&ran.ok()).unwrap()
}

/// As [`gc`], of which a server gives no answer: the client says so, and fails.
#[track_caller]
fn unanswered(sandbox: &Sandbox) -> Line {
    let ran = sandbox.client(["gc", "--json", "-y"]);
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.starts_with("wtd-client: gc: ") && ran.stderr.contains("; "), "{ran:#?}");
    sandbox.client(["gc", "--dry-run"]).ok();
    only(serde_json::from_str(&ran.text()).unwrap())
}

/// The one line of a gc.
#[track_caller]
fn only(lines: Vec<Line>) -> Line {
    let [line] = <[Line; 1]>::try_from(lines).unwrap_or_else(|lines| panic!("one line: {lines:#?}"));
    line
}

/// A repository in a mode, with a linked worktree that has its database or schema.
fn with_one<'s>(
    sandbox: &'s Sandbox,
    server: &Postgres<'_>,
    daemon: &Daemon<'_>,
    database: &str,
) -> (Repo<'s>, PathBuf) {
    server.sql("postgres", "CREATE DATABASE shop");
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, database);
    daemon.put(&repo.path);
    let one = repo.add("one");
    for path in [&repo.path, &one] {
        until("it is made", || is_made(sandbox, path), |made| *made);
    }
    (repo, one)
}

fn remove(daemon: &Daemon<'_>, repo: &Repo<'_>, path: &Path) {
    repo.remove(path);
    daemon.await_state(path, "stale");
}

const DATABASE: &str = "mode = \"database\"";
const SCHEMA: &str = "mode = \"schema\"";

#[test]
fn a_removed_worktrees_database_is_shown_dropped_and_its_offset_and_name_are_free_again() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    server.sql("shop-10000", "CREATE TABLE t AS SELECT 1");
    assert!(gc(&sandbox, ["--dry-run"]).is_empty(), "nothing is gone");
    remove(&daemon, &repo, &one);

    let line = only(gc(&sandbox, ["--dry-run"]));
    assert_eq!((line.path.as_str(), line.offset), (one.to_str().unwrap(), 10_000));
    assert_eq!(
        (line.kind.as_str(), line.name.as_str(), line.action.as_str(), line.done),
        ("database", "shop-10000", "drop", false)
    );
    let table = sandbox.client(["gc", "--dry-run"]).ok();
    assert!(table.contains("database shop-10000") && table.contains("1 database to drop"), "{table}");
    assert_eq!(server.databases().len(), 3);

    let line = only(gc(&sandbox, ["-y"]));
    assert!(line.done, "{line:?}");
    let names: Vec<_> = server.databases().into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["shop", "shop-0"]);
    daemon.await_state(&one, "released");
    let two = repo.add("two");
    until("the next one has the name", || is_made(&sandbox, &two), |made| *made);
    assert_eq!(sandbox.list().at(&two).database, "shop-10000");
    assert_eq!(server.sql("shop-10000", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
}

#[test]
fn a_removed_worktrees_schema_is_dropped_and_no_other_one() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, SCHEMA);
    let everything = "CREATE TABLE t (id serial PRIMARY KEY, v text CHECK (v <> '')); CREATE VIEW v AS SELECT * FROM t;
        CREATE TYPE mood AS ENUM ('good'); CREATE CAST (mood AS int) WITH INOUT; CREATE FUNCTION f() RETURNS trigger
        LANGUAGE plpgsql AS 'BEGIN RETURN new; END'; CREATE TRIGGER tr BEFORE INSERT ON t EXECUTE FUNCTION f();
        CREATE TABLE p (id int) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (9);
        CREATE MATERIALIZED VIEW m AS SELECT * FROM v; CREATE POLICY po ON t USING (true); INSERT INTO t (v) VALUES ('x')";
    for schema in ["shop_0", "shop_10000", "public"] {
        server.sql("shop", &format!("SET search_path = {schema}; {everything}"));
    }
    remove(&daemon, &repo, &one);
    let line = only(gc(&sandbox, ["--dry-run"]));
    assert_eq!(
        (line.kind.as_str(), line.name.as_str(), line.action.as_str()),
        ("schema", "shop_10000", "drop"),
        "{line:?}"
    );
    assert!(only(gc(&sandbox, ["-y"])).done);
    let names: Vec<_> = server.schemas("shop").into_iter().map(|(name, _)| name).collect();
    assert_eq!(names, ["shop_0"]);
    for schema in ["shop_0", "public"] {
        assert_eq!(server.sql("shop", &format!("SELECT count(*) FROM {schema}.t")), "1");
    }
    daemon.await_state(&one, "released");
}

#[test]
fn a_database_that_somebody_is_connected_to_is_kept() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    let session = Session::begin(&server, "shop-10000", "SELECT 1");
    remove(&daemon, &repo, &one);
    let line = only(gc(&sandbox, ["-y"]));
    assert_eq!((line.action.as_str(), line.done), ("keep", false));
    assert!(line.reason.contains("in use by 1 session of psql"), "{line:?}");
    assert_eq!(server.databases().len(), 3);
    session.end();
    assert!(only(gc(&sandbox, ["-y"])).done);
}

#[test]
fn a_schema_that_somebody_works_in_is_kept() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, SCHEMA);
    server.sql("shop", "CREATE TABLE shop_10000.t (id int)");
    let session = Session::begin(&server, "shop", "BEGIN; SELECT * FROM shop_10000.t");
    remove(&daemon, &repo, &one);
    let line = only(gc(&sandbox, ["-y"]));
    assert_eq!(line.action, "keep");
    assert!(line.reason.contains("in use by 1 session"), "{line:?}");
    session.end();
    assert!(only(gc(&sandbox, ["-y"])).done);
}

#[test]
fn a_schema_is_kept_while_something_outside_of_it_would_go_with_it() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, SCHEMA);
    server.sql(
        "shop",
        "CREATE TABLE shop_10000.t (id serial PRIMARY KEY); CREATE TYPE shop_10000.mood AS ENUM ('good');
         CREATE FUNCTION shop_10000.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
    );
    remove(&daemon, &repo, &one);
    for (outside, undo, named) in [
        ("CREATE VIEW public.v AS SELECT * FROM shop_10000.t", "DROP VIEW public.v", "view public.v"),
        (
            "CREATE TABLE public.fk (id int REFERENCES shop_10000.t (id))",
            "DROP TABLE public.fk",
            "constraint fk_id_fkey on table public.fk",
        ),
        ("CREATE TABLE shop_0.c (m shop_10000.mood)", "DROP TABLE shop_0.c", "table shop_0.c"),
        (
            "CREATE TABLE public.d (n int DEFAULT nextval('shop_10000.t_id_seq'))",
            "DROP TABLE public.d",
            "default value for column n of table public.d",
        ),
        (
            "CREATE TABLE public.g (n int); CREATE TRIGGER tr BEFORE INSERT ON public.g EXECUTE FUNCTION shop_10000.f()",
            "DROP TABLE public.g",
            "trigger tr on table public.g",
        ),
        ("CREATE TABLE public.i () INHERITS (shop_10000.t)", "DROP TABLE public.i", "table public.i"),
    ] {
        server.sql("shop", outside);
        let line = only(gc(&sandbox, ["-y"]));
        assert_eq!(line.action, "keep");
        assert!(line.reason.contains(named), "{line:?}");
        server.sql("shop", undo);
    }
    assert!(only(gc(&sandbox, ["-y"])).done);
}

#[test]
fn what_looks_like_ours_and_does_not_say_so_is_kept_with_the_reason() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE \"shop-20000\"");
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    let two = repo.add("two");
    until(
        "the other one is told",
        || sandbox.list().find(&two).is_some_and(|row| !row.warnings.is_empty()),
        |told| *told,
    );
    // Made anew by a person, under the name that the worktree has.
    server.sql("postgres", "DROP DATABASE \"shop-10000\"");
    server.sql("postgres", "CREATE DATABASE \"shop-10000\"");
    let before = server.databases();
    remove(&daemon, &repo, &one);
    remove(&daemon, &repo, &two);
    let lines = gc(&sandbox, ["-y", "--missing"]);
    let mut seen: Vec<_> =
        lines.iter().map(|line| (line.name.as_str(), line.action.as_str(), line.done)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("shop-10000", "keep", false), ("shop-20000", "keep", false)]);
    let reason = |name: &str| lines.iter().find(|line| line.name == name).unwrap().reason.clone();
    assert!(reason("shop-10000").contains("does not carry the comment"), "{lines:#?}");
    assert!(reason("shop-20000").contains("was there before its worktree"), "{lines:#?}");
    assert_eq!(server.databases(), before);
    // A worktree that comes now does not open onto them.
    let three = repo.add("three");
    assert_eq!(daemon.await_agreement(&repo).at(&three).offset, 30_000);
    // Out of the way, they keep nothing.
    server.sql("postgres", "ALTER DATABASE \"shop-10000\" RENAME TO mine");
    assert!(gc(&sandbox, ["-y"]).iter().all(|line| line.name != "shop-10000"));
    daemon.await_state(&one, "released");
}

#[test]
fn a_template_is_kept_even_with_our_comment() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    server.sql("postgres", "ALTER DATABASE \"shop-10000\" IS_TEMPLATE true");
    remove(&daemon, &repo, &one);
    let line = only(gc(&sandbox, ["-y"]));
    assert!(line.action == "keep" && line.reason.contains("for everybody"), "{line:?}");
    assert_eq!(server.databases().len(), 3);
}

#[test]
fn a_schema_that_somebody_has_locked_is_kept_and_it_says_so() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, SCHEMA);
    server.sql("shop", "CREATE TABLE shop_10000.t (id int)");
    let session = Session::begin(&server, "shop", "BEGIN; LOCK TABLE shop_10000.t");
    remove(&daemon, &repo, &one);
    let line = unanswered(&sandbox);
    assert_eq!(line.action, "keep");
    assert!(
        line.reason.contains("somebody holds a lock on it") && !line.reason.contains("55P03"),
        "{line:?}"
    );
    session.end();
    assert!(only(gc(&sandbox, ["-y"])).done);
}

#[test]
fn a_server_that_is_down_keeps_everything_and_a_second_run_finishes() {
    let sandbox = Sandbox::new();
    let Some(mut server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    remove(&daemon, &repo, &one);
    server.stop();
    let line = unanswered(&sandbox);
    assert_eq!((line.name.as_str(), line.action.as_str(), line.done), ("shop-10000", "keep", false));
    assert!(line.reason.contains("no PostgreSQL answers"), "{line:?}");
    let rows = sandbox.list_all();
    assert!(rows.iter().any(|row| row.exact_path() == one && row.is("stale")), "{rows:#?}");
    server.start_again();
    assert!(only(gc(&sandbox, ["-y"])).done);
    daemon.await_state(&one, "released");
}

#[test]
fn an_offset_is_released_on_a_persons_word_when_its_server_is_gone_for_good() {
    let sandbox = Sandbox::new();
    let base = free_base();
    let Some(server) = Postgres::start(&sandbox, base) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    remove(&daemon, &repo, &one);
    // Not while the server says that it is there: then it is dropped or kept.
    let session = Session::begin(&server, "shop-10000", "SELECT 1");
    Ran::of(&mut sandbox.client_command(["gc", "-y", "--no-engine"])).ok();
    assert!(sandbox.list_all().iter().any(|row| row.exact_path() == one && row.is("stale")));
    session.end();
    drop(server);
    std::fs::remove_dir_all(sandbox.path(format!("data-{base}"))).unwrap();
    let _another = Postgres::start(&sandbox, base).unwrap();
    let line = unanswered(&sandbox);
    assert!(line.action == "keep" && line.reason.contains("another PostgreSQL"), "{line:?}");
    sandbox.client(["gc", "-y", "--no-engine"]).ok();
    daemon.await_state(&one, "released");
}

#[test]
fn a_worktree_that_is_back_keeps_its_database_and_backups_are_promised_for_volumes_only() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let (repo, one) = with_one(&sandbox, &server, &daemon, DATABASE);
    remove(&daemon, &repo, &one);
    let backup = sandbox.path("backup");
    std::fs::create_dir(&backup).unwrap();
    let line = only(gc(&sandbox, ["-y", "--backup", backup.to_str().unwrap()]));
    assert!(line.action == "keep" && line.reason.contains("pg_dump"), "{line:?}");
    let line = only(gc(&sandbox, ["-y", "--older-than", "7d"]));
    assert_eq!(line.action, "keep");
    assert_eq!(server.databases().len(), 3);
}

#[test]
fn a_drop_that_breaks_off_at_any_message_is_finished_by_a_later_run() {
    // A request that is lost leaves the server as the reply before it did.
    for database in [DATABASE, SCHEMA] {
        let sandbox = Sandbox::new();
        let Some(mut server) = Postgres::start(&sandbox, free_base() + 10_000) else { return };
        let (proxied, port) = (server.port, server.port - 10_000);
        let cutter = Cutter::start(port, proxied);
        let daemon = daemon(&sandbox);
        server.port = port;
        let (repo, one) = with_one(&sandbox, &server, &daemon, database);
        server.port = proxied;
        remove(&daemon, &repo, &one);
        let mut path = one;
        let mut messages = 0..;
        for number in messages.by_ref() {
            cutter.await_silence();
            cutter.arm(number, Cut::Reply, false);
            let ran = sandbox.client(["gc", "--json", "-y"]);
            let lines: Vec<Line> = serde_json::from_str(&ran.text()).unwrap();
            let was_cut = !cutter.is_armed();
            assert!(was_cut || ran.code == Some(0), "{number}: {ran:#?}");
            cutter.disarm();
            let all = [server.databases(), server.schemas("shop")].concat();
            assert!(all.iter().any(|(name, _)| name == "shop-0" || name == "shop_0"), "{number}: {all:#?}");
            if all.iter().any(|(name, _)| name == "shop-10000" || name == "shop_10000") {
                assert!(was_cut, "{number}: {lines:#?}");
                continue;
            }
            assert!(was_cut || (lines.len() == 1 && lines[0].done), "{number}: {lines:#?}");
            gc(&sandbox, ["-y"]);
            daemon.await_state(&path, "released");
            if !was_cut {
                break;
            }
            path = repo.add(&format!("at-{number}"));
            until("it is made", || is_made(&sandbox, &path), |made| *made);
            remove(&daemon, &repo, &path);
        }
        assert!(messages.start > 20, "a conversation has more than {} messages", messages.start);
    }
}

/// A psql that has run a statement, and stays.
struct Session(std::process::Child);

impl Session {
    fn begin(server: &Postgres<'_>, database: &str, statement: &str) -> Self {
        use std::io::Write as _;
        let mut command = server.psql_command(["-d", database]);
        let mut child =
            command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::null()).spawn().unwrap();
        writeln!(child.stdin.as_mut().unwrap(), "{statement};").unwrap();
        let look = || {
            let idle =
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'psql' AND state LIKE 'idle%'
                        AND query <> '' AND pid <> pg_backend_pid()";
            server.sql("postgres", idle)
        };
        until("the session has run it", look, |count| count == "1");
        Self(child)
    }

    fn end(mut self) {
        drop(self.0.stdin.take());
        self.0.wait().unwrap();
    }
}
