//! `seed` on a real engine: a worktree begins with a copy of another's data, or with nothing at all.

mod pauses;

use std::fs;
use std::io::Write as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::Value;

use crate::harness::engine_proxy::{EngineProxy, Fault};
use crate::harness::services::{Services, services};
use crate::harness::{Daemon, Ran, Repo, Sandbox, require, until};

const COMPOSE: &str = r#"
services:
  db:
    image: postgres:17
    command: [COMMAND]
    environment:
      POSTGRES_USER: agents
      POSTGRES_PASSWORD: agents
      POSTGRES_DB: ${POSTGRES_DB:?}
    ports: ["${DB_HOST_PORT:?}:5432"]
    volumes: ["data:/var/lib/postgresql/data"]
    healthcheck:
      test: ["CMD", "pg_isready", "--host=127.0.0.1", "--username=agents", "--dbname=${POSTGRES_DB}"]
      interval: 1s
      retries: 60
  queue:
    image: redis:7.4-alpine
    volumes: ["queue:/data"]
volumes:
  data: { name: "${DB_VOLUME:?}" }
  queue: { name: "${REDIS_VOLUME:?}" }
"#;

/// Settings of a server that starts quickly.
const QUICK: &str = "\"-c\", \"fsync=off\"";

/// Settings of a server that lets nobody replicate.
const NO_REPLICATION: &str = "\"-c\", \"max_wal_senders=0\", \"-c\", \"wal_level=minimal\"";

/// A repository whose main worktree's database runs, and has a table with 1000 rows.
struct Shop<'s> {
    services: &'s Services,
    sandbox: &'s Sandbox,
    repo: Repo<'s>,
}

impl<'s> Shop<'s> {
    /// `settings`: the server's, as a Compose file has them. `toml`: what stands in `wtd.toml` beside the further volume.
    #[track_caller]
    fn new(
        services: &'s Services,
        sandbox: &'s Sandbox,
        daemon: &Daemon<'_>,
        settings: &str,
        toml: &str,
    ) -> Self {
        let repo = sandbox.repo("shop");
        fs::write(repo.path.join("compose.yaml"), COMPOSE.replace("COMMAND", settings)).unwrap();
        let toml = format!("[volumes]\nREDIS_VOLUME = \"redis_data\"\n{toml}");
        fs::write(repo.path.join("wtd.toml"), toml).unwrap();
        repo.git(["add", "--all"]);
        repo.git(["commit", "-q", "-m", "second"]);
        daemon.put(&repo.path);
        let shop = Self { services, sandbox, repo };
        shop.compose(&shop.repo.path, &["up", "--detach", "--wait"]);
        shop.sql(
            0,
            "CREATE TABLE stock AS SELECT g AS id, repeat('x', 100) AS what FROM generate_series(1, 1000) g",
        );
        shop.sql(0, "CREATE INDEX ON stock (id)");
        shop
    }

    /// A worktree with its allocation's id.
    #[track_caller]
    fn add(&self, daemon: &Daemon<'_>, name: &str) -> (PathBuf, String) {
        let path = self.repo.add(name);
        let allocation = daemon.put(&path);
        crate::gc::await_look(self.sandbox, allocation["id"].as_str().unwrap());
        (path, allocation["id"].as_str().unwrap().to_owned())
    }

    /// Compose under the worktree's variables; gives what it says.
    #[track_caller]
    fn compose(&self, worktree: &Path, words: &[&str]) -> String {
        let mut client = self.services.inside(self.sandbox, Sandbox::program("wtd-client"));
        client.args(["exec", "--", "docker", "compose"]).args(words).current_dir(worktree);
        let ran = Ran::of(&mut client);
        ran.ok();
        ran.stderr
    }

    #[track_caller]
    fn sql(&self, offset: u16, sql: &str) -> String {
        self.services.sql(self.sandbox, 5432 + offset, &format!("shop-{offset}"), sql)
    }

    fn seed_command(&self, worktree: &Path, words: &[&str]) -> Command {
        let mut client = self.services.inside(self.sandbox, Sandbox::program("wtd-client"));
        client.arg("seed").args(words).current_dir(worktree);
        client
    }

    fn seed(&self, worktree: &Path, words: &[&str]) -> Ran {
        Ran::of(&mut self.seed_command(worktree, words))
    }

    /// The containers that copy, each with its state.
    fn helpers(&self) -> Vec<(String, String)> {
        let all = self.services.done("GET", "/containers/json?all=1", None).json();
        let helpers = all.as_array().unwrap().iter().filter(|it| !it["Labels"]["dev.wtd.helper"].is_null());
        let word = |value: &Value| value.as_str().unwrap().to_owned();
        helpers.map(|it| (word(&it["Id"]), word(&it["State"]))).collect()
    }

    /// Whether the source's server is halted.
    fn is_paused(&self) -> bool {
        let state = self.services.done("GET", "/containers/shop-db-1/json", None).json();
        state["State"]["Paused"].as_bool().unwrap()
    }

    /// Begins to seed, and halts the copying program while it is at it.
    #[track_caller]
    fn seed_until_half(&self, worktree: &Path, words: &[&str]) -> Child {
        let mut client = self.seed_command(worktree, words);
        let child = client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        let halt = || {
            let running = self.helpers().into_iter().find(|(_, state)| state == "running");
            let Some((id, _)) = running else { return false };
            self.services.ask("POST", &format!("/containers/{id}/pause"), None).status == 204
        };
        until("the copying program is halted", halt, |is_halted| *is_halted);
        assert!(self.services.volumes().contains("db_data_10000"));
        child
    }

    /// Nothing is left of a copy, and nothing is halted.
    #[track_caller]
    fn awaits_nothing_half_made(&self) {
        let look = || (self.services.volumes().contains("db_data_10000"), self.helpers(), self.is_paused());
        until("nothing half made is left", look, |(is_there, helpers, is_paused)| {
            !is_there && helpers.is_empty() && !is_paused
        });
        self.sql(0, "INSERT INTO stock VALUES (0, 'the source goes on')");
    }
}

/// What a person has put into a volume of theirs.
fn put_mine(services: &Services, volume: &str) -> PathBuf {
    let mine = services.content(volume).join("mine");
    fs::write(&mine, "a day's work").unwrap();
    mine
}

/// Writes to the source as long as it lives.
struct Writer(Child);

impl Writer {
    fn new(shop: &Shop<'_>) -> Self {
        shop.sql(0, "CREATE TABLE written (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz DEFAULT now())");
        let mut docker = shop.services.inside(shop.sandbox, "docker");
        docker.args(["exec", "-i", "shop-db-1", "psql", "-X", "-q", "-U", "agents", "-d", "shop-0"]);
        let mut child = docker.stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        // Until psql is gone.
        std::thread::spawn(
            move || while stdin.write_all(b"INSERT INTO written DEFAULT VALUES;\n").is_ok() {},
        );
        Self(child)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn a_worktree_is_seeded_from_a_database_that_is_being_written_to() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, QUICK, "");
    // For who wants to know how long a larger one takes.
    let megabytes: u32 = std::env::var("WTD_TEST_SEED_MB").map_or(0, |text| text.parse().unwrap());
    if megabytes > 0 {
        let rows = megabytes * 6200;
        shop.sql(0, &format!("CREATE TABLE filler AS SELECT g AS id, gen_random_uuid() AS a, md5(g::text) || md5(random()::text) AS b FROM generate_series(1, {rows}) g"));
        shop.sql(0, "CREATE INDEX ON filler (a); CREATE INDEX ON filler (id)");
    }
    let (path, id) = shop.add(&daemon, "search");
    let writer = Writer::new(&shop);
    let count = |offset| shop.sql(offset, "SELECT count(*) FROM written").parse::<u64>().unwrap();
    let before = until("rows are being written", || count(0), |count| *count > 100);
    let begun = Instant::now();
    let said = shop.seed(&path, &[]).quiet();
    if megabytes > 0 {
        let size = shop.sql(0, "SELECT pg_size_pretty(sum(pg_database_size(oid))) FROM pg_database");
        eprintln!("{size} seeded in {:.1?}: {said}", begun.elapsed());
    }
    let after = count(0);
    drop(writer);
    assert!(said.starts_with("db_data_10000 is a copy of db_data_0 ("), "{said}");
    assert!(said.ends_with("made while its server ran.\n"), "{said}");
    assert!(after > before, "the source was written to all the time");
    assert_eq!(services.inspect("db_data_10000").unwrap()["Labels"]["dev.wtd.allocation"], *id);
    assert!(!services.volumes().contains("redis_data_10000"), "only the database without --all");
    assert_eq!(shop.helpers(), []);

    let told = shop.compose(&path, &["up", "--detach", "--wait"]);
    assert!(!told.contains("already exists"), "Compose takes the volume for its own: {told}");
    assert_eq!(shop.sql(10_000, "SELECT count(*) FROM stock"), "1000");
    let copied = count(10_000);
    assert!((before..=after).contains(&copied), "{before} {copied} {after}");
    let container = "shop-10000-db-1";
    let words = [
        "exec",
        container,
        "pg_amcheck",
        "--username=agents",
        "--all",
        "--install-missing",
        "--heapallindexed",
    ];
    let mut amcheck = services.inside(&sandbox, "docker");
    Ran::of(amcheck.args(words).args(["--parent-check", "--rootdescend"])).quiet();
    // What is written from now on is each one's own.
    shop.sql(10_000, "DELETE FROM stock");
    assert_eq!(shop.sql(0, "SELECT count(*) FROM stock"), "1000");

    let refused = shop.seed(&path, &[]).fails(1);
    assert!(
        refused.contains("db_data_10000 is used by shop-10000-db-1") && refused.contains("compose down"),
        "{refused}"
    );
    shop.compose(&path, &["down"]);
    let refused = shop.seed(&path, &[]).fails(1);
    assert!(refused.contains("db_data_10000 is not empty"), "{refused}");
    assert_eq!(shop.helpers(), []);

    shop.repo.remove(&path);
    let dropped: Value = serde_json::from_str(&sandbox.client(["gc", "-y", "--json"]).ok()).unwrap();
    assert_eq!(dropped[0]["name"], "db_data_10000", "{dropped:#}");
    assert!(!services.volumes().contains("db_data_10000"));
}

#[test]
fn an_interrupted_copy_leaves_nothing() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let mut daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, QUICK, "");
    let (path, _) = shop.add(&daemon, "search");

    let mut client = shop.seed_until_half(&path, &[]);
    client.kill().unwrap();
    client.wait().unwrap();
    shop.awaits_nothing_half_made();

    let client = shop.seed_until_half(&path, &[]);
    daemon.kill9();
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(1), "{told}");
    assert!(told.contains("the daemon went away before the copy had ended"), "{told}");
    assert!(services.volumes().contains("db_data_10000"), "half filled");
    daemon = services.daemon(&sandbox);
    shop.awaits_nothing_half_made();

    let mut client = shop.seed_until_half(&path, &[]);
    daemon.terminate();
    assert!(
        !services.volumes().contains("db_data_10000"),
        "a daemon that ends in order leaves nothing for the next one"
    );
    assert_eq!(shop.helpers(), []);
    client.wait().unwrap();
    let _daemon = services.daemon(&sandbox);

    // As often as one likes, and into a volume that is there and empty.
    services.volume("db_data_10000", &[("mine", "kept")]);
    shop.seed(&path, &[]).quiet();
    assert_eq!(services.inspect("db_data_10000").unwrap()["Labels"]["mine"], "kept");
    shop.compose(&path, &["up", "--detach", "--wait"]);
    assert_eq!(shop.sql(10_000, "SELECT count(*) FROM stock"), "1002");
}

#[test]
fn a_half_filled_volume_that_somebody_has_used_since_is_never_removed() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, QUICK, "");
    let (path, _) = shop.add(&daemon, "search");

    // Somebody starts a stack on it while no daemon runs, works, and takes it down again.
    let client = shop.seed_until_half(&path, &[]);
    daemon.kill9();
    client.wait_with_output().unwrap();
    services.run("theirs", &["db_data_10000"], &[]);
    let mine = put_mine(&services, "db_data_10000");
    services.remove("theirs");
    let daemon = services.daemon(&sandbox);
    let said = until("the copy is given up", || daemon.log(), |log| log.contains("left as it is"));
    assert!(said.contains("theirs has begun to use it"), "{said}");
    let refused = shop.seed(&path, &[]).fails(1);
    assert!(
        refused.contains("db_data_10000 is not empty") && refused.contains("was interrupted"),
        "{refused}"
    );
    assert!(mine.exists());
    assert_eq!(shop.helpers(), []);
    services.remove_volume("db_data_10000");

    // Somebody's stack is on it while a daemon looks: it is theirs from then on.
    let client = shop.seed_until_half(&path, &[]);
    services.run("theirs", &["db_data_10000"], &[]);
    let mine = put_mine(&services, "db_data_10000");
    for (id, _) in shop.helpers() {
        services.done("POST", &format!("/containers/{id}/unpause"), None);
    }
    let told = String::from_utf8(client.wait_with_output().unwrap().stderr).unwrap();
    assert!(told.contains("theirs has begun to use it") && told.contains("docker volume rm"), "{told}");
    services.remove("theirs");
    daemon.terminate();
    let _daemon = services.daemon(&sandbox);
    shop.seed(&path, &[]).fails(1);
    assert!(mine.exists());
}

#[test]
fn a_volume_that_was_empty_when_a_copy_began_is_looked_at_again_when_its_turn_comes() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, QUICK, "");
    let (path, _) = shop.add(&daemon, "search");
    services.volume("redis_data_10000", &[]);
    let client = shop.seed_until_half(&path, &["--all"]);
    let mine = put_mine(&services, "redis_data_10000");
    for (id, _) in shop.helpers() {
        services.done("POST", &format!("/containers/{id}/unpause"), None);
    }
    let ended = client.wait_with_output().unwrap();
    let told = String::from_utf8(ended.stderr).unwrap();
    assert!(ended.status.code() == Some(1) && told.contains("redis_data_10000 is not empty"), "{told}");
    assert!(mine.exists());
    assert_eq!(shop.helpers(), []);
}

/// Begins to seed, which nobody watches.
fn begin(shop: &Shop<'_>, worktree: &Path) -> Child {
    let mut client = shop.seed_command(worktree, &[]);
    client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs a test with a worktree that can be seeded from a server with these settings, by way of a proxy of the engine.
fn on_a_shop(settings: &str, test: impl for<'s> FnOnce(&EngineProxy, &Shop<'s>, Daemon<'s>, &Path)) {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let proxy = EngineProxy::start(services.socket());
    let sandbox = Sandbox::with_config(&format!("engine = \"{}\"\n", proxy.host()));
    let daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, settings, "");
    let (path, _) = shop.add(&daemon, "search");
    test(&proxy, &shop, daemon, &path);
}

#[test]
fn a_person_who_goes_away_while_a_volume_is_looked_into_is_in_nobodys_way() {
    on_a_shop(QUICK, |proxy, shop, _daemon, path| {
        shop.services.volume("db_data_10000", &[]);
        proxy.arm_at(Fault::KillBefore, "DELETE", 0, 0);
        let mut client = begin(shop, path);
        proxy.aim(client.id());
        assert_eq!(client.wait().unwrap().signal(), Some(9));
        assert!(proxy.disarm());
        shop.seed(path, &[]).quiet();
        assert_eq!(shop.helpers(), []);
    });
}

#[test]
fn what_can_not_be_copied_while_it_runs_is_paused_and_goes_on() {
    on_a_shop(NO_REPLICATION, |proxy, shop, daemon, path| {
        let refused = shop.seed(path, &["--no-pause"]).fails(1);
        assert!(refused.contains("pg_basebackup can't copy volume db_data_0"), "{refused}");
        shop.awaits_nothing_half_made();

        // The daemon dies with the source halted; held is the archive that is unpacked into the copy.
        proxy.arm_at(Fault::Hold, "PUT", 2, 0);
        let client = begin(shop, path);
        proxy.await_held();
        daemon.kill9();
        proxy.let_pass();
        client.wait_with_output().unwrap();
        assert!(shop.is_paused());
        let _daemon = shop.services.daemon(shop.sandbox);
        shop.awaits_nothing_half_made();

        let redis = |words: &[&str], project: &str| {
            let name = format!("{project}-queue-1");
            let words = [&["exec", &name, "redis-cli"], words].concat();
            Ran::of(shop.services.inside(shop.sandbox, "docker").args(words)).ok()
        };
        redis(&["set", "job", "done"], "shop");
        redis(&["save"], "shop");
        let seeded = shop.seed(path, &["--all"]);
        let said = seeded.ok();
        for (service, volume) in [("db", "db_data_0"), ("queue", "redis_data_0")] {
            let line =
                format!("wtd-client: seed: shop-{service}-1 is paused while volume {volume} is copied\n");
            assert!(seeded.stderr.contains(&line), "{seeded:#?}");
            assert!(
                seeded.stderr.contains(&format!("wtd-client: seed: shop-{service}-1 goes on\n")),
                "{seeded:#?}"
            );
        }
        assert!(said.contains("redis_data_10000 is a copy of redis_data_0"), "{said}");
        assert!(!shop.is_paused());
        shop.compose(path, &["up", "--detach", "--wait"]);
        assert_eq!(shop.sql(10_000, "SELECT count(*) FROM stock"), "1002");
        assert_eq!(redis(&["get", "job"], "shop-10000"), "done\n");
        assert_eq!(shop.sql(0, "SELECT count(*) FROM stock"), "1002");
    });
}

#[test]
fn a_trusted_configuration_has_new_worktrees_seeded() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let shop = Shop::new(&services, &sandbox, &daemon, QUICK, "[database]\nseed = \"main\"\n");
    let (before, _) = shop.add(&daemon, "before");
    assert_eq!(sandbox.offset(&before), 10_000);
    let shown = sandbox.client_in(&shop.repo.path, ["trust", "--show"]).ok();
    assert!(shown.contains("seed"), "{shown}");
    Ran::of(sandbox.client_command(["trust", "--yes"]).current_dir(&shop.repo.path)).ok();
    let after = shop.repo.add("after");
    until("the worktree is seeded", || daemon.log(), |log| log.contains("worktree seeded"));
    assert!(!services.volumes().contains("db_data_10000"), "nothing was made before it was trusted");
    shop.compose(&after, &["up", "--detach", "--wait"]);
    assert_eq!(shop.sql(20_000, "SELECT count(*) FROM stock"), "1000");
}
