//! Databases and schemas that worktrees have on a real PostgreSQL.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::harness::{Cut, Cutter, Daemon, Postgres, Ran, Repo, Sandbox, free_base, until};

/// A daemon that comes to the server as its superuser.
pub(crate) fn daemon(sandbox: &Sandbox) -> Daemon<'_> {
    let mut command = sandbox.command(Sandbox::program("wtd"));
    command.env("PGUSER", "postgres");
    Daemon::start_command(sandbox, command)
}

/// `wtd.toml` with the base port and the lines of `[database]`.
pub(crate) fn declare(repo: &Repo<'_>, port: u16, database: &str) {
    let text = format!("[ports]\nDB_HOST_PORT = {port}\n[database]\n{database}\n");
    fs::write(repo.path.join("wtd.toml"), text).unwrap();
}

fn variables(sandbox: &Sandbox, path: &Path) -> BTreeMap<String, String> {
    let json = sandbox.client_in(path, ["env", "--format", "json"]).ok();
    serde_json::from_str(&json).unwrap()
}

/// Waits until what worktrees have on the server is this, each marked as the allocation's of the worktree at the path.
#[track_caller]
fn await_marked(
    sandbox: &Sandbox,
    what: &str,
    look: impl Fn() -> Vec<(String, String)>,
    wanted: &[(&str, &Path)],
) {
    let rows = sandbox.list();
    let wanted: Vec<_> = wanted
        .iter()
        .map(|(name, path)| ((*name).to_owned(), format!("wtd allocation {}", rows.at(path).id)))
        .collect();
    until(what, look, |seen| *seen == wanted);
}

/// What is said of a worktree in `list`.
fn note(sandbox: &Sandbox, path: &Path) -> String {
    sandbox.list().at(path).warnings.join("\n")
}

/// psql in a worktree, under its variables.
fn psql(sandbox: &Sandbox, path: &Path, script: &str) -> Command {
    let mut command = sandbox.client_command(["exec", "--path"]);
    command.arg(path).args(["--", "sh", "-c"]);
    command.arg("exec psql -X -q -A -t -v ON_ERROR_STOP=1 -h localhost -U postgres -p $DB_HOST_PORT -d $POSTGRES_DB -c \"$SQL\"");
    command.env("SQL", script).env("WTD_NO_START", "1");
    command
}

/// Runs the same migrations in both worktrees at once, and looks that each sees its own work only.
#[track_caller]
fn migrate_in_parallel(sandbox: &Sandbox, worktrees: [&Path; 2]) {
    let migration = "CREATE TABLE migrations (id int PRIMARY KEY);
        CREATE TABLE items (id serial PRIMARY KEY, name text UNIQUE);
        CREATE INDEX by_name ON items (name); CREATE TYPE mood AS ENUM ('good');
        INSERT INTO items (name) SELECT 'item ' || n FROM generate_series(1, 500) n; INSERT INTO migrations VALUES (1);";
    let running: Vec<_> = worktrees
        .iter()
        .map(|path| psql(sandbox, path, migration).stdout(Stdio::null()).spawn().unwrap())
        .collect();
    for mut child in running {
        assert!(child.wait().unwrap().success(), "the migrations met");
    }
    Ran::of(&mut psql(sandbox, worktrees[0], "DELETE FROM items; INSERT INTO items (name) VALUES ('one')"))
        .ok();
    let count = |path| Ran::of(&mut psql(sandbox, path, "SELECT count(*) FROM items")).ok();
    assert_eq!((count(worktrees[0]).trim(), count(worktrees[1]).trim()), ("1", "500"));
}

#[test]
fn in_schema_mode_two_worktrees_run_the_same_migrations_without_meeting() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE shop");
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"schema\"");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let wanted = [("shop_0", repo.path.as_path()), ("shop_10000", one.as_path())];
    await_marked(&sandbox, "both have a schema", || server.schemas("shop"), &wanted);
    migrate_in_parallel(&sandbox, [&repo.path, &one]);
    assert_eq!(server.sql("shop", "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"), "0");
    assert_eq!(note(&sandbox, &one), "");
    // As a URL too.
    let url = format!(
        "postgresql://postgres@localhost:{}/shop?{}",
        server.port,
        variables(&sandbox, &one)["DB_URL_OPTIONS"]
    );
    let ran =
        Ran::of(sandbox.command("psql").args(["-X", "-A", "-t", &url, "-c", "SELECT current_schema()"]));
    assert_eq!(ran.ok(), "shop_10000\n");
}

#[test]
fn in_database_mode_two_worktrees_run_the_same_migrations_without_meeting() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"database\"");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let wanted = [("shop-0", repo.path.as_path()), ("shop-10000", one.as_path())];
    await_marked(&sandbox, "both have a database", || server.databases(), &wanted);
    migrate_in_parallel(&sandbox, [&repo.path, &one]);
}

#[test]
fn in_shared_mode_nothing_is_made() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE shop");
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"shared\"");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let script = "CREATE TABLE of_all (id int)";
    Ran::of(&mut psql(&sandbox, &one, script)).ok();
    Ran::of(&mut psql(&sandbox, &repo.path, "INSERT INTO of_all VALUES (1)")).ok();
    assert_eq!(server.schemas("shop"), []);
    assert_eq!(server.databases(), [("shop".to_owned(), String::new())]);
}

#[test]
fn a_worktree_starts_with_the_data_of_the_template() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE \"inventiv-agents\"");
    server.sql("inventiv-agents", "CREATE TABLE agents AS SELECT n FROM generate_series(1, 1000) n");
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("inventiv-agents");
    // Somebody works with the template: it can't be copied now, and is when they are gone.
    let mut session = server.psql_command(["-d", "inventiv-agents"]);
    let mut session = session.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let is_in_use =
        || server.sql("postgres", "SELECT count(*) FROM pg_stat_activity WHERE datname = 'inventiv-agents'");
    until("somebody is connected", is_in_use, |count| count == "1");
    declare(&repo, server.port, "mode = \"database\"\ntemplate = \"inventiv-agents\"");
    daemon.put(&repo.path);
    let said = until("it is announced", || note(&sandbox, &repo.path), |note| !note.is_empty());
    assert!(said.contains("template inventiv-agents is in use by 1 session of psql"), "{said}");
    let doctor = sandbox.client(["doctor"]).text();
    assert!(doctor.contains("in use by 1 session of psql"), "{doctor}");
    drop(session.stdin.take());
    session.wait().unwrap();
    let rows = || server.databases().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    until("it is copied", rows, |names| *names == ["inventiv-agents", "inventiv-agents-0"]);
    assert_eq!(Ran::of(&mut psql(&sandbox, &repo.path, "SELECT count(*) FROM agents")).ok(), "1000\n");
    let note = until("nothing more is said", || note(&sandbox, &repo.path), String::is_empty);
    assert_eq!(note, "");
    // The copy is one, and nobody else's template.
    let template =
        server.sql("postgres", "SELECT datistemplate FROM pg_database WHERE datname = 'inventiv-agents-0'");
    assert_eq!(template, "f");
}

#[test]
fn while_the_server_is_down_env_answers_and_the_schema_comes_later() {
    let sandbox = Sandbox::new();
    let Some(mut server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE shop");
    server.stop();
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"schema\"");
    assert_eq!(sandbox.client_in(&repo.path, ["get", "DB_SCHEMA"]).quiet(), "shop_0\n");
    let said = until("it is said", || note(&sandbox, &repo.path), |note| !note.is_empty());
    assert!(said.contains("the schema shop_0 of the database shop is not there yet"), "{said}");
    assert!(said.contains("no PostgreSQL answers at localhost:"), "{said}");
    server.start_again();
    let look = || {
        sandbox.client_in(&repo.path, ["env"]).ok();
        server.schemas("shop").into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    until("somebody asks, and it is made", look, |names| *names == ["shop_0"]);
    drop(daemon);
}

#[test]
fn what_was_there_before_is_never_touched_nor_adopted() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE shop");
    server.sql("shop", "CREATE SCHEMA shop_0");
    server.sql("postgres", "CREATE DATABASE \"store-0\"");
    let other = "wtd allocation 00000000-0000-7000-8000-000000000000";
    server.sql("postgres", "CREATE DATABASE \"store-10000\"");
    server.sql("postgres", &format!("COMMENT ON DATABASE \"store-10000\" IS '{other}'"));
    let before = server.databases();
    let daemon = daemon(&sandbox);
    let shop = sandbox.repo("shop");
    declare(&shop, server.port, "mode = \"schema\"");
    daemon.put(&shop.path);
    let store = sandbox.repo("store");
    declare(&store, server.port, "mode = \"database\"");
    daemon.put(&store.path);
    let one = store.add("one");
    let offsets = daemon.await_agreement(&store);
    assert_eq!((offsets.at(&store.path).offset, offsets.at(&one).offset), (10_000, 20_000));
    for path in [&shop.path, &store.path] {
        let said = until("it is said", || note(&sandbox, path), |note| !note.is_empty());
        assert!(said.contains("was not made by wtd for this worktree, so it is left alone"), "{said}");
    }
    until("the third is made", || server.databases().len(), |count| *count == before.len() + 1);
    assert_eq!(server.schemas("shop"), [("shop_0".to_owned(), String::new())]);
    let after: Vec<_> = server.databases().into_iter().filter(|(name, _)| name != "store-20000").collect();
    assert_eq!(after, before);
    // Theirs stays theirs, and keeps nobody's offset.
    store.remove(&one);
    shop.git(["worktree", "add", "-q", "../two"]);
    daemon.await_agreement(&shop);
}

#[test]
fn hostile_names_of_projects_and_branches_reach_no_sql() {
    let sandbox = Sandbox::new();
    let Some(server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    for (number, name) in
        ["a'; DROP DATABASE postgres; --", "pg_catalog\" CASCADE", "\u{1f600} \u{202e}x", "template1"]
            .into_iter()
            .enumerate()
    {
        let repo = sandbox.repo(name);
        declare(&repo, server.port, "mode = \"database\"");
        daemon.put(&repo.path);
        let branch = "x'\";$(id)--";
        let path = sandbox.path(format!("linked-{number}"));
        repo.add_at(&path, branch);
        daemon.await_agreement(&repo);
    }
    let names = || server.databases().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    let names = until("each has a database", names, |names| names.len() == 8);
    assert_eq!(
        names,
        [
            "a---drop-database-postgres-----0",
            "a---drop-database-postgres-----10000",
            "pg_catalog--cascade-20000",
            "pg_catalog--cascade-30000",
            "template1-1000",
            "template1-60000",
            "x-40000",
            "x-50000"
        ]
    );
    assert_eq!(server.sql("postgres", "SELECT count(*) FROM pg_database WHERE NOT datallowconn"), "1");
}

#[test]
fn a_password_is_found_as_libpq_finds_it_and_shown_nowhere() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nlog = \"trace\"\n");
    let secret = "s3cret-w0rd";
    fs::write(sandbox.path("password"), secret).unwrap();
    fs::set_permissions(sandbox.path("password"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let password_file = format!("--pwfile={}", sandbox.path("password").display());
    let Some(mut server) =
        Postgres::start_with(&sandbox, free_base(), &["--auth=scram-sha-256", &password_file])
    else {
        return;
    };
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"database\"");
    daemon.put(&repo.path);
    let said = until("it is said", || note(&sandbox, &repo.path), |note| !note.is_empty());
    assert!(said.contains("does not let the daemon in"), "{said}");

    let passwords = sandbox.path("home/.pgpass");
    fs::write(&passwords, format!("a:broken:line\nlocalhost:{}:*:postgres:{secret}\n", server.port)).unwrap();
    fs::set_permissions(&passwords, fs::Permissions::from_mode(0o600)).unwrap();
    let look = || {
        sandbox.client_in(&repo.path, ["env"]).ok();
        is_made(&sandbox, &repo.path)
    };
    until("it is made", look, |made| *made);
    server.password = Some(secret.to_owned());
    assert_eq!(server.databases().len(), 1);

    for file in ["state/wtd/registry.db", "state/wtd/registry.db-wal"] {
        let content = fs::read(sandbox.path(file)).unwrap_or_default();
        assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
    let arguments = fs::read_to_string(format!("/proc/{}/cmdline", daemon.pid())).unwrap();
    let shown = [
        sandbox.client(["list", "--json", "--all"]).ok(),
        sandbox.client(["doctor"]).text(),
        daemon.get("/v1/worktrees").ok().to_string(),
        arguments,
        daemon.log(),
    ];
    for text in shown {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_connection_url_counts_once_its_file_is_trusted_and_its_password_is_shown_nowhere() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nlog = \"trace\"\n");
    let secret = "s3cret-w0rd";
    fs::write(sandbox.path("password"), secret).unwrap();
    fs::set_permissions(sandbox.path("password"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let password_file = format!("--pwfile={}", sandbox.path("password").display());
    let arguments = ["--auth=scram-sha-256", &password_file];
    let Some(mut server) = Postgres::start_with(&sandbox, free_base(), &arguments) else { return };
    server.password = Some(secret.to_owned());
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    let url = format!("url = \"postgresql://postgres:{secret}@localhost\"");
    declare(&repo, server.port, &format!("mode = \"database\"\n{url}"));
    daemon.put(&repo.path);
    let said =
        until("it is said", || note(&sandbox, &repo.path), |note| note.contains("not let the daemon in"));
    assert!(said.contains("trust"), "{said}");
    let shown = sandbox.client_in(&repo.path, ["trust", "--show"]).ok();
    assert!(shown.contains("makes databases at localhost as postgres with a password"), "{shown}");
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    let look = || {
        sandbox.client_in(&repo.path, ["env"]).ok();
        is_made(&sandbox, &repo.path)
    };
    until("it is made", look, |made| *made);
    let one = repo.add("one");
    fs::copy(repo.path.join("wtd.toml"), one.join("wtd.toml")).unwrap();
    until("so is the next one's", || is_made(&sandbox, &one), |made| *made);
    repo.remove(&one);
    daemon.await_state(&one, "stale");
    sandbox.client(["gc", "-y"]).ok();
    assert_eq!(server.databases().len(), 1, "gc comes to the server by the same URL");
    for file in ["state/wtd/registry.db", "state/wtd/registry.db-wal"] {
        let content = fs::read(sandbox.path(file)).unwrap_or_default();
        assert!(!content.windows(secret.len()).any(|window| window == secret.as_bytes()), "{file}");
    }
    let env = sandbox.client_in(&repo.path, ["env"]).ok();
    let list = sandbox.client(["list", "--json", "--all"]).ok();
    for text in [shown, env, list, sandbox.client(["doctor"]).text(), daemon.log()] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[test]
fn a_server_that_crashes_while_it_copies_has_the_whole_copy_when_it_is_back() {
    let sandbox = Sandbox::new();
    let Some(mut server) = Postgres::start(&sandbox, free_base()) else { return };
    server.sql("postgres", "CREATE DATABASE big");
    server.sql("big", "CREATE TABLE filler AS SELECT n, repeat('x', 1000) FROM generate_series(1, 150000) n");
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"database\"\ntemplate = \"big\"");
    // Within one session: a look from outside could miss what takes a tenth of a second.
    let copying = "DO $$ BEGIN
            FOR look IN 1..20000 LOOP
                PERFORM pg_stat_clear_snapshot();
                IF EXISTS (SELECT FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'CREATE DATABASE %') THEN
                    RETURN;
                END IF;
                PERFORM pg_sleep(0.001);
            END LOOP;
            RAISE 'nothing is copied';
        END $$";
    std::thread::scope(|scope| {
        let seen = scope.spawn(|| server.sql("postgres", copying));
        let looking = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE 'DO %'";
        until("somebody looks", || server.sql("postgres", looking), |count| count == "1");
        daemon.put(&repo.path);
        seen.join().unwrap();
    });
    server.crash();
    server.start_again();
    let look = || {
        sandbox.client_in(&repo.path, ["env"]).ok();
        is_made(&sandbox, &repo.path)
    };
    until("it is made", look, |made| *made);
    assert_eq!(server.sql("shop-0", "SELECT count(*) FROM filler"), "150000");
    assert_eq!(server.databases().len(), 2, "{:#?}", server.databases());
}

#[test]
fn while_its_database_exists_or_cannot_be_asked_for_a_worktree_keeps_its_offset() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let Some(mut server) = Postgres::start(&sandbox, free_base()) else { return };
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, server.port, "mode = \"database\"");
    daemon.put(&repo.path);
    let one = repo.add("one");
    until("it is made", || is_made(&sandbox, &one), |made| *made);
    let refused = sandbox.client_in(&one, ["reassign"]).fails(1);
    assert!(refused.contains("the database shop-10000") && refused.contains("--force"), "{refused}");
    server.stop();
    let refused = sandbox.client_in(&one, ["reassign"]).fails(1);
    assert!(refused.contains("no PostgreSQL answers"), "{refused}");

    // Removed, it is stale as long as the server can't say that nothing is left, and as long as it says that something is.
    repo.remove(&one);
    daemon.await_state(&one, "stale");
    server.start_again();
    let two = repo.add("two");
    until("it is made", || is_made(&sandbox, &two), |made| *made);
    let rows = sandbox.list_all();
    assert_eq!(rows.at(&two).offset, 20_000);
    assert!(rows.iter().any(|row| row.exact_path() == one && row.is("stale")), "{rows:#?}");
    server.sql("postgres", "DROP DATABASE \"shop-10000\"");
    daemon.await_state(&one, "released");
    let three = repo.add("three");
    assert_eq!(daemon.await_agreement(&repo).at(&three).offset, 10_000);
    until("it is made", || is_made(&sandbox, &three), |made| *made);
}

#[test]
fn a_server_that_was_made_anew_gets_what_worktrees_had_on_the_old_one() {
    let sandbox = Sandbox::new();
    let base = free_base();
    let Some(old) = Postgres::start(&sandbox, base) else { return };
    let daemon = daemon(&sandbox);
    let repo = sandbox.repo("shop");
    declare(&repo, base, "mode = \"database\"");
    daemon.put(&repo.path);
    until("it is made", || is_made(&sandbox, &repo.path), |made| *made);
    drop(old);
    fs::remove_dir_all(sandbox.path(format!("data-{base}"))).unwrap();
    let new = Postgres::start(&sandbox, base).unwrap();
    let look = || {
        sandbox.client(["doctor"]).text();
        new.databases()
    };
    until("whoever looks has it made again", look, |all| all.len() == 1);
}

/// Who goes away in the middle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    Connection,
    Daemon,
    Server,
}

/// Makes one worktree's database or schema after the other, each interrupted one message later than the one before, until
/// one is made before its turn comes.
fn interrupt_at_each_message(server: &mut Postgres<'_>, sandbox: &Sandbox, database: &str, gone: Gone) {
    let port = server.port - 10_000;
    let cutter = Cutter::start(port, server.port);
    server.sql("postgres", "CREATE DATABASE shop");
    let mut running = Some(daemon(sandbox));
    let repo = sandbox.repo("shop");
    declare(&repo, port, database);
    running.as_ref().unwrap().put(&repo.path);
    until("the main worktree has its own", || is_made(sandbox, &repo.path), |made| *made);
    // A request that is lost leaves the server as the reply before it did: one of both is enough, where each takes long.
    let cuts = match gone {
        Gone::Connection => &[Cut::Request, Cut::Reply][..],
        Gone::Daemon => &[Cut::Reply],
        Gone::Server => &[Cut::Request],
    };
    let mut interrupted = 0;
    for (number, cut) in (0..60).flat_map(|number| cuts.iter().map(move |cut| (number, *cut))) {
        let at = format!("message {number}, {cut:?}, {gone:?}");
        cutter.await_silence();
        cutter.arm(number, cut, gone == Gone::Daemon);
        let path = repo.add(&format!("{number}-{cut:?}"));
        until(&at, || !cutter.is_armed() || is_made(sandbox, &path), |is_so| *is_so);
        let was_interrupted = !cutter.is_armed();
        cutter.disarm();
        if was_interrupted && gone == Gone::Daemon {
            running.take().unwrap().kill9();
            running = Some(daemon(sandbox));
        } else if was_interrupted && gone == Gone::Server {
            server.crash();
            server.start_again();
            sandbox.client_in(&path, ["env"]).ok();
        }
        until(&at, || is_made(sandbox, &path), |made| *made);
        let id = sandbox.list().at(&path).id.clone();
        let mut all = server.databases();
        all.extend(server.schemas("shop"));
        let ours: Vec<_> =
            all.iter().filter(|(_, comment)| *comment == format!("wtd allocation {id}")).collect();
        assert_eq!(ours.len(), 1, "{at}: {all:#?}");
        assert!(
            all.iter().all(|(name, _)| !name.starts_with("wtd_")),
            "nothing is half-made, {at}: {all:#?}"
        );
        interrupted += usize::from(was_interrupted);
        if !was_interrupted {
            break;
        }
    }
    assert!(interrupted >= 7 * cuts.len(), "a conversation has more than {interrupted} messages");
    assert!(interrupted < 60 * cuts.len(), "the last one was not interrupted");
}

/// Whether the registry has it that what the worktree at `path` is to have is made.
pub(crate) fn is_made(sandbox: &Sandbox, path: &Path) -> bool {
    sandbox.list().find(path).is_some_and(|row| row.database_made == Some(true))
}

/// A server whose port is 10000 above that of a proxy.
fn behind_a_proxy(sandbox: &Sandbox) -> Option<Postgres<'_>> {
    Postgres::start(sandbox, free_base() + 10_000)
}

#[test]
fn a_connection_that_breaks_at_any_message_leaves_no_schema_half_made() {
    let sandbox = Sandbox::new();
    let Some(mut server) = behind_a_proxy(&sandbox) else { return };
    interrupt_at_each_message(&mut server, &sandbox, "mode = \"schema\"", Gone::Connection);
}

#[test]
fn a_connection_that_breaks_at_any_message_leaves_no_database_half_made() {
    let sandbox = Sandbox::new();
    let Some(mut server) = behind_a_proxy(&sandbox) else { return };
    interrupt_at_each_message(&mut server, &sandbox, "mode = \"database\"", Gone::Connection);
}

#[test]
fn a_daemon_that_is_killed_at_any_message_finishes_its_database_when_it_is_back() {
    let sandbox = Sandbox::new();
    let Some(mut server) = behind_a_proxy(&sandbox) else { return };
    interrupt_at_each_message(&mut server, &sandbox, "mode = \"database\"", Gone::Daemon);
}

#[test]
fn a_server_that_crashes_at_any_message_has_the_whole_database_when_it_is_back() {
    let sandbox = Sandbox::new();
    let Some(mut server) = behind_a_proxy(&sandbox) else { return };
    let template = "mode = \"database\"\ntemplate = \"shop\"";
    interrupt_at_each_message(&mut server, &sandbox, template, Gone::Server);
}
