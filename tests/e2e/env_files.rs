//! Files with a worktree's variables: `env --write`, and those that the daemon keeps for a trusted `wtd.toml`.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::harness::{Nobody, Ran, Repo, Sandbox, Tmpfs, require, tree, until};

const BEGIN: &str = "# >>> wtd >>> kept by wtd: what stands between these two lines is replaced";
const END: &str = "# <<< wtd <<<";

/// A sandbox with a repository whose worktree `one` has offset 10000.
fn with_worktree(sandbox: &Sandbox) -> (Repo<'_>, PathBuf) {
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    sandbox.offset(&repo.path);
    assert_eq!(sandbox.offset(&one), 10_000);
    (repo, one)
}

/// The block that belongs in the files of the worktree at `path`.
fn block(sandbox: &Sandbox, path: &Path) -> String {
    let json = sandbox.client_in(path, ["env", "--format", "json"]).quiet();
    let variables: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
    let lines: Vec<_> = variables.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
    format!("{BEGIN}\n{}{END}\n", lines.concat())
}

/// `env --write` with these arguments.
fn write<S: AsRef<OsStr>>(
    sandbox: &Sandbox,
    directory: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Ran {
    let mut command = sandbox.client_command(["env", "--write"]);
    Ran::of(command.args(arguments).env("WTD_NO_START", "1").current_dir(directory))
}

/// Everything in the sandbox that only tests and git change.
fn world(sandbox: &Sandbox) -> crate::harness::Tree {
    let own = ["state", "run", "home"].map(|name| sandbox.path(name));
    tree(sandbox.root(), &|path| {
        own.iter().any(|own| path == own)
            || path.file_name().is_some_and(|name| name == "wtd.json")
            || path.extension().is_some_and(|extension| extension == "log")
    })
}

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
        ("utf16", "no text"),
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
    let tmpfs = Tmpfs::mount(&disk, "2m");
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
        assert_eq!(calls, ["fsync", "renameat2", "fsync"], "{log}");
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

/// The variables as a program reads them from a file.
fn read_by(command: &mut Command, names: &[&str]) -> Vec<String> {
    let text = Ran::of(command).ok();
    let lines: Vec<_> = text.lines().map(str::to_owned).collect();
    assert_eq!(lines.len(), names.len(), "{text}");
    lines
}

#[test]
fn make_shells_dotenv_libraries_and_compose_read_the_same_values() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let toml = "[ports]\nUI_PORT = 3000\n[env]\n\
        DATABASE_URL = \"postgresql://u:p%20w@localhost:{DB_HOST_PORT}/{POSTGRES_DB}?sslmode=disable\"\n\
        IPV6_URL = \"http://[::1]:{UI_PORT}/a,b+c@d\"\nEMPTY = \"\"\n\
        ODD_SPACE = \"a b\"\nODD_HASH = \"a#b\"\nODD_DOLLAR = \"$HOME\"\nODD_QUOTE = \"'x'\"\nODD_BACK = 'a\\b'\n";
    fs::write(repo.path.join("wtd.toml"), toml).unwrap();
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    let one = repo.add("one");
    fs::write(one.join("wtd.toml"), toml).unwrap();
    until(
        "the templates are there",
        || sandbox.client_in(&one, ["env"]).text(),
        |text| text.contains("IPV6"),
    );
    let ran = write(&sandbox, &one, ["w.env"]);
    let lacks = "lacks ODD_BACK, ODD_DOLLAR, ODD_HASH, ODD_QUOTE, ODD_SPACE:";
    assert!(ran.code == Some(0) && ran.stderr.contains(lacks), "{ran:#?}");
    let text = fs::read_to_string(one.join("w.env")).unwrap();
    assert_eq!(text.matches("# ODD_").count(), 5, "{text}");

    let json = sandbox.client_in(&one, ["env", "--format", "json"]).quiet();
    let variables: BTreeMap<String, String> = serde_json::from_str(&json).unwrap();
    let variables: BTreeMap<_, _> = variables
        .iter()
        .filter(|(name, _)| !name.starts_with("ODD_"))
        .map(|(k, v)| (k.as_str(), v))
        .collect();
    let names: Vec<_> = variables.keys().copied().collect();
    let expected: Vec<_> = variables.values().map(|value| (*value).clone()).collect();
    assert!(names.contains(&"WTD_WORKTREE") && names.contains(&"EMPTY"));

    if require::program("make") {
        let recipe: Vec<_> = names.iter().map(|name| format!("$(info $({name}))")).collect();
        for (end, file) in [("\n", "w.env"), ("\r\n", "crlf.env")] {
            fs::write(one.join(file), text.replace('\n', end)).unwrap();
            let makefile = format!("include {file}\n{}\nall:;@:\n", recipe.join("\n"));
            fs::write(one.join("w.mk"), makefile).unwrap();
            let mut command = sandbox.command("make");
            command.args(["-s", "-f", "w.mk"]).current_dir(&one);
            assert_eq!(read_by(&mut command, &names), expected, "make {file}");
        }
    }
    let prints: Vec<_> = names.iter().map(|name| format!("printf '%s\\n' \"${name}\";")).collect();
    let script = format!("set -eu; set -a; . ./w.env; {}", prints.concat());
    for shell in ["sh", "bash", "zsh"] {
        if require::program(shell) {
            let mut command = sandbox.command(shell);
            assert_eq!(read_by(command.args(["-c", &script]).current_dir(&one), &names), expected, "{shell}");
        }
    }
    let python = "import sys, dotenv\nvalues = dotenv.dotenv_values(sys.argv[1])\n\
        [print(values[name]) for name in sys.argv[2:]]";
    for file in ["w.env", "crlf.env"] {
        let mut command = sandbox.command("python3");
        if require::wish(
            require::works(Command::new("python3").args(["-c", "import dotenv"])),
            "python-dotenv is not installed",
        ) {
            command.args(["-c", python, file]).args(&names).current_dir(&one);
            assert_eq!(read_by(&mut command, &names), expected, "python-dotenv {file}");
        }
    }
    let compose: &[&str] = if require::works(Command::new("docker").args(["compose", "version"])) {
        &["docker", "compose"]
    } else {
        &["docker-compose"]
    };
    if require::wish(
        require::works(Command::new(compose[0]).args(&compose[1..]).arg("version")),
        "Compose is not installed",
    ) {
        for file in ["w.env", "crlf.env"] {
            let project = format!("services:\n  x:\n    image: x\n    env_file: [{file}]\n");
            fs::write(one.join("compose.yaml"), project).unwrap();
            let mut command = sandbox.command(compose[0]);
            command.args(&compose[1..]).args(["config", "--format", "json"]).current_dir(&one);
            let config: Value = serde_json::from_str(&Ran::of(&mut command).ok()).unwrap();
            let environment = &config["services"]["x"]["environment"];
            let read: Vec<_> =
                names.iter().map(|name| environment[name].as_str().unwrap().to_owned()).collect();
            assert_eq!(read, expected, "Compose {file}");
        }
    }
}

#[test]
fn what_readers_would_read_differently_is_left_out_and_said() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("my app");
    let ran = write(&sandbox, &repo.path, [".env"]);
    assert_eq!(ran.code, Some(0));
    assert!(ran.stderr.contains(".env lacks WTD_WORKTREE: "), "{ran:#?}");
    let text = fs::read_to_string(repo.path.join(".env")).unwrap();
    assert!(text.contains("\n# WTD_WORKTREE is left out: "), "{text}");
    assert!(text.contains("\nDB_HOST_PORT=5432\n") && !text.contains("my app"), "{text}");
}

#[test]
fn git_is_asked_whether_it_ignores_the_file_and_told_to_on_request() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (repo, one) = with_worktree(&sandbox);
    let exclude = repo.path.join(".git/info/exclude");
    fs::write(&exclude, "# mine\n*.swp").unwrap();
    let ran = write(&sandbox, &one, ["env/wtd.env"]);
    let path = exclude.display().to_string();
    assert!(ran.code == Some(0) && ran.stdout.is_empty(), "{ran:#?}");
    assert!(ran.stderr.contains("/env/wtd.env") && ran.stderr.contains(&path), "{ran:#?}");
    assert!(ran.stderr.contains("--exclude") && ran.stderr.matches('\n').count() == 1, "{ran:#?}");
    assert_eq!(fs::read(&exclude).unwrap(), b"# mine\n*.swp", "a suggestion changes nothing");
    for _ in 0..2 {
        assert_eq!(write(&sandbox, &one.join("env"), ["wtd.env", "--exclude"]).quiet(), "");
        assert_eq!(fs::read(&exclude).unwrap(), b"# mine\n*.swp\n/env/wtd.env\n");
    }
    assert_eq!(Repo::at(&sandbox, &one).git(["status", "--porcelain"]), "");
    // The entry is for all worktrees; and what is ignored does not hinder a removal.
    assert_eq!(write(&sandbox, &repo.path, ["env/wtd.env"]).quiet(), "");
    repo.git(["worktree", "remove", one.to_str().unwrap()]);

    // Where a pattern could mean more, it means one file; info/ may be missing.
    fs::remove_dir_all(exclude.parent().unwrap()).unwrap();
    fs::remove_dir_all(repo.path.join("env")).unwrap();
    for name in [":(top)a.env", "a*b.env", "!x.env", "#x.env", "br[a]c.env", "back\\slash.env", "end "] {
        fs::write(repo.path.join("axb.env"), "").unwrap();
        assert_eq!(write(&sandbox, &repo.path, [name, "--exclude"]).quiet(), "", "{name}");
    }
    let status = repo.git(["status", "--porcelain"]);
    assert_eq!(status, "?? axb.env\n", "{}", fs::read_to_string(&exclude).unwrap());

    let line = write(&sandbox, &repo.path, ["file", "--exclude"]).fails(1);
    assert!(line.contains("tracked by git") && line.contains("git rm --cached"), "{line}");
    fs::write(repo.path.join(".gitignore"), "!no.env\n*.ignored\n").unwrap();
    let line = write(&sandbox, &repo.path, ["no.env", "--exclude"]).fails(1);
    assert!(line.contains(".gitignore"), "{line}");
    assert_eq!(write(&sandbox, &repo.path, ["x.ignored"]).quiet(), "");
    // A link is a person's own arrangement.
    fs::rename(&exclude, sandbox.path("dotfile")).unwrap();
    symlink(sandbox.path("dotfile"), &exclude).unwrap();
    let before = fs::read(sandbox.path("dotfile")).unwrap();
    let line = write(&sandbox, &repo.path, ["more.env", "--exclude"]).fails(1);
    assert!(line.contains("symbolic link"), "{line}");
    assert_eq!(fs::read(sandbox.path("dotfile")).unwrap(), before);
}

#[test]
fn asking_git_runs_nothing_of_the_repository_and_is_not_misled_by_a_hooks_environment() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let canary = sandbox.path("PWNED");
    let script = sandbox.path("evil");
    fs::write(&script, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let evil = script.to_str().unwrap();
    for key in [
        "core.fsmonitor",
        "core.pager",
        "core.sshCommand",
        "alias.check-ignore",
        "filter.x.clean",
        "diff.external",
    ] {
        repo.git(["config", key, evil]);
    }
    repo.git(["config", "core.hooksPath", sandbox.root().to_str().unwrap()]);
    fs::write(repo.path.join(".gitattributes"), "* filter=x\n").unwrap();
    fs::write(repo.path.join("file"), "changed\n").unwrap();
    let ran = write(&sandbox, &repo.path, [".env"]);
    assert!(ran.stderr.contains("does not ignore .env"), "{ran:#?}");
    assert_eq!(write(&sandbox, &repo.path, [".env", "--exclude"]).quiet(), "");
    assert!(!canary.exists());

    let other = sandbox.repo("other");
    let mut command = sandbox.client_command(["env", "--exclude", "--write", "x.env"]);
    command
        .env("GIT_DIR", repo.path.join(".git"))
        .env("GIT_INDEX_FILE", "/nonexistent")
        .current_dir(&other.path);
    Ran::of(&mut command).quiet();
    let exclude = fs::read_to_string(other.path.join(".git/info/exclude")).unwrap();
    assert!(exclude.ends_with("/x.env\n"), "{exclude}");
    assert!(!canary.exists());
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

/// A repository whose trusted configuration has files kept.
fn with_env_files<'s>(sandbox: &'s Sandbox, files: &str) -> Repo<'s> {
    let repo = sandbox.repo("app");
    fs::write(repo.path.join("wtd.toml"), format!("[files]\nenv = {files}\n")).unwrap();
    fs::write(repo.path.join(".gitignore"), "*.env\n").unwrap();
    repo.git(["add", "."]);
    repo.git(["commit", "-q", "-m", "configure"]);
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    repo
}

#[test]
fn files_of_a_trusted_configuration_are_there_when_a_worktree_is() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\".env\", \"env/wtd.env\"]");
    let is_kept = |path: &Path| {
        let expected = block(&sandbox, path);
        for file in [".env", "env/wtd.env"] {
            until(
                "the file is there",
                || fs::read_to_string(path.join(file)).unwrap_or_default(),
                |text| *text == expected,
            );
            assert_eq!(write(&sandbox, path, [file]).quiet(), "", "the client agrees");
        }
    };
    is_kept(&repo.path);
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
    let one = repo.add("one");
    until("the file is there", || one.join("env/wtd.env").exists(), |there| *there);
    is_kept(&one);
    let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&one.join(".env")), mode(&one) & 0o666, "open to whom the worktree is");
    assert_eq!(mode(&one.join("env")), mode(&one));
    assert_eq!(Repo::at(&sandbox, &one).git(["status", "--porcelain"]), "");
    // Moved, given another offset, and removed.
    let two = sandbox.path("two");
    repo.mv(&one, &two);
    daemon.await_list("it moved", |rows| rows.find(&two).is_some());
    is_kept(&two);
    sandbox.client_in(&two, ["reassign", "--force"]).ok();
    assert!(fs::read_to_string(two.join(".env")).unwrap().contains("\nPORT_OFFSET=20000\n"));
    is_kept(&two);
    repo.git(["worktree", "remove", two.to_str().unwrap()]);
    daemon.await_state(&two, "released");
    assert!(!two.exists());
    // From the start, with nobody asking.
    daemon.terminate();
    let three = repo.add("three");
    let _daemon = sandbox.daemon();
    until("the file is there", || three.join(".env").exists(), |there| *there);
    is_kept(&three);
}

#[test]
fn a_kept_file_comes_back_and_leaves_a_persons_lines_alone() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let _daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\"env/wtd.env\"]");
    let file = repo.path.join("env/wtd.env");
    let expected = block(&sandbox, &repo.path);
    let read = || fs::read_to_string(&file);
    let comes = |expected: &str| {
        until("the file is right", || read().unwrap_or_default(), |text| text == expected);
    };
    comes(&expected);
    fs::remove_file(&file).unwrap();
    comes(&expected);
    fs::remove_dir_all(repo.path.join("env")).unwrap();
    comes(&expected);
    let text = format!("A=1\r\n{}B=2", expected.replace("DB_HOST_PORT=5432", "DB_HOST_PORT=1"));
    fs::write(&file, text).unwrap();
    comes(&format!("A=1\r\n{expected}B=2"));
    // A look does it at once.
    fs::remove_file(&file).unwrap();
    sandbox.client(["add", repo.path.to_str().unwrap()]).ok();
    assert_eq!(read().unwrap(), expected);
}

#[test]
fn a_file_that_cannot_be_kept_is_told_with_its_remedy_and_holds_up_nothing() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = with_env_files(&sandbox, "[\"a.env\", \"b.env\"]");
    let one = repo.add("one");
    until("the file is there", || one.join("b.env").exists(), |there| *there);
    fs::remove_file(one.join("a.env")).unwrap();
    fs::write(sandbox.path("elsewhere"), "A=1\n").unwrap();
    symlink(sandbox.path("elsewhere"), one.join("a.env")).unwrap();
    sandbox.client(["add", one.to_str().unwrap()]).ok();
    assert_eq!(fs::read(sandbox.path("elsewhere")).unwrap(), b"A=1\n");
    assert_eq!(sandbox.offset(&one), 10_000);
    assert_eq!(
        sandbox.list().at(&one).warnings,
        ["a.env is not kept: it is a symbolic link, which is not followed"]
    );
    let checks = sandbox.client(["doctor", "--json"]).text();
    let checks: Vec<Value> = serde_json::from_str(&checks).unwrap();
    let found: Vec<_> = checks.iter().filter(|check| check["check"] == "env files").collect();
    let [check] = found[..] else { panic!("{checks:#?}") };
    assert_eq!(check["status"], "warn");
    assert!(check["detail"].as_str().unwrap().contains("a.env"), "{check:#}");
    assert_eq!(check["remedy"], "name the file that it leads to");
    fs::remove_file(one.join("a.env")).unwrap();
    sandbox.client(["add", one.to_str().unwrap()]).ok();
    assert_eq!(fs::read_to_string(one.join("a.env")).unwrap(), block(&sandbox, &one));
    assert_eq!(sandbox.list().at(&one).warnings, [""; 0]);
}

/// git checks files out until it lets go of the worktree; a file of ours in its way would be lost, or held against it.
#[test]
fn a_file_that_a_branch_has_itself_is_checked_out_first() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    fs::write(repo.path.join("wtd.toml"), "files.env = [\"tracked/x.env\"]\n").unwrap();
    fs::create_dir(repo.path.join("tracked")).unwrap();
    fs::write(repo.path.join("tracked/x.env"), "A=1\n").unwrap();
    repo.git(["add", "."]);
    repo.git(["commit", "-q", "-m", "configure"]);
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    for number in 0..5 {
        let path = repo.add(&format!("w{number}"));
        let expected = format!("A=1\n{}", block(&sandbox, &path));
        until(
            "the file is right",
            || fs::read_to_string(path.join("tracked/x.env")).unwrap_or_default(),
            |text| *text == expected,
        );
    }
}
