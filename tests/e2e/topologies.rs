//! Repositories of every shape that git makes.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::harness::{Ran, Repo, Sandbox, require};

#[test]
fn any_path_inside_of_a_worktree_leads_to_it() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    for root in [&repo.path, &one] {
        fs::create_dir_all(root.join("a/b")).unwrap();
    }
    symlink(&one, sandbox.path("link")).unwrap();
    symlink(one.join("a"), sandbox.path("inner")).unwrap();
    let offset = |path: &Path| sandbox.offset(path);
    assert_eq!(offset(&one.join("a/b")), 10_000);
    for path in ["a", "file", ".git", "a/../a/b"] {
        assert_eq!(offset(&one.join(path)), 10_000, "{path}");
        assert_eq!(offset(&repo.path.join(path)), 0, "{path}");
    }
    for path in ["link", "link/a", "inner", "inner/b"] {
        assert_eq!(offset(&sandbox.path(path)), 10_000, "{path}");
    }
    assert_eq!(offset(&repo.git_dir(&one)), 10_000);
    let relative = sandbox.client_in(&one.join("a"), ["get", "PORT_OFFSET", "--path", "../.."]).fails(3);
    assert!(relative.contains("no worktree") || relative.contains("not in a git worktree"), "{relative}");
    assert_eq!(sandbox.client_in(&one.join("a"), ["get", "PORT_OFFSET", "--path", ".."]).ok(), "10000\n");
}

#[test]
fn the_worktrees_of_a_bare_repository_are_all_linked() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let source = sandbox.repo("source");
    source.git(["clone", "-q", "--bare", ".", "../app.git"]);
    let bare = Repo::at(&sandbox, &sandbox.path("app.git"));
    sandbox.client_in(&bare.path, ["get", "PORT_OFFSET"]).fails(3);
    assert_eq!(sandbox.client_in(&bare.path, ["env", "--shell", "sh"]).quiet(), "");
    sandbox.client(["add", "app.git"]).ok();
    let one = sandbox.path("one");
    bare.add_at(&one, "one");
    let rows = daemon.await_agreement(&bare);
    let row = rows.at(&one);
    assert_eq!((row.offset, row.main, row.project.as_str()), (0, false, "app"));
    assert_eq!(sandbox.get(&one, "COMPOSE_PROJECT_NAME"), "app-0");
    // A bare repository may keep its configuration in the common dir.
    fs::write(bare.path.join("wtd.toml"), "[ports]\nUI_PORT = 3000\n").unwrap();
    let two = sandbox.path("two");
    bare.add_at(&two, "two");
    let rows = daemon.await_agreement(&bare);
    assert_eq!(rows.at(&two).ports["UI_PORT"], 3000 + rows.at(&two).offset);
}

#[test]
fn a_git_dir_elsewhere_is_one_repository_with_its_worktree() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    repo.git(["init", "-q", "--separate-git-dir", "../elsewhere"]);
    daemon.put(&repo.path);
    let one = repo.add("one");
    let rows = daemon.await_state(&one, "active");
    assert_eq!((rows.at(&repo.path).offset, rows.at(&one).offset), (0, 10_000));
    assert_eq!(rows.at(&repo.path).repository, sandbox.path("elsewhere").display().to_string());
    assert_eq!(rows.at(&one).project, "app", "named after the main worktree's directory");
    daemon.terminate();
    let daemon = sandbox.daemon();
    let two = repo.add("two");
    assert_eq!(daemon.await_state(&two, "active").at(&repo.path).offset, 0);
}

#[test]
fn moving_the_git_dir_elsewhere_keeps_the_allocations() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let before = daemon.await_agreement(&repo);
    repo.git(["init", "-q", "--separate-git-dir", "../elsewhere"]);
    assert_eq!(sandbox.offset(&repo.path), 0);
    repo.git(["worktree", "repair"]);
    assert_eq!(sandbox.offset(&one), 10_000);
    let rows = sandbox.list();
    for path in [&repo.path, &one] {
        assert_eq!(rows.at(path).id, before.at(path).id);
    }
}

#[test]
fn a_submodule_is_a_repository_of_its_own() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (library, repo) = (sandbox.repo("library"), sandbox.repo("app"));
    let source = library.path.to_str().unwrap();
    repo.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", source, "lib"]);
    repo.git(["commit", "-q", "-m", "submodule"]);
    let submodule = Repo::at(&sandbox, &repo.path.join("lib"));
    assert_eq!((sandbox.offset(&repo.path), sandbox.offset(&submodule.path)), (0, 10_000));
    let rows = daemon.await_state(&submodule.path, "active");
    let row = rows.at(&submodule.path);
    assert!(row.main && row.repository.ends_with("/app/.git/modules/lib"), "{row:#?}");
    assert_eq!(row.project, "lib");

    // Checked out in a linked worktree of the superproject it has a git dir there, which goes with that one.
    let one = repo.add("one");
    let linked = Repo::at(&sandbox, &one);
    linked.git(["-c", "protocol.file.allow=always", "submodule", "--quiet", "update", "--init"]);
    let inner = one.join("lib");
    let offset = sandbox.offset(&inner);
    assert!(![0, 10_000, sandbox.offset(&one)].contains(&offset));
    let of_submodule = sandbox.path("of-submodule");
    submodule.add_at(&of_submodule, "branch");
    let rows = daemon.await_state(&of_submodule, "active");
    rows.assert_disjoint();
    assert_eq!(rows.active(None).len(), 5);
    repo.remove(&one);
    daemon.await_state(&one, "released");
}

#[test]
fn worktrees_inside_of_worktrees_are_told_apart() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (outer, inner) = (repo.path.join(".worktrees/one"), repo.path.join(".worktrees/one/deep/two"));
    repo.add_at(&outer, "one");
    repo.add_at(&inner, "two");
    let rows = daemon.await_agreement(&repo);
    let offset = |path: &Path| rows.at(path).offset;
    assert_eq!([offset(&repo.path), offset(&outer), offset(&inner)], [0, 10_000, 20_000]);
    assert_eq!([&repo.path, &outer, &inner].map(|path| sandbox.offset(path)), [0, 10_000, 20_000]);
    assert_eq!(sandbox.offset(&outer.join("deep")), 10_000);
    repo.remove(&inner);
    daemon.await_state(&inner, "released");
    assert_eq!(daemon.await_agreement(&repo).offsets(), [0, 10_000]);
}

#[test]
fn relative_gitdir_files_are_read() {
    if !require::git(2, 48) {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = sandbox.path("one");
    repo.git(["worktree", "add", "-q", "--relative-paths", one.to_str().unwrap()]);
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).offset, 10_000);
    let moved = sandbox.path("moved");
    repo.mv(&one, &moved);
    assert_eq!(daemon.await_agreement(&repo).at(&moved).id, rows.at(&one).id);
}

#[test]
fn relative_gitdir_files_are_read_even_where_git_is_too_old_to_write_them() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    fs::write(repo.path.join(".git/worktrees/app-one/gitdir"), "../../../../app-one/.git\n").unwrap();
    fs::write(one.join(".git"), "gitdir: ../app/.git/worktrees/app-one\n").unwrap();
    assert_eq!((sandbox.offset(&repo.path), sandbox.offset(&one)), (0, 10_000));
    assert_eq!(sandbox.list().at(&one).branch.as_deref(), Some("one"));
}

#[test]
fn a_repository_with_reftable_is_as_any_other() {
    if !require::git(2, 45) {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let path = sandbox.path("app");
    fs::create_dir(&path).unwrap();
    let repo = Repo::at(&sandbox, &path);
    repo.git(["init", "-q", "-b", "main", "--ref-format=reftable"]);
    repo.git(["commit", "-q", "--allow-empty", "-m", "first"]);
    daemon.put(&repo.path);
    let one = repo.add("one");
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).offset, 10_000);
    assert_eq!(
        (rows.at(&one).branch.as_deref(), rows.at(&path).branch.as_deref()),
        (Some("one"), Some("main"))
    );
    repo.remove(&one);
    daemon.await_state(&one, "released");
}

#[test]
fn every_way_of_adding_a_worktree_is_seen() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    repo.git(["branch", "existing"]);
    let mut ways = vec![
        vec!["--detach"],
        vec!["--no-checkout"],
        vec!["--lock"],
        vec!["--no-checkout", "--lock", "--detach"],
        vec!["-B", "reset"],
    ];
    if require::git(2, 42) {
        ways.push(vec!["--orphan", "-b", "orphan"]);
    }
    for (number, options) in ways.iter().enumerate() {
        let path = sandbox.path(format!("w{number}"));
        let arguments =
            ["worktree", "add", "-q"].iter().chain(options).copied().chain([path.to_str().unwrap()]);
        repo.git(arguments.collect::<Vec<_>>());
        let rows = daemon.await_agreement(&repo);
        assert!(rows.find(&path).is_some(), "{options:?}");
    }
    let path = sandbox.path("w-existing");
    repo.git(["worktree", "add", "-q", path.to_str().unwrap(), "existing"]);
    assert_eq!(daemon.await_agreement(&repo).at(&path).branch.as_deref(), Some("existing"));
    // Over a registered worktree whose directory is gone, git makes a new one under the same id.
    let before = sandbox.list().at(&path).id.clone();
    fs::remove_dir_all(&path).unwrap();
    daemon.await_state(&path, "missing");
    repo.git(["worktree", "add", "-q", "-f", path.to_str().unwrap(), "existing"]);
    let rows = daemon.await_agreement(&repo);
    assert_ne!(rows.at(&path).id, before, "another incarnation");
}

#[test]
fn a_post_checkout_hook_has_the_new_worktrees_variables() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let hook = repo.path.join(".git/hooks/post-checkout");
    fs::create_dir_all(hook.parent().unwrap()).unwrap();
    let said = sandbox.path("said");
    // git sets GIT_DIR and others for its hooks; they must lead nobody astray.
    let script = format!("#!/bin/sh\nwtd-client --no-start get PORT_OFFSET >> '{}' 2>&1\n", said.display());
    fs::write(&hook, script).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    assert_eq!(sandbox.offset(&repo.path), 0);
    repo.add("one");
    repo.add("two");
    assert_eq!(fs::read_to_string(said).unwrap(), "10000\n20000\n");
}

#[test]
fn a_repository_that_git_cannot_list_loses_nothing() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let (one, two) = (repo.add("one"), repo.add("two"));
    let before = daemon.await_agreement(&repo);
    // An empty commondir makes `git worktree list` fail for the whole repository.
    fs::write(repo.git_dir(&one).join("commondir"), "").unwrap();
    assert_ne!(repo.try_git(["worktree", "list"]).code, Some(0));
    fs::remove_dir_all(&two).unwrap();
    let rows = daemon.await_state(&two, "missing");
    assert_eq!(rows.at(&two).id, before.at(&two).id);
    daemon.terminate();
    let _daemon = sandbox.daemon();
    let rows = sandbox.list();
    assert!(rows.at(&two).is("missing") && !rows.at(&one).is("stale"));
    rows.assert_disjoint();
}

#[test]
fn a_worktree_that_is_another_repository_now_is_no_longer_ours() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    let id = daemon.await_agreement(&repo).at(&one).id.clone();
    fs::remove_file(one.join(".git")).unwrap();
    Ran::of(sandbox.command("git").current_dir(&one).args(["init", "-q"])).ok();
    let row = daemon.put(&one);
    assert_ne!(row["id"], id.as_str());
    assert_eq!(row["offset"], 20_000);
    // The look at the old repository is another one than that which was asked for.
    daemon.await_list("the old one is missing", |rows| rows.id(&id).is_some_and(|row| row.is("missing")));
}

#[test]
fn a_work_tree_that_only_its_repository_knows_of_is_told_to_be_one() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let elsewhere = sandbox.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    repo.git(["config", "core.worktree", elsewhere.to_str().unwrap()]);
    let line = sandbox.client_in(&repo.path, ["get", "PORT_OFFSET"]).fails(1);
    assert!(line.contains("core.worktree") && line.contains("has no .git"), "{line}");
    fs::write(elsewhere.join(".git"), format!("gitdir: {}\n", repo.path.join(".git").display())).unwrap();
    assert_eq!(sandbox.client_in(&repo.path, ["get", "PORT_OFFSET"]).ok(), "0\n");
}
