//! What gc keeps on a real engine, each with its reason.

use std::process::Command;

use serde_json::json;

use crate::gc::{Scene, is_free, on_a_scene, sandbox};
use crate::harness::engine::{self, Engine};
use crate::harness::{Ran, Sandbox, require};

#[test]
fn a_volume_in_use_is_kept() {
    if let Some(engine) = engine::shared() {
        keeps_what_is_in_use(engine);
    }
}

/// A volume that a container of this engine uses is kept, whether that runs or not.
pub(crate) fn keeps_what_is_in_use(engine: &Engine) {
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let volume = scene.volume(offset);
    engine.volume(&volume, &[]);
    let container = format!("{}-user", scene.stem);
    engine.create(&container, &[&volume], &[]);
    scene.repo.remove(&path);
    let created = scene.kept(&[]);
    assert!(created.contains(&container) && created.contains("created"), "{created}");
    engine.remove(&container);
    engine.run(&container, &[&volume], &[]);
    let running = scene.kept(&["--down"]);
    assert!(running.contains(&container) && running.contains("running"), "{running}");
    engine.kill(&container);
    let stopped = scene.kept(&["--down"]);
    assert!(stopped.contains(&container) && stopped.contains("exited"), "{stopped}");
    assert!(!is_free(&sandbox, &path));
    engine.remove(&container);
    assert!(scene.gc(&["-y"])[0].done);
}

#[test]
fn a_volume_whose_directory_a_container_has_is_kept() {
    on_a_scene(|scene, _, path, offset| {
        let engine = scene.engine;
        let volume = scene.volume(offset);
        engine.volume(&volume, &[]);
        scene.repo.remove(path);
        let content = engine.content(&volume);
        std::fs::create_dir(content.join("below")).unwrap();
        let container = format!("{}-binder", scene.stem);
        // The engine itself would drop the volume: to it these are directories like any other.
        for directory in [&content, &content.join("below"), content.parent().unwrap()] {
            engine.create(&container, &[directory.to_str().unwrap()], &[]);
            let reason = scene.kept(&["--down"]);
            assert!(
                reason.contains(&container) && reason.contains("created"),
                "{}: {reason}",
                directory.display()
            );
            engine.remove(&container);
        }
        // Who looks after all volumes of the machine keeps none of them.
        let all = content.ancestors().nth(2).unwrap();
        engine.create(&container, &[all.to_str().unwrap()], &[]);
        assert!(scene.gc(&["-y"])[0].done);
        engine.remove(&container);
    });
}

#[test]
fn a_volume_that_was_there_before_the_worktree_is_kept() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let volume = scene.volume(10_000);
    engine.volume(&volume, &[]);
    let (path, offset) = scene.add(&daemon, "one");
    assert_eq!(offset, 10_000);
    // Docker 20.10 takes the last change of the top directory for the time when the volume was made.
    std::fs::write(engine.content(&volume).join("used"), "").unwrap();
    scene.repo.remove(&path);
    let reason = scene.kept(&[]);
    assert!(reason.contains("before") && reason.contains("; `docker volume rm` drops it if"), "{reason}");
    engine.remove_volume(&volume);
}

#[test]
fn a_volume_that_a_compose_file_names_by_the_worktrees_variables_is_the_worktrees() {
    on_a_scene(|scene, daemon, path, offset| {
        let engine = scene.engine;
        let sandbox = scene.sandbox;
        let project = scene.project(offset);
        // As `cache-${COMPOSE_PROJECT_NAME}`, `${PORT_OFFSET}` and `${DB_HOST_PORT}` give them; and one with a fixed name.
        let own = [
            format!("cache-{project}"),
            format!("{}-cache-{offset}", scene.stem),
            format!("{}.pg.{}", scene.stem, 5432 + offset),
        ];
        let fixed = format!("{}-cache-1{offset}", scene.stem);
        for name in own.iter().chain([&fixed]) {
            engine.compose_volume(&project, "cache", name);
        }
        scene.repo.remove(path);
        daemon.await_state(path, "stale");
        // A new worktree at this offset would open them.
        sandbox.client(["gc", "--dry-run"]).ok();
        assert!(!is_free(sandbox, path));
        let mut dropped: Vec<_> = scene.gc(&["-y"]).into_iter().map(|line| (line.name, line.done)).collect();
        dropped.sort();
        let mut expected = own.map(|name| (name, true));
        expected.sort();
        assert_eq!(dropped, expected);
        assert!(is_free(sandbox, path));
        assert!(engine.inspect(&fixed).is_some(), "every other worktree opens it too");
        engine.remove_volume(&fixed);
    });
}

#[test]
fn what_a_stack_left_under_the_projects_former_name_is_the_worktrees() {
    on_a_scene(|scene, daemon, path, offset| {
        let engine = scene.engine;
        let sandbox = scene.sandbox;
        let project = scene.project(offset);
        let volume = format!("{project}_data");
        engine.compose_volume(&project, "data", &volume);
        let file = scene.repo.path.join("wtd.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, format!("project = \"{}-store\"\n{text}", scene.stem)).unwrap();
        assert_ne!(daemon.put(path)["project"], project.as_str());
        let refused = sandbox.client(["reassign", path.to_str().unwrap()]).fails(1);
        assert!(refused.contains(&format!("volume {volume} exists")), "{refused}");
        scene.repo.remove(path);
        daemon.await_state(path, "stale");
        // With the file as it was before, a new worktree at this offset would open it.
        sandbox.client(["gc", "--dry-run"]).ok();
        assert!(!is_free(sandbox, path));
        let dropped: Vec<_> = scene.gc(&["-y"]).into_iter().map(|line| (line.name, line.done)).collect();
        assert_eq!(dropped, [(volume, true)]);
        assert!(is_free(sandbox, path));
    });
}

#[test]
fn what_a_live_worktree_has_by_its_directorys_name_is_kept() {
    on_a_scene(|scene, daemon, path, offset| {
        let engine = scene.engine;
        let sandbox = scene.sandbox;
        // A stack that is started here without the worktree's variables has the name that the other's has with them.
        let project = scene.project(offset);
        let other = sandbox.path(&project);
        scene.repo.add_at(&other, "other");
        daemon.put(&other);
        let volume = format!("{project}_data");
        engine.compose_volume(&project, "data", &volume);
        scene.repo.remove(path);
        let reason = scene.kept(&["--missing", "--down"]);
        assert_eq!(reason, format!("the worktree {} has it", other.display()));
        scene.repo.remove(&other);
        scene.gc(&["-y"]);
        assert!(engine.inspect(&volume).is_none());
    });
}

#[test]
fn another_projects_volume_and_odd_ones_are_kept() {
    on_a_scene(|scene, _, path, offset| {
        let engine = scene.engine;
        let volume = scene.volume(offset);
        scene.repo.remove(path);
        // Its worktree is gone, so while the volume is away the offset must not be given up between two of these.
        let label = |name: &str, value: &str| json!({ "Name": volume, "Labels": { name: value } });
        let held = format!("{}_held", scene.project(offset));
        engine.compose_volume(&scene.project(offset), "held", &held);
        let user = format!("{}-holder", scene.stem);
        engine.create(&user, &[&held], &[]);
        let anew = |body: serde_json::Value, why: &str| {
            if engine.inspect(&volume).is_some() {
                engine.remove_volume(&volume);
            }
            engine.volume_of(&body);
            let lines = scene.gc(&["-y", "--missing", "--down"]);
            let line = lines.iter().find(|line| line.name == volume).unwrap();
            assert!(line.action == "keep" && line.reason.contains(why), "{line:#?}");
            assert!(engine.inspect(&volume).is_some());
        };
        anew(label("com.docker.compose.project", "billing"), "billing");
        anew(label("dev.wtd.allocation", "0191e5f0-0000-7000-8000-000000000000"), "allocation 0191e5f0");
        let options = json!({ "type": "tmpfs", "device": "tmpfs", "o": "size=1m" });
        anew(
            json!({ "Name": volume, "DriverOpts": options }),
            "driver options (device, o, type); `docker volume rm` drops it",
        );
        engine.remove_volume(&volume);
        engine.remove(&user);
        engine.remove_volume(&held);
    });
}

#[test]
fn an_external_volume_is_not_so_much_as_named() {
    on_a_scene(|scene, _, path, offset| {
        let engine = scene.engine;
        engine.volume(&scene.volume(offset), &[]);
        let external = format!("{}_external", scene.stem);
        engine.volume(&external, &[]);
        let container = format!("{}-db-1", scene.project(offset));
        let project = scene.project(offset);
        engine.create(&container, &[&external], &Engine::stack(&project, path.to_str().unwrap()));
        scene.repo.remove(path);
        let lines = scene.gc(&["-y", "--down"]);
        assert!(lines.len() == 1 && lines[0].done && lines[0].name == scene.volume(offset), "{lines:#?}");
        assert_eq!(scene.volumes(), std::slice::from_ref(&external));
        engine.remove_volume(&external);
    });
}

#[test]
fn what_is_missing_locked_or_forgotten_is_kept_until_a_person_says_otherwise() {
    on_a_scene(|scene, daemon, path, offset| {
        let engine = scene.engine;
        let sandbox = scene.sandbox;
        let volume = scene.volume(offset);
        engine.volume(&volume, &[]);
        assert!(
            scene.gc(&["--dry-run", "--missing"]).is_empty(),
            "a live worktree's volume is not in the plan"
        );
        scene.repo.git(["worktree", "lock", path.to_str().unwrap()]);
        let aside = sandbox.path("aside");
        std::fs::rename(path, &aside).unwrap();
        daemon.await_state(path, "missing");
        let reason = scene.kept(&[]);
        assert!(reason.contains("lock"), "{reason}");
        let reason = scene.kept(&["--missing"]);
        assert!(reason.contains("lock"), "not even then: {reason}");
        scene.repo.git(["worktree", "unlock", path.to_str().unwrap()]);
        let reason = scene.kept(&[]);
        assert!(reason.contains("missing"), "{reason}");
        let reason = scene.kept(&["--missing", "--older-than", "1h"]);
        assert!(reason.contains("--older-than"), "{reason}");
        // It comes back, and everything is as it was.
        std::fs::rename(&aside, path).unwrap();
        daemon.await_state(path, "active");
        assert_eq!(sandbox.offset(path), offset);
        std::fs::remove_dir_all(path).unwrap();
        daemon.await_state(path, "missing");
        let lines = scene.gc(&["-y", "--missing"]);
        assert!(lines.len() == 1 && lines[0].done, "{lines:#?}");
        assert!(is_free(sandbox, path));

        let (path, offset) = scene.add(daemon, "two");
        engine.volume(&scene.volume(offset), &[]);
        sandbox.client(["forget", "-y", path.to_str().unwrap()]).ok();
        let reason = scene.kept(&[]);
        assert!(reason.contains("forgotten"), "{reason}");
        let lines = scene.gc(&["-y", "--missing"]);
        assert!(lines.len() == 1 && lines[0].done, "{lines:#?}");
    });
}

#[test]
fn a_repository_that_is_not_mounted_keeps_its_data() {
    let Some(engine) = engine::shared() else { return };
    let sandbox = sandbox(&engine.host());
    let disk = sandbox.path("disk");
    std::fs::create_dir_all(&disk).unwrap();
    if !require::mounts(&disk) {
        return;
    }
    let mount = |disk: &std::path::Path| {
        Ran::of(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(disk)).ok();
    };
    mount(&disk);
    let mut scene = Scene::new(&sandbox, engine);
    scene.repo = sandbox.repo(&format!("disk/{}", scene.stem));
    let text = format!("[database]\nvolume = \"{}\"\n", scene.stem);
    std::fs::write(scene.repo.path.join("wtd.toml"), text).unwrap();
    let daemon = sandbox.daemon();
    daemon.put(&scene.repo.path);
    let (path, offset) = scene.add(&daemon, "one");
    assert_eq!(offset, 10_000);
    engine.volume(&scene.volume(offset), &[]);
    // Git's own files are on the disk that goes, so nothing looks like a removal but the emptiness itself.
    Ran::of(Command::new("umount").arg("-l").arg(&disk)).ok();
    let reason = scene.kept(&[]);
    assert!(reason.contains("missing"), "{reason}");
    assert!(!is_free(&sandbox, &path));
    // Another disk in its place proves nothing either.
    mount(&disk);
    scene.kept(&[]);
    Ran::of(Command::new("umount").arg("-l").arg(&disk)).ok();
    engine.remove_volume(&scene.volume(offset));
}

#[test]
fn another_engine_is_let_alone_and_one_that_is_down_frees_nothing() {
    let (Some(engine), Some(other)) = (engine::shared(), Engine::start()) else { return };
    let sandbox = sandbox(&engine.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let (path, offset) = scene.add(&daemon, "one");
    let volume = scene.volume(offset);
    engine.volume(&volume, &[]);
    other.volume(&volume, &[]);
    daemon.terminate();
    scene.repo.remove(&path);

    let elsewhere = |host: &str| format!("engine = \"{host}\"\nprobe = false\n");
    sandbox.configure(&elsewhere(&other.host()));
    let daemon = sandbox.daemon();
    let plan = scene.gc(&["-y", "--missing"]);
    assert!(
        plan.len() == 1 && plan[0].action == "keep" && plan[0].reason.contains("another engine"),
        "{plan:#?}"
    );
    assert!(other.inspect(&volume).is_some() && engine.inspect(&volume).is_some());
    // Not even when this one has nothing of it: the other one has.
    other.remove_volume(&volume);
    daemon.terminate();
    let daemon = sandbox.daemon();
    daemon.await_state(&path, "stale");
    sandbox.client(["gc", "-y"]).ok();
    assert!(!is_free(&sandbox, &path));
    daemon.terminate();

    sandbox.configure(&elsewhere("unix:///nowhere/docker.sock"));
    let daemon = sandbox.daemon();
    let line = sandbox.client(["gc", "-y"]).fails(1);
    assert!(line.contains("container engine") && line.contains("--no-engine"), "{line}");
    daemon.await_state(&path, "stale");
    let shown = sandbox.client(["gc", "--dry-run", "--no-engine"]).ok();
    assert!(shown.contains(&format!("offset {offset} will be free")), "{shown}");
    let done = sandbox.client(["gc", "-y", "--no-engine"]).ok();
    assert!(done.contains(&format!("offset {offset}")), "{done}");
    assert!(is_free(&sandbox, &path));
    assert!(engine.inspect(&volume).is_some(), "its word is about the offset, not about data");
    engine.remove_volume(&volume);
}

#[test]
fn a_machine_without_an_engine_has_nothing_to_drop() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let path = repo.add("one");
    daemon.await_agreement(&repo);
    repo.remove(&path);
    daemon.await_state(&path, "released");
    let nothing = sandbox.client(["gc", "-y"]).ok();
    assert!(nothing.contains("Nothing is left"), "{nothing}");
    assert_eq!(sandbox.client(["gc", "--dry-run", "--json"]).ok().trim(), "[]");
}
