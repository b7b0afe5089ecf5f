//! What changes between two looks of a `gc`, and while something waits for one.

use std::process::Stdio;

use serde_json::json;

use crate::gc::{Scene, is_free, sandbox};
use crate::harness::engine::{self, Engine};
use crate::harness::engine_proxy::{EngineProxy, Fault};
use crate::harness::{Repo, Sandbox, until};

/// Docker before 24 says of a volume when its top directory last changed, and a server that stops changes it.
#[test]
fn down_drops_the_volume_of_a_server_that_writes_as_it_stops() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let (volume, project) = (scene.volume(offset), scene.project(offset));
    engine.volume(&volume, &[]);
    let listed = engine.inspect(&volume).unwrap();
    let version = engine.done("GET", "/version", None).json();
    let tells_creation = !matches!(version["ApiVersion"].as_str(), Some("1.41" | "1.42"));
    let labels = Engine::stack(&project, path.to_str().unwrap());
    engine.run(&format!("{project}-db-1"), &[&volume], &labels);
    scene.repo.remove(&path);
    proxy.arm_at(Fault::Hold, "/stop", 0, 0);
    let mut client = sandbox.client_command(["gc", "-y", "--down"]);
    let client = client.env("WTD_NO_START", "1").stdin(Stdio::null()).stdout(Stdio::piped());
    let client = client.stderr(Stdio::piped()).spawn().unwrap();
    proxy.await_held();
    // `CreatedAt` is in whole seconds.
    until(
        "the engine says something else",
        || {
            let pid_file = engine.content(&volume).join("postmaster.pid");
            std::fs::write(&pid_file, "").unwrap();
            std::fs::remove_file(pid_file).unwrap();
            engine.inspect(&volume).unwrap()
        },
        |now| now["CreatedAt"] != listed["CreatedAt"] || tells_creation,
    );
    proxy.let_pass();
    let done = client.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(said.contains("1 volume dropped"), "{said}{}", String::from_utf8_lossy(&done.stderr));
    assert!(engine.inspect(&volume).is_none());
    assert!(is_free(&sandbox, &path));
}

#[test]
fn a_stack_that_stays_after_all_says_why() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let db = format!("{}-db-1", scene.project(offset));
    engine.create(&db, &[], &Engine::stack(&scene.project(offset), path.to_str().unwrap()));
    scene.repo.remove(&path);
    daemon.await_state(&path, "stale");
    // A run begins with what an earlier one left.
    proxy.arm_at(Fault::Hold, "/images/json", 0, 0);
    let daemon = &daemon;
    let report = std::thread::scope(|scope| {
        let run = json!({ "dry_run": false, "down": true });
        let running = scope.spawn(move || daemon.http("POST", "/v1/gc", Some(&run)).ok());
        proxy.await_held();
        std::fs::rename(&scene.repo.path, scene.repo.path.with_extension("away")).unwrap();
        proxy.let_pass();
        running.join().unwrap()
    });
    let stack = &report["stacks"][0];
    assert!(stack["action"] == "keep" && stack["done"] == false, "{report:#}");
    let reason = stack["reason"].as_str().unwrap();
    assert!(reason.contains("its repository is gone"), "{reason}");
    assert!(engine.containers().contains(&db));
    engine.remove(&db);
}

#[test]
fn a_repository_that_is_forgotten_while_gc_looks_stays_forgotten() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    // Looks at all of them take gc a while.
    let repos: Vec<Repo<'_>> = (0..10).map(|number| sandbox.repo(&format!("app{number}"))).collect();
    for repo in &repos {
        daemon.put(&repo.path);
        repo.add("one");
        daemon.await_agreement(repo);
    }
    for repo in &repos {
        let plan = json!({ "dry_run": true });
        std::thread::scope(|scope| {
            let looking = scope.spawn(|| daemon.http("POST", "/v1/gc", Some(&plan)).ok());
            let path = wtd_protocol::PathText::of(&repo.path).text;
            daemon.http("DELETE", "/v1/repositories", Some(&json!({ "path": path }))).ok();
            looking.join().unwrap();
        });
    }
    let rows = sandbox.list();
    assert!(repos.iter().all(|repo| rows.find(&repo.path).is_none()), "{rows:#?}");
}

#[test]
fn the_engine_is_followed_while_something_is_stale_and_only_then() {
    let Some(engine) = engine::shared() else { return };
    let proxy = EngineProxy::start(engine.socket());
    // What is released here is not released by a sweep.
    let config = format!("engine = \"{}\"\nprobe = false\nresync = \"1h\"\n", proxy.host());
    let sandbox = Sandbox::with_config(&config);
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    until("the engine is left alone", || proxy.open(), |open| *open == 0);
    engine.volume(&scene.volume(offset), &[]);
    scene.repo.remove(&path);
    daemon.await_state(&path, "stale");
    until("the engine is followed", || proxy.open(), |open| *open == 1);
    engine.remove_volume(&scene.volume(offset));
    daemon.await_state(&path, "released");
    until("the engine is left alone", || proxy.open(), |open| *open == 0);

    // An engine that is away when the worktree goes, and comes back.
    let (path, offset) = scene.add(&daemon, "two");
    engine.volume(&scene.volume(offset), &[]);
    proxy.arm(Fault::DownBefore, 0, 0);
    scene.repo.remove(&path);
    daemon.await_state(&path, "stale");
    engine.remove_volume(&scene.volume(offset));
    until("the engine was asked", || proxy.has_happened(), |asked| *asked);
    proxy.disarm();
    daemon.await_state(&path, "released");
    until("the engine is left alone", || proxy.open(), |open| *open == 0);
}
