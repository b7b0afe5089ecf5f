//! The example project, as a user starts it: on a real engine, in three worktrees at once.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::gc::{Line, await_look, is_free};
use crate::harness::services::{Services, services};
use crate::harness::{Daemon, Ran, Repo, Sandbox, require};

/// The base ports of the example's services.
const BASES: [u16; 4] = [5432, 6379, 8003, 3000];

/// The example, in a repository of its own with two linked worktrees.
struct Example<'s> {
    services: &'s Services,
    sandbox: &'s Sandbox,
    daemon: &'s Daemon<'s>,
    repo: Repo<'s>,
    /// Each worktree with its offset.
    worktrees: Vec<(PathBuf, u16)>,
}

impl<'s> Example<'s> {
    /// `change`: what is done to the files before they are committed.
    #[track_caller]
    fn new(
        services: &'s Services,
        sandbox: &'s Sandbox,
        daemon: &'s Daemon<'s>,
        change: impl FnOnce(&Path),
    ) -> Self {
        let repo = sandbox.repo("agents");
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/agents/.");
        Ran::of(sandbox.command("cp").arg("-r").arg(files).arg(&repo.path)).ok();
        change(&repo.path);
        repo.git(["add", "--all"]);
        repo.git(["commit", "-q", "-m", "Begin"]);
        let mut example = Self { services, sandbox, daemon, repo, worktrees: Vec::new() };
        example.know(&example.repo.path.clone());
        example.add("search");
        example.add("billing");
        example
    }

    /// `git worktree add`; gives the path.
    #[track_caller]
    fn add(&mut self, name: &str) -> PathBuf {
        let path = self.repo.add(name);
        self.know(&path);
        path
    }

    #[track_caller]
    fn know(&mut self, path: &Path) {
        let allocation = self.daemon.put(path);
        await_look(self.sandbox, allocation["id"].as_str().unwrap());
        let offset = allocation["offset"].as_u64().unwrap().try_into().unwrap();
        self.worktrees.push((path.to_owned(), offset));
    }

    fn paths(&self) -> Vec<&PathBuf> {
        self.worktrees.iter().map(|(path, _)| path).collect()
    }

    #[track_caller]
    fn names(&self, path: &Path) -> String {
        let (_, offset) = self.worktrees.iter().find(|(it, _)| it == path).unwrap();
        self.services.sql(self.sandbox, 5432 + offset, &self.database(path), "SELECT name FROM agents")
    }

    /// The database as the worktree's own container has it.
    #[track_caller]
    fn database(&self, path: &Path) -> String {
        let words = ["exec", "--", "docker", "compose", "exec", "-T", "db", "printenv", "POSTGRES_DB"];
        let mut client = self.services.inside(self.sandbox, Sandbox::program("wtd-client"));
        Ran::of(client.args(words).current_dir(path)).ok().trim_end().to_owned()
    }

    /// Every worktree's stack is up, on ports of its own, and a row that is written in one is in no other.
    #[track_caller]
    fn is_side_by_side(&self) {
        let expected: BTreeMap<PathBuf, BTreeSet<u16>> = self
            .worktrees
            .iter()
            .map(|(path, offset)| (path.clone(), BASES.iter().map(|base| base + offset).collect()))
            .collect();
        assert_eq!(self.services.published(), expected);
        for (path, offset) in &self.worktrees {
            let insert = format!("INSERT INTO agents (name) VALUES ('of {offset}')");
            self.services.sql(self.sandbox, 5432 + offset, &self.database(path), &insert);
        }
        for (path, offset) in &self.worktrees {
            assert_eq!(self.names(path), format!("of {offset}"));
            let says = |base: u16, request: &str| self.services.says(self.sandbox, base + offset, request);
            let api = says(8003, "GET / HTTP/1.0\r\n\r\n");
            assert!(api.ends_with(&format!("{{\"database\": \"{}\"}}", self.database(path))), "{api}");
            let ui = says(3000, "GET / HTTP/1.0\r\n\r\n");
            assert!(ui.ends_with("<h1>Agents</h1>\n"), "{ui}");
            assert_eq!(says(6379, "PING\r\nQUIT\r\n"), "+PONG\r\n+OK\r\n");
        }
        self.daemon.await_agreement(&self.repo);
    }

    #[track_caller]
    fn gc(&self, arguments: &[&str]) -> Vec<Line> {
        serde_json::from_str(&self.sandbox.client(["gc", "--json"].iter().chain(arguments)).ok()).unwrap()
    }
}

/// Volumes of a worktree of the example.
fn volumes_of(offset: u16) -> BTreeSet<String> {
    [format!("db_data_{offset}"), format!("redis_data_{offset}")].into()
}

#[test]
fn the_example_is_up_in_three_worktrees_and_what_a_removed_one_leaves_is_dropped() {
    let Some(services) = services() else { return };
    if !require::program("make") || !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let mut example = Example::new(&services, &sandbox, &daemon, |_| {});
    let offsets: Vec<u16> = example.worktrees.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets, [0, 10_000, 20_000]);
    services.all(&sandbox, &example.paths(), &["make", "up"]);
    example.is_side_by_side();
    let all: BTreeSet<String> = [0, 10_000, 20_000].into_iter().flat_map(volumes_of).collect();
    assert_eq!(services.volumes(), all);

    let (path, offset) = example.worktrees.remove(1);
    services.all(&sandbox, &[&path], &["make", "down"]);
    example.repo.remove(&path);
    let plan = example.gc(&["--dry-run"]);
    let names: BTreeSet<String> = plan.iter().map(|line| line.name.clone()).collect();
    assert_eq!(names, volumes_of(offset), "{plan:#?}");
    assert!(plan.iter().all(|line| line.action == "drop" && !line.done), "{plan:#?}");
    assert_eq!(services.volumes(), all, "a dry run drops nothing");
    assert!(example.gc(&["-y"]).iter().all(|line| line.done));
    assert_eq!(services.volumes(), all.difference(&volumes_of(offset)).cloned().collect());
    assert!(is_free(&sandbox, &path));
    example
        .worktrees
        .iter()
        .for_each(|(path, offset)| assert_eq!(example.names(path), format!("of {offset}")));

    let next = example.add("next");
    assert_eq!(example.worktrees.last(), Some(&(next.clone(), offset)), "the next worktree gets it");
    services.all(&sandbox, &[&next], &["make", "up"]);
    assert_eq!(example.names(&next), "", "an empty database");
    services.all(&sandbox, &example.paths(), &["make", "down"]);
}

/// What the example's Compose file says at offset 0, written as who never heard of wtd writes it.
fn without_variables(root: &Path) {
    let file = root.join("compose.yaml");
    let text = fs::read_to_string(&file).unwrap();
    let text = [
        ("${POSTGRES_DB:?run it through make, or under wtd-client exec}", "agents"),
        ("${POSTGRES_DB:?}", "agents"),
        ("${POSTGRES_DB}", "agents"),
        ("127.0.0.1:${DB_HOST_PORT:?}:", "5432:"),
        ("127.0.0.1:${REDIS_PORT:?}:", "6379:"),
        ("${API_PORT:?}", "8003"),
        ("${UI_PORT:?}", "3000"),
        ("    name: ${DB_VOLUME:?}\n", ""),
        ("    name: ${REDIS_VOLUME:?}\n", ""),
    ]
    .iter()
    .fold(text, |text, (variable, value)| {
        assert!(text.contains(variable), "{variable}");
        text.replace(variable, value)
    });
    fs::write(file, text).unwrap();
    for name in ["wtd.toml", "Makefile"] {
        fs::remove_file(root.join(name)).unwrap();
    }
}

#[test]
fn a_compose_file_without_variables_is_up_in_three_worktrees() {
    let Some(services) = services() else { return };
    if !require::program("psql") {
        return;
    }
    let sandbox = services.sandbox();
    let daemon = services.daemon(&sandbox);
    let example = Example::new(&services, &sandbox, &daemon, without_variables);
    let client = Sandbox::program("wtd-client");
    let client = client.to_str().unwrap();
    for path in example.paths() {
        services.all(&sandbox, &[path], &[client, "compose", "--write"]);
    }
    let compose = |words: &[&str]| {
        let words = [&[client, "exec", "--", "docker", "compose"], words].concat();
        services.all(&sandbox, &example.paths(), &words);
    };
    compose(&["up", "--detach", "--wait"]);
    example.is_side_by_side();
    assert_eq!(services.volumes().len(), 6, "{:?}", services.volumes());
    assert_eq!(example.repo.git(["status", "--porcelain"]), "");
    compose(&["down"]);
}
