//! `gc` on a real engine: what removed worktrees left is dropped, and nothing else.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::harness::engine::{self, Engine};
use crate::harness::{Daemon, Ran, Repo, Sandbox, require, until};

/// One line of `gc --json`, as the contract has it.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Line {
    pub(crate) path: String,
    pub(crate) offset: u16,
    pub(crate) kind: String,
    pub(crate) name: String,
    pub(crate) action: String,
    pub(crate) reason: String,
    pub(crate) done: bool,
}

/// A repository whose worktrees' volumes are `<stem>_<offset>`, with a stem that no other test on the engine has.
pub(crate) struct Scene<'s> {
    pub(crate) sandbox: &'s Sandbox,
    pub(crate) engine: &'s Engine,
    pub(crate) repo: Repo<'s>,
    pub(crate) stem: String,
}

/// A sandbox whose daemon uses the engine at this address.
pub(crate) fn sandbox(host: &str) -> Sandbox {
    Sandbox::with_config(&format!("engine = \"{host}\"\nprobe = false\n"))
}

impl<'s> Scene<'s> {
    pub(crate) fn new(sandbox: &'s Sandbox, engine: &'s Engine) -> Self {
        // The sandbox's directory is nobody else's.
        let name = sandbox.root().file_name().unwrap().to_str().unwrap().to_lowercase();
        let stem: String = name.chars().filter(char::is_ascii_alphanumeric).collect();
        let repo = sandbox.repo(&stem);
        std::fs::write(repo.path.join("wtd.toml"), format!("[database]\nvolume = \"{stem}\"\n")).unwrap();
        Self { sandbox, engine, repo, stem }
    }

    /// As [`Scene::new`], with a daemon that knows the repository.
    pub(crate) fn with_daemon(sandbox: &'s Sandbox, engine: &'s Engine) -> (Self, Daemon<'s>) {
        let scene = Self::new(sandbox, engine);
        let daemon = sandbox.daemon();
        daemon.put(&scene.repo.path);
        (scene, daemon)
    }

    /// The volume of the worktree with this offset.
    pub(crate) fn volume(&self, offset: u16) -> String {
        format!("{}_{offset}", self.stem)
    }

    /// The Compose project of the worktree with this offset.
    pub(crate) fn project(&self, offset: u16) -> String {
        format!("{}-{offset}", self.stem)
    }

    /// A worktree, once the daemon has seen the engine with it.
    pub(crate) fn add(&self, daemon: &Daemon<'_>, name: &str) -> (PathBuf, u16) {
        let path = self.repo.add(name);
        let allocation = daemon.put(&path);
        await_look(self.sandbox, allocation["id"].as_str().unwrap());
        (path, allocation["offset"].as_u64().unwrap().try_into().unwrap())
    }

    /// The volumes of this scene that the engine has.
    pub(crate) fn volumes(&self) -> Vec<String> {
        let mine = format!("{}_", self.stem);
        let project = format!("{}-", self.stem);
        let all = self.engine.volumes().into_iter();
        all.filter(|name| name.starts_with(&mine) || name.starts_with(&project)).collect()
    }

    /// What `gc` with these arguments shows or does, as JSON.
    #[track_caller]
    pub(crate) fn gc(&self, arguments: &[&str]) -> Vec<Line> {
        let ran = self.sandbox.client(["gc", "--json"].iter().chain(arguments));
        serde_json::from_str(&ran.ok()).unwrap()
    }

    /// Why the one volume of the plan is kept.
    #[track_caller]
    pub(crate) fn kept(&self, arguments: &[&str]) -> String {
        let lines = self.gc(&[&["-y"], arguments].concat());
        let [line] = lines.as_slice() else { panic!("{lines:#?}") };
        assert!(line.action == "keep" && !line.done, "{line:#?}");
        assert!(self.engine.inspect(&line.name).is_some(), "{line:#?}");
        line.reason.clone()
    }
}

/// What is shown on a scene with one worktree, at this path with this offset.
pub(crate) fn on_a_scene(show: impl FnOnce(&Scene<'_>, &Daemon<'_>, &Path, u16)) {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    show(&scene, &daemon, &path, offset);
}

/// Waits until the engine is recorded with an allocation.
pub(crate) fn await_look(sandbox: &Sandbox, allocation: &str) {
    use sqlx::{ConnectOptions as _, Connection as _, Row as _};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(sandbox.registry()).read_only(true);
    let count = || {
        runtime.block_on(async {
            let mut connection = options.connect().await.unwrap();
            let query =
                sqlx::query("SELECT COUNT(*) FROM engine_looks WHERE allocation = ?1").bind(allocation);
            let count: i64 = query.fetch_one(&mut connection).await.unwrap().get(0);
            connection.close().await.unwrap();
            count
        })
    };
    until("the engine is recorded with the allocation", count, |count| *count > 0);
}

/// Whether the offset is nobody's.
pub(crate) fn is_free(sandbox: &Sandbox, path: &Path) -> bool {
    sandbox.list_all().iter().filter(|row| row.exact_path() == path).all(|row| row.is("released"))
}

#[test]
fn gc_drops_exactly_what_a_removed_worktree_left_and_frees_its_offset() {
    if let Some(engine) = engine::shared() {
        drops_exactly_what_was_left(engine);
    }
}

/// What a removed worktree left on this engine is dropped, and its offset freed.
pub(crate) fn drops_exactly_what_was_left(engine: &Engine) {
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let (_, other) = scene.add(&daemon, "two");
    assert_eq!((offset, other), (10_000, 20_000));
    let compose = format!("{}_cache", scene.project(offset));
    let left = [scene.volume(offset), compose.clone()];
    for offset in [0, offset, other] {
        engine.volume(&scene.volume(offset), &[]);
    }
    engine.compose_volume(&scene.project(offset), "cache", &compose);
    // What looks alike and is not the worktree's.
    let alike = format!("{}x", scene.volume(offset));
    engine.volume(&alike, &[]);
    let shared = format!("{}_shared", scene.stem);
    engine.compose_volume(&scene.project(offset), "shared", &shared);
    let before = scene.volumes();

    scene.repo.remove(&path);
    // At once: gc has to know what git has just done.
    let plan = scene.gc(&["--dry-run"]);
    let mut names: Vec<_> = plan.iter().map(|line| line.name.clone()).collect();
    names.sort();
    let mut expected = left.to_vec();
    expected.sort();
    assert_eq!(names, expected, "{plan:#?}");
    for line in &plan {
        assert_eq!(
            (line.action.as_str(), line.kind.as_str(), line.done),
            ("drop", "volume", false),
            "{line:#?}"
        );
        assert_eq!((line.path.as_str(), line.offset), (path.to_str().unwrap(), offset));
        assert!(!line.reason.is_empty());
    }
    assert_eq!(scene.volumes(), before, "a dry run drops nothing");
    let table = sandbox.client(["gc", "--dry-run"]).ok();
    assert!(
        table.contains(&left[0]) && table.contains("drop") && table.contains("2 volumes to drop"),
        "{table}"
    );
    assert!(table.contains(&format!("offset {offset} will be free")), "{table}");

    let refused = sandbox.client(["gc"]).fails(1);
    assert!(refused.contains("-y"), "{refused}");
    assert_eq!(scene.volumes(), before);

    let done = sandbox.client(["gc", "-y"]).ok();
    assert!(done.contains("2 volumes dropped") && done.contains(&format!("offset {offset}")), "{done}");
    let kept: Vec<_> = before.into_iter().filter(|name| !left.contains(name)).collect();
    assert_eq!(scene.volumes(), kept);
    assert!(is_free(&sandbox, &path));
    let nothing = sandbox.client(["gc", "-y"]).ok();
    assert!(nothing.contains("Nothing is left"), "{nothing}");

    let (_, next) = scene.add(&daemon, "three");
    assert_eq!(next, offset, "the next worktree gets it");
    for name in kept {
        engine.remove_volume(&name);
    }
}

#[test]
fn what_was_shown_is_what_is_dropped() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (one, offset) = scene.add(&daemon, "one");
    let (two, other) = scene.add(&daemon, "two");
    engine.volume(&scene.volume(offset), &[]);
    engine.volume(&scene.volume(other), &[]);
    scene.repo.remove(&one);
    let plan = daemon.http("POST", "/v1/gc", Some(&json!({ "dry_run": true }))).ok();
    let tokens: Vec<&str> =
        plan["items"].as_array().unwrap().iter().map(|item| item["token"].as_str().unwrap()).collect();
    assert_eq!(tokens.len(), 1);
    assert!(plan["engine"].as_str().unwrap().starts_with("unix://"), "{plan:#}");
    // Meanwhile another worktree goes, and the volume that was shown is made anew.
    scene.repo.remove(&two);
    engine.remove_volume(&scene.volume(offset));
    engine.volume(&scene.volume(offset), &[("made", "anew")]);
    let before = scene.volumes();
    let run = json!({ "dry_run": false, "only": tokens });
    let report = daemon.http("POST", "/v1/gc", Some(&run)).ok();
    assert_eq!(report["items"].as_array().unwrap().len(), 0, "{report:#}");
    assert_eq!(scene.volumes(), before);
    // Without a list, a request takes what there is.
    let report = daemon.http("POST", "/v1/gc", Some(&json!({ "dry_run": false }))).ok();
    let done = report["items"].as_array().unwrap().iter().all(|item| item["done"] == true);
    assert!(done, "{report:#}");
    assert!(scene.volumes().is_empty());
    // A request that does not say what it wants wants to know.
    daemon.http("POST", "/v1/gc", Some(&json!({}))).ok();
    for bad in [
        json!({ "older_than": "soon" }),
        json!({ "dry_run": 1 }),
        json!({ "backup": { "path": "relative" } }),
    ] {
        daemon.http("POST", "/v1/gc", Some(&bad)).is_problem(400, "bad-request");
    }
}

#[test]
fn each_step_is_told_as_it_is_done() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    engine.volume(&scene.volume(offset), &[]);
    scene.repo.remove(&path);
    let answer = daemon.http("POST", "/v1/gc", Some(&json!({ "dry_run": false, "progress": true })));
    assert_eq!(answer.field("content-type"), "application/x-ndjson");
    let text = String::from_utf8(answer.body).unwrap();
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = events.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["begin", "item", "report"], "{text}");
    assert_eq!(events[1]["done"], true);
    assert_eq!(events[2]["items"][0]["done"], true);
    assert_eq!(events[2]["offsets"][0]["done"], true);
}

#[test]
fn down_removes_the_containers_of_the_worktrees_own_stack_first() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let (volume, project) = (scene.volume(offset), scene.project(offset));
    engine.volume(&volume, &[]);
    let labels = Engine::stack(&project, path.to_str().unwrap());
    let (db, web) = (format!("{project}-db-1"), format!("{project}-web-1"));
    engine.run(&db, &[&volume], &labels);
    engine.create(&web, &[], &labels);
    // Another stack that goes by the same name, somewhere else.
    let other = format!("{project}-other-1");
    engine.create(&other, &[], &Engine::stack(&project, "/elsewhere"));
    engine.kill(&db);
    scene.repo.remove(&path);
    let reason = scene.kept(&[]);
    assert!(
        reason.contains(&db) && reason.contains(&format!("docker compose -p {project} down")),
        "{reason}"
    );

    let lines = scene.gc(&["-y", "--down"]);
    assert!(lines.len() == 1 && lines[0].done, "{lines:#?}");
    assert!(scene.volumes().is_empty());
    let left: Vec<_> = engine.containers().into_iter().filter(|name| name.starts_with(&project)).collect();
    assert_eq!(left, std::slice::from_ref(&other));
    assert!(!is_free(&sandbox, &path), "a container that goes by the project's name is left");
    engine.remove(&other);
    sandbox.client(["gc", "-y"]).ok();
    assert!(is_free(&sandbox, &path));
}

#[test]
fn a_volume_that_was_removed_by_hand_frees_the_offset_without_gc() {
    if let Some(engine) = engine::shared() {
        frees_what_was_removed_by_hand(engine);
    }
}

/// A volume that somebody removes on this engine frees the offset at once.
pub(crate) fn frees_what_was_removed_by_hand(engine: &Engine) {
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (with, offset) = scene.add(&daemon, "with");
    let (without, _) = scene.add(&daemon, "without");
    engine.volume(&scene.volume(offset), &[]);
    scene.repo.remove(&with);
    scene.repo.remove(&without);
    daemon.await_state(&without, "released");
    daemon.await_state(&with, "stale");
    engine.remove_volume(&scene.volume(offset));
    daemon.await_state(&with, "released");
}

#[test]
fn a_persons_docker_host_and_context_are_asked_when_the_daemon_knows_none() {
    let Some(engine) = engine::shared() else { return };
    if !require::part(!Path::new("/var/run/docker.sock").exists(), "this machine has an engine of its own") {
        return;
    }
    let sandbox = Sandbox::with_config("probe = false\n");
    let daemon = sandbox.daemon();
    let repo = Scene::new(&sandbox, engine).repo;
    daemon.put(&repo.path);
    let gc = |name: &str, value: &str| -> Ran {
        Ran::of(sandbox.client_command(["gc", "--dry-run"]).env("WTD_NO_START", "1").env(name, value))
    };
    gc("DOCKER_HOST", &engine.host()).quiet();
    // So they are before a worktree moves away from its volume.
    let volume = daemon.put(&repo.path)["volume"].as_str().unwrap().to_owned();
    engine.volume(&volume, &[]);
    let mut reassign = sandbox.client_command(["reassign"]);
    let refused = Ran::of(reassign.current_dir(&repo.path).env("DOCKER_HOST", engine.host())).fails(1);
    engine.remove_volume(&volume);
    assert!(refused.contains(&volume) && refused.contains("--force"), "{refused}");
    for hostile in
        ["ssh://-oProxyCommand=touch /tmp/x", "unix://relative", "unix:///nowhere.sock", "tcp://a b:1", "x"]
    {
        let line = gc("DOCKER_HOST", hostile).fails(1);
        assert!(line.contains("container engine"), "{line}");
    }
    let line = gc("DOCKER_CONTEXT", "../../x").fails(1);
    assert!(line.contains("context"), "{line}");
    let digest =
        Ran::of(sandbox.command("sh").args(["-c", "printf %s mine | sha256sum | cut -d' ' -f1"])).ok();
    let meta = sandbox.path("home/.docker/contexts/meta").join(digest.trim());
    std::fs::create_dir_all(&meta).unwrap();
    let context = json!({ "Name": "mine", "Endpoints": { "docker": { "Host": engine.host() } } });
    std::fs::write(meta.join("meta.json"), context.to_string()).unwrap();
    gc("DOCKER_CONTEXT", "mine").quiet();
}

#[test]
fn a_backup_brings_back_what_was_dropped() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let volume = scene.volume(offset);
    engine.volume(&volume, &[("of", "a test")]);
    let content = engine.content(&volume);
    let secret = content.join("pg_wal/a file");
    std::fs::create_dir(content.join("pg_wal")).unwrap();
    // More than one piece of the stream, and nothing that compresses.
    let bytes: Vec<u8> =
        (0..3_000_000_u32).flat_map(|n| (n.wrapping_mul(2_654_435_761) >> 8).to_le_bytes()).collect();
    std::fs::write(&secret, &bytes).unwrap();
    std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::os::unix::fs::chown(&secret, Some(999), Some(998)).unwrap();
    std::os::unix::fs::symlink("a file", content.join("pg_wal/link")).unwrap();
    // PostgreSQL takes no data directory that is another user's, or that others may read.
    std::os::unix::fs::chown(&content, Some(999), Some(998)).unwrap();
    std::fs::set_permissions(&content, std::fs::Permissions::from_mode(0o700)).unwrap();
    scene.repo.remove(&path);

    // A directory that can't be written keeps everything.
    let file = sandbox.path("file");
    std::fs::write(&file, "").unwrap();
    let line = sandbox.client(["gc", "-y", "--json", "--backup", file.to_str().unwrap()]);
    assert_eq!(line.code, Some(1), "{line:#?}");
    assert!(engine.inspect(&volume).is_some());

    let directory = sandbox.path("work");
    std::fs::create_dir(&directory).unwrap();
    let done = sandbox.client_in(&directory, ["gc", "-y", "--backup", "kept"]).ok();
    assert!(engine.inspect(&volume).is_none(), "{done}");
    assert!(is_free(&sandbox, &path));
    let files: Vec<_> =
        std::fs::read_dir(directory.join("kept")).unwrap().map(|it| it.unwrap().path()).collect();
    let [file] = files.as_slice() else { panic!("{files:?}") };
    assert!(done.contains(file.to_str().unwrap()), "{done}");
    assert_eq!(file.metadata().unwrap().mode() & 0o777, 0o600);
    assert_eq!(engine.helpers(&sandbox), [""; 0], "no helper is left");

    let restore = |arguments: &[&str]| {
        sandbox.client_in(&directory, ["restore", file.to_str().unwrap()].iter().chain(arguments))
    };
    restore(&[]).ok();
    let shown = engine.inspect(&volume).unwrap();
    assert_eq!(shown["Labels"]["of"], "a test");
    let secret = engine.content(&volume).join("pg_wal/a file");
    assert_eq!(std::fs::read(&secret).unwrap(), bytes);
    let owner_and_mode = |path: &Path| {
        let metadata = path.metadata().unwrap();
        (metadata.uid(), metadata.gid(), metadata.mode() & 0o777)
    };
    assert_eq!(owner_and_mode(&secret), (999, 998, 0o600));
    assert_eq!(owner_and_mode(&engine.content(&volume)), (999, 998, 0o700));
    let symlink = engine.content(&volume).join("pg_wal/link");
    assert_eq!(std::fs::read_link(symlink).unwrap(), Path::new("a file"));

    let line = restore(&[]).fails(1);
    assert!(line.contains(&volume) && line.contains("exists") && line.contains("--volume"), "{line}");
    let other = format!("{volume}_again");
    restore(&["--volume", &other]).ok();
    assert_eq!(std::fs::read(engine.content(&other).join("pg_wal/a file")).unwrap(), bytes);
    for hostile in ["../containers/x", "UPPER", "a?force=1"] {
        restore(&["--volume", hostile]).fails(1);
    }
    // Half a file is none, and leaves nothing behind.
    let half = directory.join("half.tar");
    std::fs::write(&half, &std::fs::read(file).unwrap()[..5_000_000]).unwrap();
    let third = format!("{volume}_third");
    sandbox.client(["restore", half.to_str().unwrap(), "--volume", &third]).fails(1);
    assert!(engine.inspect(&third).is_none());
    engine.remove_volume(&volume);
    engine.remove_volume(&other);
}
