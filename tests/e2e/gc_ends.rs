//! A gc that is under way when the daemon ends.

use std::fs;
use std::process::Stdio;

use crate::gc::{Scene, sandbox};
use crate::harness::engine;
use crate::harness::engine_proxy::{EngineProxy, Fault};
use crate::harness::until;

/// Has the daemon end while a gc of two volumes waits for the engine's answer to a request like this; gives what the client
/// says, and how many volumes are left. `waits`: the daemon does until the engine has answered.
#[track_caller]
fn ended_at(request: &str, waits: bool, arguments: &[&str]) -> Option<(String, usize)> {
    let engine = engine::shared()?;
    let directory = tempfile::tempdir_in("/tmp").unwrap();
    let proxy = EngineProxy::start(engine.socket());
    let sandbox = sandbox(&proxy.host());
    let (scene, daemon) = Scene::with_daemon(&sandbox, engine);
    let paths = ["one", "two"].map(|name| {
        let (path, offset) = scene.add(&daemon, name);
        engine.volume(&scene.volume(offset), &[]);
        fs::write(engine.content(&scene.volume(offset)).join("file"), "content").unwrap();
        path
    });
    for path in &paths {
        scene.repo.remove(path);
    }
    proxy.arm_at(Fault::Hold, request, 0, 0);
    let mut client = sandbox.client_command(["gc", "-y", "--json"]);
    client.args(arguments).current_dir(directory.path()).env("WTD_NO_START", "1").stdin(Stdio::null());
    let client = client.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    proxy.await_held();
    std::thread::scope(|scope| {
        let ending = scope.spawn(|| daemon.terminate());
        until(
            "it begins to end",
            || fs::read_to_string(sandbox.path("wtd-0.log")).unwrap(),
            |log| log.contains("stopping"),
        );
        if waits {
            proxy.let_pass();
        }
        ending.join().unwrap();
        proxy.let_pass();
    });
    let said = String::from_utf8(client.wait_with_output().unwrap().stderr).unwrap();
    let left = scene.volumes();
    assert_eq!(engine.helpers(&sandbox), [""; 0]);
    for volume in &left {
        engine.remove_volume(volume);
    }
    let kept = fs::read_dir(directory.path().join("kept")).into_iter().flatten();
    let halves = kept.filter(|file| file.as_ref().unwrap().path().extension().is_some_and(|it| it == "part"));
    assert_eq!(halves.count(), 0);
    Some((said, left.len()))
}

#[test]
fn it_ends_after_the_step_that_it_is_at_and_says_so() {
    let Some((said, left)) = ended_at("DELETE", true, &[]) else { return };
    assert_eq!(left, 1, "what was under way is done, and no more: {said}");
    assert!(said.contains("the daemon is shutting down"), "{said}");
}

#[test]
fn a_backup_is_not_waited_for() {
    let Some((said, left)) = ended_at("/archive", false, &["--backup", "kept"]) else { return };
    assert_eq!(left, 2, "{said}");
    assert!(said.contains("the daemon is shutting down"), "{said}");
}
