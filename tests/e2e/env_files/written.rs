//! `env --write`: what becomes of the file.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};

use super::{BEGIN, END, block, with_worktree, world, write};
use crate::harness::{Mount, Nobody, Ran, Repo, Sandbox, require, tree};

#[test]
fn the_rest_of_a_file_stays_byte_for_byte() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (_, one) = with_worktree(&sandbox);
    let block = block(&sandbox, &one);
    let file = one.join(".env");
    for (content, end) in [
        (&b""[..], "\n"),
        (b"A=1\n", "\n"),
        (b"A=1\n# comment\n\n\nexport B='x y'\n", "\n"),
        (b"A=1", "\n"),
        (b"A=1\r\nB=2\r\n", "\r\n"),
        (b"A=1\r\nB=2", "\r\n"),
        (b"\xef\xbb\xbfA=1\n", "\n"),
        (b"A=\xff\xfe \t\nB=\x01\n", "\n"),
        (b"A=1\r", "\n"),
    ] {
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        write(&sandbox, &one, [".env"]).ok();
        let missing_end = if content.is_empty() || content.ends_with(b"\n") { "" } else { end };
        let expected = [content, missing_end.as_bytes(), block.replace('\n', end).as_bytes()].concat();
        assert_eq!(String::from_utf8_lossy(&fs::read(&file).unwrap()), String::from_utf8_lossy(&expected));
        assert_eq!(fs::read(&file).unwrap(), expected);
        let before = fs::metadata(&file).unwrap();
        assert_eq!(before.mode() & 0o7777, 0o640);
        assert_eq!(write(&sandbox, &one, [".env"]).quiet(), "");
        let after = fs::metadata(&file).unwrap();
        let marks =
            |found: &fs::Metadata| (found.ino(), found.mtime(), found.mtime_nsec(), found.ctime_nsec());
        assert_eq!(marks(&before), marks(&after), "what is right is not touched");
        // What a person adds below the block stays below it, and what they change in it is put right.
        let text = [&expected, &b"Z=9"[..]].concat();
        fs::write(
            &file,
            String::from_utf8_lossy(&text).replace("PORT_OFFSET=10000", "PORT_OFFSET=1").as_bytes(),
        )
        .unwrap();
        let broken = fs::read(&file).unwrap();
        write(&sandbox, &one, [".env"]).ok();
        let repaired = String::from_utf8_lossy(&broken).replace("PORT_OFFSET=1", "PORT_OFFSET=10000");
        assert_eq!(String::from_utf8_lossy(&fs::read(&file).unwrap()), repaired);
    }
    assert_eq!(write(&sandbox, &one, [".env", "UI_PORT"]).code, Some(1), "a variable that there is not");
    write(&sandbox, &one, ["sub/dir/some.env", "DB_HOST_PORT"]).ok();
    let text = fs::read_to_string(one.join("sub/dir/some.env")).unwrap();
    assert_eq!(text, format!("{BEGIN}\nDB_HOST_PORT=15432\n{END}\n"));
}

#[test]
fn owner_mode_and_umask_are_respected() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (_, one) = with_worktree(&sandbox);
    let mut command = sandbox.command("sh");
    let script = "umask 027; exec wtd-client env --write new.env";
    Ran::of(command.args(["-c", script]).current_dir(&one)).ok();
    assert_eq!(fs::metadata(one.join("new.env")).unwrap().mode() & 0o7777, 0o640);
    if rustix::process::geteuid().is_root() {
        let file = one.join("theirs.env");
        fs::write(&file, "A=1\n").unwrap();
        std::os::unix::fs::chown(&file, Some(65_534), Some(65_533)).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o604)).unwrap();
        write(&sandbox, &one, ["theirs.env"]).ok();
        let found = fs::metadata(&file).unwrap();
        assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (65_534, 65_533, 0o604));
    }
}

#[test]
fn a_file_is_relative_to_the_working_directory_and_in_the_worktree() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox);
    let block = block(&sandbox, &one);
    fs::create_dir_all(one.join("sub/deep")).unwrap();
    symlink(&one, sandbox.path("alias")).unwrap();
    let absolute = one.join("absolute.env");
    let aliased = sandbox.path("alias/aliased.env");
    for (directory, file, place) in [
        ("", "here.env", "here.env"),
        ("", "./sub/./below.env", "sub/below.env"),
        ("sub/deep", "../up.env", "sub/up.env"),
        ("sub/deep", "../../top.env", "top.env"),
        ("", "sub/../again.env", "again.env"),
        ("", "sub/deep/../dotted.env", "sub/dotted.env"),
        ("sub", absolute.to_str().unwrap(), "absolute.env"),
        ("sub", aliased.to_str().unwrap(), "aliased.env"),
    ] {
        write(&sandbox, &one.join(directory), [file]).ok();
        assert_eq!(fs::read_to_string(one.join(place)).unwrap(), block, "{directory} {file}");
        fs::remove_file(one.join(place)).unwrap();
    }
    // With --path the worktree is another one, and FILE is still the caller's.
    let path = one.to_str().unwrap();
    let line = write(&sandbox, &repo.path, [".env", "--path", path]).fails(1);
    assert!(line.contains("outside of the worktree") && line.contains("working directory"), "{line}");
    write(&sandbox, &repo.path, ["../app-one/.env", "--path", path]).ok();
    assert_eq!(fs::read_to_string(one.join(".env")).unwrap(), block);
    assert!(!repo.path.join(".env").exists());
    // Nowhere is no place to write to.
    write(&sandbox, &sandbox.path("home"), ["x.env"]).fails(3);
    assert!(!sandbox.path("home/x.env").exists());
    let line = sandbox.client_in(&one, ["env", "--exclude"]);
    assert_eq!(line.code, Some(2), "{line:#?}");
    assert_eq!(sandbox.client_in(&one, ["env", "--write", "x", "--format", "json"]).code, Some(2));
}

/// What is not the worktree's own file is refused in one line, and everything stays as it was.
#[test]
fn what_is_not_the_worktrees_own_file_is_refused() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox);
    let outside = sandbox.path("outside");
    fs::create_dir(&outside).unwrap();
    fs::write(outside.join("file"), "A=1\n").unwrap();
    let nested = one.join(".worktrees/nested");
    repo.add_at(&nested, "nested");
    Repo::init(&sandbox, &one.join("vendor/module"));
    Ran::of(sandbox.command("git").current_dir(&one).args(["init", "-q", "--bare", "bare.git"])).ok();
    let make = |name: &str, make: &dyn Fn(&Path)| make(&one.join(name));
    make("link", &|path| symlink("file", path).unwrap());
    make("dangling", &|path| symlink("absent", path).unwrap());
    make("out", &|path| symlink(outside.join("file"), path).unwrap());
    make("linked-dir", &|path| symlink(&outside, path).unwrap());
    make("inner-dir", &|path| symlink("vendor", path).unwrap());
    make("dir", &|path| fs::create_dir(path).unwrap());
    make("fifo", &|path| drop(Ran::of(Command::new("mkfifo").arg(path)).ok()));
    make("socket", &|path| drop(std::os::unix::net::UnixListener::bind(path).unwrap()));
    make("device", &|path| symlink("/dev/null", path).unwrap());
    make("utf16", &|path| fs::write(path, b"\xff\xfeA\0=\0").unwrap());
    make("begun", &|path| fs::write(path, format!("A=1\n{BEGIN}\nB=2\n")).unwrap());
    make("ended", &|path| fs::write(path, format!("A=1\n{END}\nB=2\n")).unwrap());
    make("twice", &|path| fs::write(path, format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n")).unwrap());
    make("indented", &|path| fs::write(path, format!("  {BEGIN}\n{END}\n")).unwrap());
    make("large", &|path| fs::File::create(path).unwrap().set_len(2 << 20).unwrap());
    make("read-only", &|path| {
        fs::write(path, "A=1\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o444)).unwrap();
    });
    sandbox.offset(&nested);
    let before = world(&sandbox);
    for (file, words) in [
        ("new/", "names no file"),
        ("new/.", "names no file"),
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("out", "symbolic link"),
        ("device", "symbolic link"),
        ("linked-dir/file", "linked-dir is a symbolic link"),
        ("linked-dir/new", "linked-dir is a symbolic link"),
        ("inner-dir/new", "inner-dir is a symbolic link"),
        ("dir", "not a regular file"),
        ("fifo", "not a regular file"),
        ("socket", "not a regular file"),
        ("file/below", "file is not a directory"),
        ("../outside/file", "outside of the worktree"),
        ("../../../../../../../../etc/wtd.env", "outside of the worktree"),
        ("/etc/wtd.env", "outside of the worktree"),
        (".", "no file"),
        (".git", "git's own"),
        ("../app/.git/config", "outside of the worktree"),
        ("vendor/module/.git/hooks/post-checkout", "git's own"),
        ("vendor/module/.env", "a worktree of its own"),
        (".worktrees/nested/.env", "a worktree of its own"),
        ("bare.git/hooks/post-checkout", "bare.git is a git dir"),
        ("bare.git/new/file", "bare.git is a git dir"),
        ("wtd.toml", "configuration"),
        ("utf16", "not the text"),
        ("begun", "line 2 does not end"),
        ("ended", "line 2 ends a block"),
        ("twice", "line 3 marks a second block"),
        ("indented", "line 1 holds a marker"),
        ("large", "larger than"),
        ("read-only", "read-only"),
        ("new\nline", "control character"),
    ] {
        let line = write(&sandbox, &one, [file, "--exclude"]).fails(1);
        assert!(line.contains(words), "{file:?}: {line}");
        assert_eq!(world(&sandbox), before, "{file:?}");
    }
    for file in [".git/config", ".git/hooks/post-checkout", ".git/info/exclude", ".GIT/x"] {
        let line = write(&sandbox, &repo.path, [file]).fails(1);
        assert!(line.contains("git's own"), "{file:?}: {line}");
        assert_eq!(world(&sandbox), before, "{file:?}");
    }
}

#[test]
fn a_directory_or_a_disk_without_leave_or_room_loses_nothing() {
    let sandbox = Sandbox::new();
    if require::unprivileged() {
        let repo = sandbox.repo("closed");
        let nobody = Nobody::of(&sandbox);
        nobody.own(sandbox.root());
        let daemon = nobody.daemon();
        let run = |file: &str| {
            let mut command = nobody.command(sandbox.path("bin/wtd-client"));
            Ran::of(command.args(["env", "--write", file]).env("WTD_NO_START", "1").current_dir(&repo.path))
        };
        run(".env").ok();
        fs::write(repo.path.join(".env"), "A=1\n").unwrap();
        fs::set_permissions(&repo.path, fs::Permissions::from_mode(0o555)).unwrap();
        for file in [".env", "new.env", "new/x.env"] {
            let line = run(file).fails(1);
            assert!(line.contains("Permission denied"), "{line}");
        }
        fs::set_permissions(&repo.path, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(fs::read(repo.path.join(".env")).unwrap(), b"A=1\n");
        daemon.terminate();
    }
    let sandbox = Sandbox::new();
    let disk = sandbox.path("disk");
    fs::create_dir(&disk).unwrap();
    if !require::mounts(&disk) {
        return;
    }
    let tmpfs = Mount::tmpfs(&disk, "2m");
    let _daemon = sandbox.daemon();
    let repo = Repo::init(&sandbox, &disk.join("app"));
    sandbox.offset(&repo.path);
    let content = "A=1\n".repeat(10_000);
    let file = repo.path.join(".env");
    fs::write(&file, &content).unwrap();
    let filler = tmpfs.fill();
    let before = tree(&repo.path, &|_| false);
    for name in [".env", "new.env"] {
        let line = write(&sandbox, &repo.path, [name]).fails(1);
        assert!(line.contains("No space left") && line.contains("make room"), "{line}");
        let after = tree(&repo.path, &|_| false);
        assert_eq!(
            after.keys().collect::<Vec<_>>(),
            before.keys().collect::<Vec<_>>(),
            "nothing is left behind"
        );
        assert!(after == before);
    }
    fs::remove_file(filler).unwrap();
    write(&sandbox, &repo.path, [".env"]).ok();
    assert_eq!(fs::read_to_string(&file).unwrap(), content + &block(&sandbox, &repo.path));
}

/// Power can be lost at any moment: what takes the file's place is on the disk before, and the change of names after.
#[test]
fn a_file_is_on_the_disk_before_it_takes_the_others_place() {
    let sandbox = Sandbox::new();
    let traces = require::works(Command::new("strace").args(["-e", "trace=fsync", "true"]));
    if !require::wish(traces, "strace can't trace here") {
        return;
    }
    let _daemon = sandbox.daemon();
    let (_, one) = with_worktree(&sandbox);
    for content in [None, Some("A=1\n")] {
        let file = one.join("traced.env");
        if let Some(content) = content {
            fs::write(&file, content).unwrap();
        }
        let log = sandbox.path("trace");
        let mut command = sandbox.command("strace");
        command
            .args(["-f", "-e", "trace=fsync,renameat2", "-o"])
            .arg(&log)
            .arg(Sandbox::program("wtd-client"));
        command.args(["--no-start", "env", "--write", "traced.env"]).current_dir(&one);
        Ran::of(&mut command).ok();
        let log = fs::read_to_string(&log).unwrap();
        // Of this program alone: git is asked afterwards.
        let process = log.split_whitespace().next().unwrap().to_owned();
        let calls: Vec<_> = log
            .lines()
            .filter_map(|line| line.strip_prefix(&process)?.trim_start().split_once('('))
            .map(|(call, _)| call)
            .filter(|call| matches!(*call, "fsync" | "renameat2"))
            .collect();
        // A file that changes places with another first gets a name that nobody sweeps.
        let renames = if content.is_some() { 2 } else { 1 };
        assert_eq!(calls, [&["fsync"], &["renameat2"].repeat(renames)[..], &["fsync"]].concat(), "{log}");
    }
}

#[test]
fn twenty_at_once_write_one_block() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (_, one) = with_worktree(&sandbox);
    let block = block(&sandbox, &one);
    for (round, content) in ["", "A=1\nB=2", "A=1\r\n"].into_iter().enumerate() {
        let file = one.join(format!("{round}.env"));
        if !content.is_empty() {
            fs::write(&file, content).unwrap();
        }
        let children: Vec<_> = (0..20)
            .map(|number| {
                let mut command = sandbox.client_command(["--timeout", "20s", "env", "--exclude", "--write"]);
                command.arg(&file).current_dir(&one).env("WTD_NO_START", "1");
                // Some write other variables, so that all have something to change.
                if number % 2 == 1 {
                    command.arg("PORT_OFFSET");
                }
                command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        }
        let end = if content.contains('\r') { "\r\n" } else { "\n" };
        let missing_end = if content.is_empty() || content.ends_with('\n') { "" } else { end };
        let [all, some] = [block.clone(), format!("{BEGIN}\nPORT_OFFSET=10000\n{END}\n")]
            .map(|block| format!("{content}{missing_end}{}", block.replace('\n', end)));
        let text = fs::read_to_string(&file).unwrap();
        assert!(text == all || text == some, "{text:?}");
    }
    let exclude = fs::read_to_string(sandbox.path("app/.git/info/exclude")).unwrap();
    for round in 0..3 {
        assert_eq!(exclude.lines().filter(|line| *line == format!("/{round}.env")).count(), 1, "{exclude}");
    }
    let left: Vec<_> = fs::read_dir(&one).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name.as_bytes().starts_with(b".wtd-")), "{left:?}");
}

#[test]
fn without_a_daemon_the_file_is_written_from_the_allocation_file() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (_, one) = with_worktree(&sandbox);
    let expected = block(&sandbox, &one);
    daemon.kill9();
    write(&sandbox, &one, [".env"]).ok();
    assert_eq!(fs::read_to_string(one.join(".env")).unwrap(), expected);
    fs::remove_file(Repo::at(&sandbox, &one).git_dir(&one).join("wtd.json")).unwrap();
    write(&sandbox, &one, ["other.env"]).fails(4);
    assert!(!one.join("other.env").exists());
}
