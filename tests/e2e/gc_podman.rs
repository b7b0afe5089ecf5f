//! `gc` on Podman, by its Docker API: as on Docker, but for backups.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};

use crate::gc::{self, Scene, sandbox};
use crate::gc_keeps::keeps_what_is_in_use;
use crate::harness::engine::{self, Engine};

#[test]
fn podmans_volumes_are_dropped_and_kept_as_dockers_are() {
    let Some(podman) = Engine::podman() else { return };
    gc::drops_exactly_what_was_left(&podman);
    gc::frees_what_was_removed_by_hand(&podman);
    keeps_what_is_in_use(&podman);
}

#[test]
fn what_podman_would_not_give_back_whole_is_kept_and_what_docker_gave_is_restored_whole() {
    let (Some(podman), Some(docker)) = (Engine::podman(), engine::shared()) else { return };
    let removed = |engine: &Engine, directory: &str| {
        let sandbox = sandbox(&engine.host());
        let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
        let (path, offset) = scene.add(&daemon, "one");
        let volume = scene.volume(offset);
        engine.volume(&volume, &[]);
        let file = engine.content(&volume).join("file");
        fs::write(&file, "mine").unwrap();
        chown(&file, Some(999), Some(998)).unwrap();
        scene.repo.remove(&path);
        let ran = sandbox.client(["gc", "-y", "--backup", directory]);
        (ran, engine.inspect(&volume).is_some(), volume)
    };
    let kept = tempfile::tempdir().unwrap();
    let directory = kept.path().to_str().unwrap();
    let (ran, is_there, volume) = removed(&podman, directory);
    assert!(is_there && fs::read_dir(&kept).unwrap().next().is_none(), "{ran:#?}");
    assert_eq!(ran.code, Some(1), "{ran:#?}");
    assert!(ran.stderr.contains(&format!("podman volume export {volume}")), "{ran:#?}");

    let (ran, is_there, volume) = removed(docker, directory);
    ran.ok();
    assert!(!is_there);
    let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
    let sandbox = sandbox(&podman.host());
    let _daemon = sandbox.daemon();
    sandbox.client(["restore", file.to_str().unwrap()]).ok();
    let file = podman.content(&volume).join("file").metadata().unwrap();
    assert_eq!((file.uid(), file.gid()), (999, 998));
}
