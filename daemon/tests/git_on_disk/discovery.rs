//! Which worktree a path lies in.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::Path;

use wtd::git::{DiscoverError, Discovered, discover, discover_settled};

use super::support::*;

#[test]
fn every_path_in_the_main_worktree_leads_to_it() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    fs::create_dir_all(root.join("a/b")).unwrap();
    fs::write(root.join("a/file"), "").unwrap();
    symlink(&root, scratch.path("link")).unwrap();
    let expected = Discovered {
        common_dir: root.join(".git"),
        git_dir: root.join(".git"),
        root: Some(root.clone()),
        linked_id: None,
    };
    for path in
        ["main", "main/a/b", "main/a/file", "main/.git", "main/.git/refs/heads", "main/.git/HEAD", "link/a"]
    {
        assert_eq!(discover(&scratch.path(path)).unwrap(), expected, "{path}");
    }
}

#[test]
fn every_path_in_a_linked_worktree_and_in_its_git_dir_leads_to_it() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    fs::create_dir(linked.join("a")).unwrap();
    let git_dir = main.join(".git/worktrees/linked");
    let expected = Discovered {
        common_dir: main.join(".git"),
        git_dir: git_dir.clone(),
        root: Some(linked.clone()),
        linked_id: Some("linked".into()),
    };
    for path in [&linked, &linked.join("a"), &linked.join(".git"), &git_dir, &git_dir.join("HEAD")] {
        assert_eq!(&discover(path).unwrap(), &expected, "{path:?}");
    }
    assert_eq!(discover(&main.join(".git/worktrees")).unwrap().linked_id, None);
}

#[test]
fn a_git_dir_whose_worktree_points_elsewhere_has_no_root() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    fs::remove_dir_all(linked).unwrap();
    let found = discover(&main.join(".git/worktrees/linked")).unwrap();
    assert_eq!((found.root, found.linked_id), (None, Some("linked".into())));
}

#[test]
fn a_bare_repository_has_no_root_and_its_linked_worktrees_have() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    let bare = scratch.path("bare");
    git(&scratch.path(""), ["clone", "-q", "--bare", "main", "bare"]);
    let linked = scratch.path("linked");
    add(&bare, &linked);
    for path in [bare.clone(), bare.join("refs")] {
        let found = discover(&path).unwrap();
        assert_eq!((found.git_dir, found.root, found.linked_id), (bare.clone(), None, None));
    }
    let found = discover(&linked).unwrap();
    assert_eq!((found.common_dir, found.root), (bare, Some(linked)));

    git(&root, ["config", "core.bare", "true"]);
    assert_eq!(discover(&root).unwrap().root, None);
}

#[test]
fn a_bare_repository_beside_a_dot_git_file_is_bare() {
    let scratch = Scratch::new();
    let project = scratch.path("project");
    fs::create_dir(&project).unwrap();
    git(&project, ["init", "-q", "--bare", ".bare"]);
    fs::write(project.join(".git"), "gitdir: ./.bare\n").unwrap();
    let found = discover(&project).unwrap();
    assert_eq!((found.common_dir, found.root), (project.join(".bare"), None));
}

#[test]
fn a_separate_git_dir_has_the_root_that_it_was_reached_from() {
    let scratch = Scratch::new();
    let root = scratch.path("root");
    git(&scratch.path(""), ["init", "-q", "--separate-git-dir", "elsewhere", "root"]);
    let found = discover(&root).unwrap();
    assert_eq!((found.git_dir, found.root), (scratch.path("elsewhere"), Some(root)));
    assert_eq!(discover(&scratch.path("elsewhere/refs")).unwrap().root, None);
}

#[test]
fn a_submodule_is_a_repository_of_its_own_wherever_it_is_reached_from() {
    let scratch = Scratch::new();
    scratch.repository("library");
    let main = scratch.repository("main");
    git(&main, ["submodule", "add", "-q", "../library", "sub"]);
    git(&main, ["commit", "-q", "-m", "sub"]);
    let git_dir = main.join(".git/modules/sub");
    for path in [main.join("sub"), git_dir.clone()] {
        let found = discover(&path).unwrap();
        assert_eq!((found.common_dir, found.root), (git_dir.clone(), Some(main.join("sub"))));
    }
    // `git sparse-checkout` moves `core.worktree` to a file of its own.
    git(&main.join("sub"), ["sparse-checkout", "set", "--no-cone", "/*"]);
    assert_eq!(discover(&git_dir).unwrap().root, Some(main.join("sub")));

    let linked = scratch.path("linked");
    add(&main, &linked);
    git(&linked, ["submodule", "update", "-q", "--init"]);
    let found = discover(&linked.join("sub")).unwrap();
    assert_eq!(found.common_dir, main.join(".git/worktrees/linked/modules/sub"));
    assert_eq!((found.linked_id, found.root), (None, Some(linked.join("sub"))));
}

#[test]
fn a_nested_worktree_is_not_the_one_around_it() {
    let scratch = Scratch::new();
    let main = scratch.repository("main");
    let nested = main.join(".worktrees/x");
    add(&main, &nested);
    assert_eq!(discover(&nested).unwrap().root, Some(nested));
    assert_eq!(discover(&main.join(".worktrees")).unwrap().root, Some(main));
}

#[test]
fn relative_links_are_followed() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    fs::write(linked.join(".git"), "gitdir: ../main/.git/worktrees/linked\n").unwrap();
    fs::write(main.join(".git/worktrees/linked/gitdir"), "../../../../linked/.git\n").unwrap();
    let found = discover(&linked).unwrap();
    assert_eq!((&found.root, found.linked_id.as_deref()), (&Some(linked), Some(OsStr::new("linked"))));
    assert_eq!(discover(&found.git_dir).unwrap(), found);
}

#[test]
fn a_symbolic_link_for_a_git_dir_is_followed() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    fs::rename(root.join(".git"), scratch.path("moved")).unwrap();
    symlink("../moved", root.join(".git")).unwrap();
    let found = discover(&root).unwrap();
    assert_eq!((found.git_dir, found.root), (scratch.path("moved"), Some(root)));
}

#[test]
fn odd_paths_are_taken_as_git_takes_them() {
    let scratch = Scratch::new();
    let odd: [&[u8]; 10] = [
        b"new\nline",
        b"\xff\xfe",
        b"it's \"quoted\" $(id) `id`;#",
        b"-dash",
        b"end.lock",
        b"a b",
        b".hid",
        "wide space at the end\u{3000}".as_bytes(),
        b"\x1b[31mred",
        b"tilde~^:?*[",
    ];
    for (index, name) in odd.into_iter().enumerate() {
        let main = scratch.repository(Path::new(&index.to_string()).join(OsStr::from_bytes(name)));
        let linked = main.parent().unwrap().join("linked").join(OsStr::from_bytes(name));
        add(&main, &linked);
        for path in [&main, &linked] {
            let found = discover(path).unwrap();
            assert_eq!(found.common_dir, rev_parse(path, "--git-common-dir"));
            assert_eq!(found.git_dir, rev_parse(path, "--absolute-git-dir"));
            assert_eq!(found.root, Some(rev_parse(path, "--show-toplevel")));
        }
        let seen = look(&main.join(".git"));
        assert!(is_finished(only(&seen)), "{:?}", only(&seen));
        assert_eq!(only(&seen).path, linked);
    }
}

#[test]
fn what_is_no_repository_is_told_from_what_is_not_there() {
    let scratch = Scratch::new();
    fs::write(scratch.path("file"), "").unwrap();
    fs::create_dir_all(scratch.path("a/.git")).unwrap();
    symlink("loop", scratch.path("loop")).unwrap();
    assert!(matches!(discover(&scratch.path("a")), Err(DiscoverError::NotInAWorktree)));
    assert!(matches!(discover(&scratch.path("file")), Err(DiscoverError::NotInAWorktree)));
    assert!(matches!(discover(&scratch.path("none")), Err(DiscoverError::NotFound(_))));
    assert!(matches!(discover(&scratch.path("file/below")), Err(DiscoverError::NotFound(_))));
    assert!(matches!(discover(&scratch.path("loop")), Err(DiscoverError::Unreadable { .. })));
    assert!(matches!(discover(&scratch.path("x".repeat(300))), Err(DiscoverError::Unreadable { .. })));
}

#[test]
fn a_dot_git_directory_that_is_no_repository_is_walked_past_as_git_does() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    fs::create_dir_all(root.join("sub/.git/refs")).unwrap();
    assert_eq!(discover(&root.join("sub")).unwrap().root, Some(root));
}

#[test]
fn a_dot_git_file_ends_the_walk_as_it_does_for_git() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    let sub = root.join("sub");
    fs::create_dir(&sub).unwrap();
    for unfinished in ["", "git", "gitdir: ", "gitdir: \n", "something else"] {
        fs::write(sub.join(".git"), unfinished).unwrap();
        assert!(!try_git(&sub, ["rev-parse"]).status.success());
        let found = discover(&sub);
        assert!(matches!(&found, Err(DiscoverError::Unfinished { root }) if *root == sub), "{found:?}");
    }
    let gone = scratch.path("gone");
    fs::write(sub.join(".git"), format!("gitdir: {}\n", gone.display())).unwrap();
    let found = discover(&sub);
    assert!(
        matches!(&found, Err(DiscoverError::Broken { root, git_dir }) if *root == sub && *git_dir == gone),
        "{found:?}"
    );
}

#[test]
fn a_worktree_that_is_being_made_is_waited_for() {
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    let expected = discover(&linked).unwrap();
    let common_dir = main.join(".git/worktrees/linked/commondir");
    fs::write(&common_dir, "").unwrap();
    assert!(matches!(discover(&linked), Err(DiscoverError::Unfinished { .. })));
    let waiting = std::thread::spawn(move || discover_settled(&linked));
    fs::write(&common_dir, "../..\n").unwrap();
    assert_eq!(waiting.join().unwrap().unwrap(), expected);
}

#[test]
fn what_may_not_be_read_is_unknown_and_not_absent() {
    if !as_nobody("discovery::what_may_not_be_read_is_unknown_and_not_absent") {
        return;
    }
    let scratch = Scratch::new();
    let (main, linked) = scratch.with_linked();
    run("chmod", ["000".as_ref(), main.as_os_str()]);
    let found = discover(&linked);
    assert!(matches!(found, Err(DiscoverError::Unreadable { .. })), "{found:?}");
    let found = discover(&main);
    assert!(matches!(found, Err(DiscoverError::Unreadable { .. })), "{found:?}");
    run("chmod", ["700".as_ref(), main.as_os_str()]);
    assert!(discover(&linked).is_ok());
}

#[test]
fn a_working_directory_that_is_gone_hides_nothing() {
    let scratch = Scratch::new();
    let here = scratch.path("here");
    fs::create_dir(&here).unwrap();
    if working_in(&here, "discovery::a_working_directory_that_is_gone_hides_nothing") {
        fs::remove_dir(std::env::current_dir().unwrap()).unwrap();
        let (main, linked) = scratch.with_linked();
        assert_eq!(discover(&linked).unwrap().common_dir, main.join(".git"));
    }
}

#[test]
fn the_walk_ends_where_another_file_system_begins_as_gits_does() {
    let scratch = Scratch::new();
    let root = scratch.repository("main");
    let name = "the_walk_ends_where_another_file_system_begins_as_gits_does";
    let Some(disk) = Disk::mount(&root.join("disk"), name) else { return };
    assert!(!try_git(&disk.path, ["rev-parse"]).status.success());
    assert!(matches!(discover(&disk.path), Err(DiscoverError::NotInAWorktree)));
}
