//! gc interrupted: the daemon killed, the client killed, the engine cut off, gone or silent, at each request of a run.

use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::Stdio;

use crate::gc::{Scene, await_look, is_free, sandbox};
use crate::harness::engine;
use crate::harness::engine_proxy::{EngineProxy, Fault};
use crate::harness::{Daemon, Sandbox, until};

/// A sandbox with a proxy before the shared engine, and what the invariants are about.
struct Stage<'s> {
    scene: Scene<'s>,
    proxy: &'s EngineProxy,
    /// Volumes that nobody may touch.
    decoys: Vec<String>,
    next: usize,
}

/// A removed worktree with two volumes.
struct Gone {
    path: PathBuf,
    id: String,
    volumes: [String; 2],
}

impl<'s> Stage<'s> {
    fn new(
        sandbox: &'s Sandbox,
        engine: &'s engine::Engine,
        proxy: &'s EngineProxy,
        daemon: &Daemon<'_>,
    ) -> Self {
        let scene = Scene::new(sandbox, engine);
        let stem = &scene.stem;
        let text = format!("[database]\nvolume = \"{stem}\"\n[volumes]\nCACHE_VOLUME = \"{stem}_cache\"\n");
        std::fs::write(scene.repo.path.join("wtd.toml"), text).unwrap();
        daemon.put(&scene.repo.path);
        let (_, live) = scene.add(daemon, "live");
        let decoys = vec![
            scene.volume(0),
            scene.volume(live),
            format!("{}_cache_{live}", scene.stem),
            format!("{}_of_others", scene.stem),
        ];
        for decoy in &decoys {
            engine.volume(decoy, &[]);
        }
        Self { scene, proxy, decoys, next: 0 }
    }

    /// Adds a worktree with its volumes, and removes it.
    fn gone(&mut self, daemon: &Daemon<'_>) -> Gone {
        self.next += 1;
        let (path, offset) = self.scene.add(daemon, &format!("w{}", self.next));
        let volumes = [self.scene.volume(offset), format!("{}_cache_{offset}", self.scene.stem)];
        for volume in &volumes {
            assert!(self.scene.engine.inspect(volume).is_none(), "a new worktree would open {volume}");
            self.scene.engine.volume(volume, &[]);
        }
        let id = self.scene.sandbox.list_all().at(&path).id.clone();
        self.scene.repo.remove(&path);
        Gone { path, id, volumes }
    }

    fn client(&self) -> std::process::Child {
        let mut command = self.scene.sandbox.client_command(["gc", "-y", "--json"]);
        let quiet =
            command.env("WTD_NO_START", "1").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        quiet.spawn().unwrap()
    }

    /// What has to be so at any moment.
    fn check(&self, gone: &Gone, when: &str) {
        // Before the volumes: what is released by now has none from now on.
        let rows = self.scene.sandbox.list_all();
        let volumes = self.scene.engine.volumes();
        for decoy in &self.decoys {
            assert!(volumes.contains(decoy), "{when}: {decoy} is gone");
        }
        let is_released = rows.id(&gone.id).is_none_or(|row| row.is("released"));
        let left: Vec<_> = gone.volumes.iter().filter(|name| volumes.contains(*name)).collect();
        assert!(!is_released || left.is_empty(), "{when}: the offset is free, and {left:?} exist");
        rows.assert_disjoint();
    }

    /// What a second run makes of it.
    fn finish(&self, gone: &Gone, when: &str) {
        let ran = self.scene.sandbox.client(["gc", "-y"]);
        assert_eq!(ran.code, Some(0), "{when}: {ran:#?}");
        let volumes = self.scene.engine.volumes();
        assert!(gone.volumes.iter().all(|name| !volumes.contains(name)), "{when}: {}", ran.text());
        assert!(is_free(self.scene.sandbox, &gone.path), "{when}: {}", ran.text());
        self.check(gone, when);
    }

    fn clear(&self) {
        for decoy in &self.decoys {
            self.scene.engine.remove_volume(decoy);
        }
    }
}

/// Has the fault happen at each request of a run in turn, until a run has no more requests; gives their number. The run is
/// asked for without a plan before it, which would only ask more of the same.
fn at_each_request(fault: Fault, has_backup: bool) -> usize {
    let Some(engine) = engine::shared() else { return usize::MAX };
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let daemon = sandbox.daemon();
    let mut stage = Stage::new(&sandbox, engine, &proxy, &daemon);
    let mut running = Some(daemon);
    let mut body = serde_json::json!({ "dry_run": false });
    if has_backup {
        body["backup"] = serde_json::json!({ "path": directory.path().join("kept") });
    }
    let body = body.to_string();
    let request = format!(
        "POST /v1/gc HTTP/1.1\r\nHost: wtd\r\nConnection: close\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut at = |only: &str, point: usize| {
        let when = format!("{fault:?} at request {point} of {only:?}");
        let daemon = running.take().unwrap();
        let gone = stage.gone(&daemon);
        stage.proxy.arm_at(fault, only, point, daemon.pid());
        // It may be killed while it answers.
        let answer = daemon.raw(request.as_bytes());
        let happened = stage.proxy.disarm();
        if !happened {
            let text = String::from_utf8_lossy(&answer.unwrap()).into_owned();
            assert!(text.starts_with("HTTP/1.1 200"), "{when}: {text}");
            assert!(
                text.matches("\"done\":true").count() >= 2,
                "{when}: a run without a fault is whole: {text}"
            );
        }
        let is_killed = happened && matches!(fault, Fault::KillBefore | Fault::KillAfter);
        running = Some(if is_killed {
            // Killed already; this sees it off.
            daemon.kill9();
            sandbox.daemon()
        } else {
            daemon
        });
        stage.check(&gone, &when);
        stage.finish(&gone, &when);
        assert_eq!(engine.helpers(&sandbox), [""; 0], "{when}: no helper is left");
        happened
    };
    let mut points = 0;
    while at("", points) {
        points += 1;
    }
    // The daemon's own requests among them may have moved a drop to a place that was counted already.
    for number in 0..2 {
        assert!(at("DELETE", number), "both volumes are dropped");
    }
    stage.clear();
    points
}

#[test]
fn a_daemon_that_is_killed_before_any_request_of_gc_loses_nothing() {
    assert!(at_each_request(Fault::KillBefore, false) > 15);
}

#[test]
fn a_daemon_that_is_killed_after_any_request_of_gc_loses_nothing() {
    assert!(at_each_request(Fault::KillAfter, false) > 15);
}

#[test]
fn a_daemon_that_is_killed_at_any_request_of_gc_with_a_backup_is_in_nobodys_way() {
    assert!(at_each_request(Fault::KillBefore, true) > 25);
    assert!(at_each_request(Fault::KillAfter, true) > 25);
}

#[test]
fn an_answer_of_the_engine_that_is_lost_loses_nothing() {
    assert!(at_each_request(Fault::CutAfter, false) > 15);
}

#[test]
fn a_request_that_does_not_reach_the_engine_loses_nothing() {
    assert!(at_each_request(Fault::CutBefore, false) > 15);
}

#[test]
fn an_engine_that_is_gone_from_any_request_on_loses_nothing() {
    assert!(at_each_request(Fault::DownBefore, false) > 15);
    assert!(at_each_request(Fault::DownAfter, false) > 15);
}

#[test]
fn a_client_that_is_killed_at_any_request_of_gc_leaves_the_daemon_well() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let daemon = sandbox.daemon();
    let mut stage = Stage::new(&sandbox, engine, &proxy, &daemon);
    let mut killed = 0;
    for point in 0.. {
        let when = format!("the client is killed at request {point}");
        let gone = stage.gone(&daemon);
        // Nobody is killed before it is known who: the first request comes after the client has started.
        stage.proxy.arm(Fault::KillBefore, point, 0);
        let mut client = stage.client();
        stage.proxy.aim(client.id());
        let ended = until("the client ends", || client.try_wait().unwrap(), Option::is_some).unwrap();
        let happened = stage.proxy.disarm();
        // The daemon has requests of its own, at which nobody is killed.
        killed += usize::from(ended.signal() == Some(9));
        stage.check(&gone, &when);
        stage.finish(&gone, &when);
        if !happened {
            assert_eq!(ended.code(), Some(0), "{when}: a run without a fault is whole");
            break;
        }
    }
    assert!(killed > 15, "{killed}");
    stage.clear();
}

#[test]
fn an_engine_that_falls_silent_ends_gc_in_time() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let daemon = sandbox.daemon();
    let mut stage = Stage::new(&sandbox, engine, &proxy, &daemon);
    let gone = stage.gone(&daemon);
    stage.proxy.arm_at(Fault::Stall, "DELETE", 1, 0);
    let line = sandbox.client(["gc", "-y", "--json"]);
    assert!(stage.proxy.disarm());
    assert_eq!(line.code, Some(1), "{line:#?}");
    assert!(line.stderr.contains("did not answer"), "{line:#?}");
    let shown: Vec<crate::gc::Line> = serde_json::from_slice(&line.stdout).unwrap();
    assert_eq!(shown.iter().filter(|line| line.done).count(), 1, "what was dropped is told: {shown:#?}");
    stage.check(&gone, "after the silence");
    stage.finish(&gone, "after the silence");
    stage.clear();
}

#[test]
fn a_worktree_that_is_made_again_at_the_same_path_never_sees_old_data() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let path = sandbox.path("again");
    let mut collecting: Option<std::process::Child> = None;
    // A fixed walk that looks random: what happens when is the scheduler's affair anyway.
    let mut walk = 0x2545_f491_u32;
    for round in 0..100 {
        scene.repo.git(["worktree", "add", "-q", "--detach", path.to_str().unwrap()]);
        let allocation = daemon.put(&path);
        let volume = allocation["volume"].as_str().unwrap().to_owned();
        await_look(&sandbox, allocation["id"].as_str().unwrap());
        let old = engine.inspect(&volume);
        assert!(old.is_none(), "round {round}: the new worktree would open {volume}: {old:#?}");
        engine.volume(&volume, &[]);
        std::fs::write(engine.content(&volume).join("round"), round.to_string()).unwrap();
        walk = walk.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let choice = walk >> 29;
        if choice < 3 && collecting.is_none() {
            let mut command = sandbox.client_command(["gc", "-y"]);
            let command = command.env("WTD_NO_START", "1").stdin(Stdio::null());
            collecting = Some(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        }
        let content = std::fs::read_to_string(engine.content(&volume).join("round")).unwrap();
        assert_eq!(content, round.to_string(), "its own data is let alone while it is there");
        scene.repo.remove(&path);
        if choice == 4 {
            sandbox.client(["gc", "-y"]).ok();
        }
        if choice != 2
            && let Some(mut client) = collecting.take()
        {
            until("the client ends", || client.try_wait().unwrap(), Option::is_some);
        }
    }
    if let Some(mut client) = collecting {
        until("the client ends", || client.try_wait().unwrap(), Option::is_some);
    }
    scene.gc(&["-y"]);
    assert!(scene.volumes().is_empty());
}
