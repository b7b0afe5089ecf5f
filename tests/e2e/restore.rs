//! `restore` interrupted, and a volume that is made at the same moment: nobody's data is written over, or removed.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use crate::gc::{Scene, sandbox};
use crate::harness::engine::{self, Engine};
use crate::harness::engine_proxy::{EngineProxy, Fault};
use crate::harness::{Daemon, Ran, Repo, Sandbox, until};

/// A backup of a volume that was dropped, and what restores it.
struct Stage<'s> {
    sandbox: &'s Sandbox,
    engine: &'s Engine,
    volume: String,
    file: PathBuf,
    repository: PathBuf,
}

impl<'s> Stage<'s> {
    #[track_caller]
    fn new(sandbox: &'s Sandbox, engine: &'s Engine) -> (Self, Daemon<'s>) {
        let (scene, daemon) = Scene::with_daemon(sandbox, engine);
        let (path, offset) = scene.add(&daemon, "one");
        let volume = scene.volume(offset);
        engine.volume(&volume, &[]);
        fs::write(engine.content(&volume).join("kept"), "of the backup").unwrap();
        scene.repo.remove(&path);
        let kept = sandbox.path("backups");
        sandbox.client(["gc", "-y", "--backup", kept.to_str().unwrap()]).ok();
        assert!(engine.inspect(&volume).is_none());
        let file = fs::read_dir(kept).unwrap().next().unwrap().unwrap().path();
        let repository = scene.repo.path;
        (Self { sandbox, engine, volume, file, repository }, daemon)
    }

    fn begin(&self) -> Child {
        let mut client = self.sandbox.client_command(["restore"]);
        client.arg(&self.file).env("WTD_NO_START", "1");
        client.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Has the daemon killed when the volume is there, and not filled.
    #[track_caller]
    fn kill_half_way(&self, proxy: &EngineProxy, daemon: Daemon<'_>) {
        // The first is the directory's own owner.
        proxy.arm_at(Fault::KillAfter, "PUT", 0, daemon.pid());
        self.begin().wait().unwrap();
        assert!(proxy.disarm());
        daemon.kill9();
        assert!(self.engine.inspect(&self.volume).is_some(), "half filled");
    }

    #[track_caller]
    fn restores(&self) {
        self.sandbox.client(["restore", self.file.to_str().unwrap()]).ok();
        let content = self.engine.content(&self.volume);
        assert_eq!(fs::read_to_string(content.join("kept")).unwrap(), "of the backup");
        assert_eq!(self.engine.helpers(self.sandbox), [""; 0]);
    }

    fn told(client: Child) -> String {
        String::from_utf8(client.wait_with_output().unwrap().stderr).unwrap()
    }
}

#[test]
fn what_is_no_backup_or_a_compressed_one_is_told_in_plain_words() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (stage, _daemon) = Stage::new(&sandbox, engine);
    let whole = fs::read(&stage.file).unwrap();
    let compressed = Ran::of(sandbox.command("gzip").arg("--keep").arg(&stage.file));
    compressed.ok();
    let refused = |file: &std::path::Path, why: &str| {
        let told = sandbox.client(["restore", file.to_str().unwrap()]).fails(1);
        let expected = format!("wtd-client: restore: {}: {why}", file.display());
        assert!(told.starts_with(&expected) && told.lines().count() == 1, "{told}");
        assert!(engine.inspect(&stage.volume).is_none());
    };
    refused(
        &stage.file.with_extension("tar.gz"),
        "it is compressed (`gzip -d` uncompresses it); give a file",
    );
    let other = sandbox.path("other");
    // A damaged manifest, one that is cut off, and what never was an archive.
    let at = whole.windows(8).position(|bytes| bytes == br#""engine""#).unwrap();
    let mut damaged = whole.clone();
    damaged[at + 1] = b'E';
    for (bytes, why) in [
        (&damaged[..], "what it says of its volume can't be read"),
        (&whole[..600], "it is cut off"),
        (&[0xa5; 2048], "it is no tar archive"),
    ] {
        fs::write(&other, bytes).unwrap();
        refused(&other, why);
    }
    stage.restores();
}

#[test]
fn a_volume_that_something_else_makes_at_that_moment_is_left_alone() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (stage, _daemon) = Stage::new(&sandbox, engine);
    proxy.arm_at(Fault::Hold, "/volumes/create", 0, 0);
    let client = stage.begin();
    proxy.await_held();
    engine.volume(&stage.volume, &[("of", "somebody")]);
    let mine = engine.content(&stage.volume).join("mine");
    fs::write(&mine, "mine").unwrap();
    proxy.let_pass();
    let told = Stage::told(client);
    assert!(told.contains("was made by something else"), "{told}");
    assert!(mine.exists() && !mine.with_file_name("kept").exists());
    assert_eq!(engine.helpers(&sandbox), [""; 0]);
    engine.remove_volume(&stage.volume);
    stage.restores();
    engine.remove_volume(&stage.volume);
}

#[test]
fn what_a_daemon_that_died_had_restored_by_half_is_removed_unless_somebody_has_used_it() {
    // Of its own: what others do on it would drive out what it remembers.
    let Some(engine) = Engine::start() else { return };
    let engine = &engine;
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (stage, daemon) = Stage::new(&sandbox, engine);
    stage.kill_half_way(&proxy, daemon);
    let daemon = sandbox.daemon();
    let look = || engine.inspect(&stage.volume).is_some();
    until("the half of a volume is removed", look, |is_there| !is_there);
    stage.restores();
    engine.remove_volume(&stage.volume);

    stage.kill_half_way(&proxy, daemon);
    let user = format!("{}-user", stage.volume);
    engine.run(&user, &[&stage.volume], &[]);
    let mine = engine.content(&stage.volume).join("mine");
    fs::write(&mine, "mine").unwrap();
    engine.remove(&user);
    let daemon = sandbox.daemon();
    until("it is told of", || daemon.log(), |log| log.contains("volume left that was restored by half"));
    let refused = sandbox.client(["restore", stage.file.to_str().unwrap()]).fails(1);
    assert!(refused.contains("exists") && refused.contains("docker volume rm"), "{refused}");
    assert!(mine.exists());
    assert_eq!(engine.helpers(&sandbox), [""; 0]);
    engine.remove_volume(&stage.volume);
}

#[test]
fn a_daemon_that_ends_in_order_leaves_no_half_of_a_volume() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (stage, daemon) = Stage::new(&sandbox, engine);
    proxy.arm_at(Fault::Stall, "PUT", 0, 0);
    let client = stage.begin();
    until("it is being filled", || proxy.has_happened(), |is_so| *is_so);
    assert!(engine.inspect(&stage.volume).is_some());
    daemon.terminate();
    proxy.disarm();
    let told = Stage::told(client);
    assert!(engine.inspect(&stage.volume).is_none(), "{told}");
    assert_eq!(engine.helpers(&sandbox), [""; 0]);
}

#[test]
fn a_new_worktree_never_opens_a_volume_that_was_restored() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (stage, daemon) = Stage::new(&sandbox, engine);
    stage.restores();
    let repo = Repo::at(&sandbox, &stage.repository);
    let next = daemon.put(&repo.add("next"));
    assert_eq!(next["offset"], 20_000, "10000 leads to {}", stage.volume);
    let listed = sandbox.client(["list"]).ok();
    assert!(listed.contains("offset 10000 was passed over"), "{listed}");
    assert!(listed.contains(&stage.volume) && listed.contains("restored"), "{listed}");
    let doctor = sandbox.client(["doctor"]).text();
    assert!(doctor.contains(&format!("offset 10000 is held by volume {}", stage.volume)), "{doctor}");

    // As well by a daemon that has just been started, whose engine does not answer.
    daemon.terminate();
    sandbox.configure("engine = \"unix:///nowhere/docker.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    assert_eq!(daemon.put(&repo.add("third"))["offset"], 30_000);
    daemon.terminate();
    sandbox.configure(&format!("engine = \"{}\"\nprobe = false\n", engine.host()));
    let daemon = sandbox.daemon();

    engine.remove_volume(&stage.volume);
    // Asks the engine what is there.
    sandbox.client(["gc", "--dry-run"]).ok();
    assert_eq!(daemon.put(&repo.add("fourth"))["offset"], 10_000, "nothing is there any more");
}

#[test]
fn what_could_not_be_cleared_away_is_as_soon_as_the_engine_answers() {
    // Of its own: what others do on it would drive out what it remembers.
    let Some(engine) = Engine::start() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (stage, _daemon) = Stage::new(&sandbox, &engine);
    // The first is the directory's own owner.
    proxy.arm_at(Fault::DownBefore, "PUT", 1, 0);
    let told = Stage::told(stage.begin());
    assert!(told.contains("is half filled, and left"), "{told}");
    assert!(engine.inspect(&stage.volume).is_some());
    assert!(proxy.disarm());
    let look = || (engine.inspect(&stage.volume).is_some(), engine.helpers(&sandbox).len());
    until("it is cleared away", look, |left| *left == (false, 0));
    stage.restores();
}

#[test]
fn what_is_no_file_is_no_backup_and_stands_in_nobodys_way() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (stage, _daemon) = Stage::new(&sandbox, engine);
    let pipe = sandbox.path("pipe");
    Ran::of(sandbox.command("mkfifo").arg(&pipe)).ok();
    for odd in [pipe.to_str().unwrap(), "/dev/zero", sandbox.root().to_str().unwrap()] {
        let refused = sandbox.client(["restore", odd]).fails(1);
        assert!(refused.contains(&format!("{odd}: it is not a file")), "{refused}");
    }
    stage.restores();
    engine.remove_volume(&stage.volume);
}

#[test]
fn an_offset_is_free_as_soon_as_the_volume_goes_that_was_restored() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    // What is released here is not released by a sweep.
    let config = format!("engine = \"{}\"\nprobe = false\nresync = \"1h\"\n", proxy.host());
    let sandbox = Sandbox::with_config(&config);
    let (stage, daemon) = Stage::new(&sandbox, engine);
    until("the engine is left alone", || proxy.open(), |open| *open == 0);
    stage.restores();
    until("the engine is followed", || proxy.open(), |open| *open == 1);
    let told = || daemon.get("/v1/checks").ok().to_string();
    assert!(told().contains(&stage.volume));
    engine.remove_volume(&stage.volume);
    until("nothing holds the offset", told, |told| !told.contains(&stage.volume));
    until("the engine is left alone", || proxy.open(), |open| *open == 0);
    let repo = Repo::at(&sandbox, &stage.repository);
    assert_eq!(daemon.put(&repo.add("next"))["offset"], 10_000);
}

#[test]
fn gc_no_engine_frees_the_offset_that_a_restored_volume_holds() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (stage, daemon) = Stage::new(&sandbox, engine);
    stage.restores();
    daemon.terminate();
    sandbox.configure("engine = \"unix:///nowhere/docker.sock\"\nprobe = false\n");
    let daemon = sandbox.daemon();
    let repo = Repo::at(&sandbox, &stage.repository);
    assert_eq!(daemon.put(&repo.add("next"))["offset"], 20_000);
    let line = format!("volume {}: offset 10000 will be free: no engine is asked", stage.volume);
    let shown = sandbox.client(["gc", "--dry-run", "--no-engine"]).ok();
    assert!(shown.contains(&line), "{shown}");
    let done = sandbox.client(["gc", "-y", "--no-engine"]).ok();
    assert!(done.contains("Free again: offset 10000."), "{done}");
    assert_eq!(daemon.put(&repo.add("third"))["offset"], 10_000);
    assert!(engine.inspect(&stage.volume).is_some(), "its word is about the offset, not about data");
    engine.remove_volume(&stage.volume);
}

#[test]
fn a_backup_goes_to_the_worktree_that_it_is_of_or_where_a_person_says() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (stage, daemon) = Stage::new(&sandbox, engine);
    let repo = Repo::at(&sandbox, &stage.repository);
    let (path, file) = (repo.add("other"), stage.file.to_str().unwrap());
    assert_eq!(daemon.put(&path)["offset"], 10_000);
    let refused = sandbox.client(["restore", file]).fails(1);
    assert!(refused.contains(path.to_str().unwrap()) && refused.contains("--volume"), "{refused}");
    assert!(engine.inspect(&stage.volume).is_none());
    sandbox.client(["restore", file, "--volume", &stage.volume]).ok();
    engine.remove_volume(&stage.volume);

    repo.remove(&path);
    sandbox.client(["gc", "-y"]).ok();
    let one = repo.path.with_file_name(format!("{}-one", repo.path.file_name().unwrap().to_str().unwrap()));
    repo.git(["worktree", "add", "-q", one.to_str().unwrap(), "one"]);
    assert_eq!(daemon.put(&one)["offset"], 10_000);
    sandbox.client(["restore", file]).ok();
    engine.remove_volume(&stage.volume);
}

#[test]
fn killed_at_any_request_of_restoring_it_leaves_no_half_of_a_volume() {
    // Of its own: what others do on it would drive out what it remembers.
    let Some(engine) = Engine::start() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (stage, mut daemon) = Stage::new(&sandbox, &engine);
    for fault in [Fault::KillBefore, Fault::KillAfter] {
        // Making the volume, its holder's image and the holder, its content, and the end.
        for request in ["/volumes/create", "/images/create", "/containers/create", "PUT", "DELETE"] {
            proxy.arm_at(fault, request, 0, daemon.pid());
            stage.begin().wait().unwrap();
            assert!(proxy.disarm(), "{fault:?}: {request} is never asked for");
            daemon.kill9();
            daemon = sandbox.daemon();
            let look = || (engine.inspect(&stage.volume).is_some(), engine.helpers(&sandbox).len());
            until(&format!("it is cleared away ({fault:?} {request})"), look, |left| *left == (false, 0));
        }
    }
    stage.restores();
    engine.remove_volume(&stage.volume);
}
