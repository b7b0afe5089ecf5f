//! What a path given to `forget` means, however it is written.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::Sandbox;

#[test]
fn volumes_are_said_to_stay_only_where_there_is_an_engine_for_them() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let told = sandbox.client_in(&repo.path, ["forget", "-y", "."]).quiet();
    assert!(told.contains("offset 0 is stale") && !told.contains("volumes"), "{told}");
    assert!(told.contains("no longer watched"), "{told}");
    assert!(sandbox.client(["list"]).ok().contains("No worktrees yet"));
}

#[test]
fn a_missing_worktree_is_forgotten_alone_however_its_path_is_written() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    for (number, (written, is_there)) in [
        ("trees/../trees/one", false),
        ("../link/trees/one", false),
        ("./trees//one/", false),
        // A directory like any other, in the main worktree: it is not the repository that is meant.
        ("trees/../trees/one", true),
        ("../link/trees/one", true),
    ]
    .into_iter()
    .enumerate()
    {
        let repo = sandbox.repo(&format!("app{number}"));
        daemon.put(&repo.path);
        let (one, two) = (repo.path.join("trees/one"), repo.path.join("trees/two"));
        repo.add_at(&one, "one");
        repo.add_at(&two, "two");
        let before = daemon.await_agreement(&repo);
        let link = sandbox.path("link");
        drop(fs::remove_file(&link));
        symlink(&repo.path, &link).unwrap();
        fs::remove_dir_all(&one).unwrap();
        if is_there {
            fs::create_dir(&one).unwrap();
        }
        daemon.await_state(&one, "missing");

        let told = sandbox.client_in(&repo.path, ["forget", "-y", written]).quiet();
        assert!(told.contains("trees/one") && !told.contains("no longer watched"), "{written}: {told}");
        let rows = sandbox.list_all();
        let row = rows.id(&before.at(&one).id).unwrap();
        assert!(row.is("stale") || row.is("released"), "{written}: {row:#?}");
        for path in [&repo.path, &two] {
            assert_eq!(
                rows.id(&before.at(path).id).unwrap().state,
                "active",
                "{written}: {}",
                path.display()
            );
        }
    }
}
