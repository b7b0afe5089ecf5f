//! Repositories that are out for more than ports: nothing of theirs runs, nothing is written outside of their worktree
//! or into a git dir, and each gets a line that says what was not done.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{Ran, Repo, Sandbox, Tree, require, tree};

/// A sandbox in which one hostile repository is used as a trusting person would.
struct Victim {
    sandbox: Sandbox,
}

impl Victim {
    fn new() -> Self {
        let sandbox = Sandbox::new();
        let outside = sandbox.path("outside");
        fs::create_dir_all(outside.join("hooks")).unwrap();
        fs::write(outside.join("file"), "A=1\n").unwrap();
        // A program that leaves a trace when something runs it.
        let evil = sandbox.path("evil");
        fs::write(&evil, format!("#!/bin/sh\ntouch '{}'\n", sandbox.path("PWNED").display())).unwrap();
        fs::set_permissions(&evil, fs::Permissions::from_mode(0o755)).unwrap();
        Self { sandbox }
    }

    /// A text with `EVIL` for the program and `OUTSIDE` for a directory that is none of the repository's.
    fn text(&self, text: &str) -> String {
        text.replace("EVIL", self.sandbox.path("evil").to_str().unwrap())
            .replace("OUTSIDE", self.sandbox.path("outside").to_str().unwrap())
    }

    /// Everything that is none of the worktrees' own: what is outside of them, and their git dirs.
    fn untouchable(&self, roots: &[PathBuf]) -> Tree {
        // Shells keep files of their own there.
        let own = ["state", "run", "home", "config"].map(|name| self.sandbox.path(name));
        let mut found = tree(self.sandbox.root(), &|path| {
            let is_log = path.extension().is_some_and(|extension| extension == "log");
            own.iter().any(|own| path == own) || is_log || roots.iter().any(|root| path == root)
        });
        let allocation_file = |path: &Path| path.file_name().is_some_and(|name| name == "wtd.json");
        for root in roots {
            if root.join(".git").is_dir() {
                found.extend(tree(&root.join(".git"), &allocation_file));
            }
            let dot_git = root.join(".git");
            found.insert(
                dot_git.clone(),
                (0, if dot_git.is_file() { fs::read(dot_git).unwrap() } else { Vec::new() }),
            );
        }
        found
    }

    /// Does in `worktree` what a person does who trusts everything, and gives all that they are told.
    fn use_it(&self, repo: &Repo<'_>, worktree: &Path) -> String {
        let sandbox = &self.sandbox;
        let mut told = String::new();
        // The program can be run by its name alone.
        let directories = [sandbox.root(), Sandbox::program("wtd").parent().unwrap()].map(Path::to_owned);
        let machine = std::env::var_os("PATH").unwrap();
        let search =
            std::env::join_paths(directories.into_iter().chain(std::env::split_paths(&machine))).unwrap();
        let run = |told: &mut String, command: &mut Command| {
            let ran = Ran::of(command.current_dir(worktree).env("WTD_NO_START", "1").env("PATH", &search));
            told.push_str(&ran.stderr);
            ran.text()
        };
        for arguments in [&["trust", "-y"][..], &["add", "."], &["list"], &["doctor"], &["trust", "--show"]] {
            let text = run(&mut told, &mut sandbox.client_command(arguments));
            told.push_str(&text);
        }
        // What these print is for programs, and exact.
        for arguments in [
            &["get", "PORT_OFFSET"][..],
            &["env", "--format", "dotenv"],
            &["env", "--format", "json"],
            &["env", "--write", "person.env", "--exclude"],
            &["exec", "--", "true"],
            &["list", "--json"],
        ] {
            run(&mut told, &mut sandbox.client_command(arguments));
        }
        for shell in ["bash", "zsh", "dash"] {
            if require::find(shell).is_some() {
                run(
                    &mut told,
                    sandbox
                        .command(shell)
                        .args(["-c", "eval \"$(wtd-client env)\"; test -n \"$PORT_OFFSET\" || echo none"]),
                );
            }
        }
        if require::find("fish").is_some() {
            run(&mut told, sandbox.command("fish").args(["-c", "wtd-client env | source; or echo none"]));
        }
        // Whoever reads the files that are kept.
        for file in ["person.env", "env/wtd.env"] {
            // What is no file, or has no end, nobody reads.
            let found = worktree.join(file).metadata();
            if found.is_ok_and(|found| found.is_file() && found.len() < 1 << 20) {
                run(&mut told, sandbox.command("sh").args(["-c", &format!("set -a; . ./{file}")]));
                if require::find("make").is_some() {
                    let makefile = sandbox.path("home/w.mk");
                    fs::write(&makefile, format!("include {file}\nall:;@:\n")).unwrap();
                    run(&mut told, sandbox.command("make").arg("-s").arg("-f").arg(makefile));
                }
            }
        }
        assert!(
            !told.contains('\u{1b}') && !told.contains('\u{202e}'),
            "nothing draws on the terminal: {told:?}"
        );
        assert!(!sandbox.path("PWNED").exists(), "something ran: {told}");
        assert_eq!(sandbox.list().at(worktree).state, "active", "{told}");
        drop(repo.git(["worktree", "list"]));
        told
    }

    /// Uses a repository with this `wtd.toml`, and whatever else `make` puts into its worktree.
    #[track_caller]
    fn suffers(toml: &str, make: impl Fn(&Self, &Path), words: &[&str]) {
        let victim = Self::new();
        let _daemon = victim.sandbox.daemon();
        let repo = victim.sandbox.repo("app");
        fs::write(repo.path.join("wtd.toml"), victim.text(toml)).unwrap();
        make(&victim, &repo.path);
        // What the person themselves has done is no part of the comparison.
        victim.sandbox.client_in(&repo.path, ["env", "--write", "person.env", "--exclude"]);
        let before = victim.untouchable(std::slice::from_ref(&repo.path));
        let told = victim.use_it(&repo, &repo.path);
        let after = victim.untouchable(std::slice::from_ref(&repo.path));
        let changed: Vec<_> = before
            .iter()
            .filter(|(path, found)| after.get(*path) != Some(*found))
            .map(|(path, _)| path)
            .chain(after.keys().filter(|path| !before.contains_key(*path)))
            .collect();
        let toml: String = toml.chars().take(200).collect();
        assert!(changed.is_empty(), "{toml:?} changed {changed:?}: {told}");
        for word in words {
            assert!(told.contains(word), "{toml:?}: nobody was told {word:?}: {told}");
        }
    }
}

fn nothing(_: &Victim, _: &Path) {}

#[test]
fn names_of_variables_that_are_obeyed_are_refused() {
    for (toml, words) in [
        (
            "[ports]\nLD_PRELOAD = 80\nPATH = 81\n",
            &["ports.LD_PRELOAD: LD_PRELOAD may not be set", "ports.PATH: PATH may not be set"][..],
        ),
        (
            "[volumes]\nBASH_ENV = \"x1\"\nIFS = \"x2\"\n",
            &["volumes.BASH_ENV: BASH_ENV may not be set", "volumes.IFS"],
        ),
        (
            "[env]\nLD_PRELOAD = \"EVIL\"\nPATH = \"OUTSIDE\"\n",
            &["env.LD_PRELOAD: LD_PRELOAD may not be set", "env.PATH: PATH may not be set"],
        ),
        (
            "[env]\nPROMPT_COMMAND = \"EVIL\"\nBASH_ENV = \"EVIL\"\nENV = \"EVIL\"\n",
            &["env.PROMPT_COMMAND", "env.BASH_ENV", "env.ENV"],
        ),
        (
            "[env]\nGIT_SSH_COMMAND = \"EVIL\"\nDOCKER_HOST = \"tcp://evil\"\nNODE_OPTIONS = \"--require EVIL\"\n",
            &["env.GIT_SSH_COMMAND", "env.DOCKER_HOST", "env.NODE_OPTIONS"],
        ),
        (
            "[env]\nTAR_OPTIONS = \"--to-command=EVIL\"\nRSYNC_RSH = \"EVIL\"\nPSQLRC = \"EVIL\"\nMAVEN_OPTS = \"EVIL\"\n",
            &["env.TAR_OPTIONS", "env.RSYNC_RSH", "env.PSQLRC", "env.MAVEN_OPTS"],
        ),
        (
            "[env]\n\"A;EVIL\" = \"x\"\n\"a b\" = \"x\"\n\"A\\u001b[31m\" = \"x\"\n",
            &["A;", "is not a variable name"],
        ),
        (
            "[env]\nPORT_OFFSET = \"0\"\nCOMPOSE_FILE = \"EVIL\"\nWTD_SOCKET = \"EVIL\"\n",
            &["PORT_OFFSET is set by wtd itself", "env.COMPOSE_FILE", "env.WTD_SOCKET"],
        ),
    ] {
        Victim::suffers(toml, nothing, words);
    }
}

#[test]
fn templates_are_text_and_never_run() {
    for (toml, words) in [
        (
            "[env]\nX = \"$(EVIL)`EVIL`;EVIL;'EVIL' & EVIL | EVIL\"\n[files]\nenv = [\"env/wtd.env\"]\n",
            &["lacks X"][..],
        ),
        ("[env]\nX = \"'$(EVIL)'\\\\\"\nY = \"\\\"; EVIL #\"\nZ = \"${shell EVIL}\"\n", &["env.Z: "]),
        ("[env]\nX = \"a\\nPATH=OUTSIDE\\nLD_PRELOAD=EVIL\"\n", &["env.X: a value has no newline"]),
        ("[env]\nX = \"\"\"\nx\n$(EVIL)\n\"\"\"\n", &["env.X: a value has no newline"]),
        (
            "[env]\nX = \"{PATH}\"\nY = \"{HOME}\"\nZ = \"{X}\"\n",
            &["env.X: \"PATH\" is not a variable", "env.Y: \"HOME\"", "env.Z: \"X\""],
        ),
        ("[env]\nX = \"\\u001b[31m\\u0007\"\n", &["no other control character"]),
        ("[env]\nX = \"\u{202e}gpj\"\n", &[]),
    ] {
        Victim::suffers(toml, nothing, words);
    }
}

#[test]
fn floods_are_cut_off_and_told() {
    let lines =
        |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<Vec<_>>().concat();
    let many = lines(8000, &|number| format!("T{number}=\"x\"\n"));
    Victim::suffers(&format!("[env]\n{many}"), nothing, &["larger than 65536 bytes"]);
    let many = lines(3000, &|number| format!("T{number}=\"x\"\n"));
    Victim::suffers(&format!("[env]\n{many}"), nothing, &["only 64 variables can be declared"]);
    // Each template twice the one before, if templates could use each other.
    let doubling = lines(40, &|number| match number.checked_sub(1) {
        None => "[env]\nE0 = \"{WTD_WORKTREE}\"\n".to_owned(),
        Some(before) => format!("E{number} = \"{{E{before}}}{{E{before}}}\"\n"),
    });
    Victim::suffers(&doubling, nothing, &["env.E1: \"E0\" is not a variable"]);
    let long = format!("[env]\nX = \"{}\"\n", "{WTD_WORKTREE}{POSTGRES_DB}".repeat(2000));
    Victim::suffers(&long, nothing, &["env.X is left out: the templates make more than 16384 bytes"]);
    let files = lines(2000, &|number| format!("\"f{number}\","));
    Victim::suffers(&format!("[files]\nenv = [{files}]\n"), nothing, &["only 16 files can be kept"]);
    let ten_megabytes = |_: &Victim, root: &Path| {
        fs::write(root.join("wtd.toml"), "# x\n".repeat(2_500_000)).unwrap();
    };
    Victim::suffers("", ten_megabytes, &["larger than 65536 bytes"]);
    let endless = |_: &Victim, root: &Path| {
        fs::remove_file(root.join("wtd.toml")).unwrap();
        symlink("/dev/zero", root.join("wtd.toml")).unwrap();
    };
    Victim::suffers("", endless, &["leads out of the worktree"]);
    for deep in [
        format!("x = {}1{}\n", "[".repeat(30_000), "]".repeat(30_000)),
        format!("x = {}1{}\n", "{a=".repeat(15_000), "}".repeat(15_000)),
        format!("{}x = 1\n", "a.".repeat(30_000)),
        format!("[{}x]\n", "a.".repeat(30_000)),
    ] {
        Victim::suffers(&deep, nothing, &["wtd.toml:1: "]);
    }
}

#[test]
fn files_that_lead_out_of_the_worktree_or_to_gits_own_are_refused() {
    for (file, words) in [
        ("../outside/file", "it leads out of the worktree"),
        ("../evil", "it leads out of the worktree"),
        ("a/../../outside/file", "it leads out of the worktree"),
        ("OUTSIDE/file", "it leads out of the worktree"),
        ("~/.bashrc", ""),
        (".git/hooks/post-checkout", "it is git's own"),
        (".git/config", "it is git's own"),
        (".GIT/config", "it is git's own"),
        (".git", "it is git's own"),
        ("./.git/info/../config", "it is git's own"),
        ("wtd.toml", "it is wtd's own configuration"),
        ("a\\u0000b", "it has a control character"),
        ("a\\nb", "it has a control character"),
    ] {
        Victim::suffers(&format!("[files]\nenv = [\"{file}\", \"env/wtd.env\"]\n"), nothing, &[words]);
    }
}

/// What stands where a file should: everything in the worktree, so a clone or a checkout could have brought it.
#[test]
fn what_stands_in_a_files_place_is_not_followed_and_not_filled() {
    let link = |to: &'static str| {
        move |victim: &Victim, root: &Path| symlink(victim.text(to), root.join("env")).unwrap()
    };
    let in_env = |make: &'static dyn Fn(&Victim, &Path)| {
        move |victim: &Victim, root: &Path| {
            fs::create_dir(root.join("env")).unwrap();
            make(victim, &root.join("env/wtd.env"));
        }
    };
    let toml = "[files]\nenv = [\"env/wtd.env\"]\n";
    Victim::suffers(toml, link("OUTSIDE"), &["env is a symbolic link"]);
    Victim::suffers(toml, link(".git"), &["env is a symbolic link"]);
    Victim::suffers(toml, link(".git/hooks"), &["env is a symbolic link"]);
    Victim::suffers(toml, link("/"), &["env is a symbolic link"]);
    Victim::suffers(toml, link("env"), &["env is a symbolic link"]);
    Victim::suffers(toml, |_, root| fs::write(root.join("env"), "x").unwrap(), &["env is not a directory"]);
    Victim::suffers(
        toml,
        in_env(&|victim, file| symlink(victim.text("OUTSIDE/file"), file).unwrap()),
        &["symbolic link"],
    );
    Victim::suffers(
        toml,
        in_env(&|victim, file| symlink(victim.text("OUTSIDE/new"), file).unwrap()),
        &["symbolic link"],
    );
    Victim::suffers(toml, in_env(&|_, file| symlink("../.git/config", file).unwrap()), &["symbolic link"]);
    Victim::suffers(toml, in_env(&|_, file| symlink("/dev/tty", file).unwrap()), &["symbolic link"]);
    Victim::suffers(toml, in_env(&|_, file| fs::create_dir(file).unwrap()), &["not a regular file"]);
    Victim::suffers(
        toml,
        in_env(&|_, file| drop(Ran::of(Command::new("mkfifo").arg(file)).ok())),
        &["not a regular file"],
    );
    Victim::suffers(
        toml,
        in_env(&|_, file| drop(std::os::unix::net::UnixListener::bind(file).unwrap())),
        &["not a regular file"],
    );
    Victim::suffers(toml, in_env(&|_, file| fs::write(file, b"\0\0").unwrap()), &["not the text"]);
    Victim::suffers(
        toml,
        in_env(&|_, file| fs::write(file, "# >>> wtd >>>\nA=1\n").unwrap()),
        &["does not end"],
    );
    Victim::suffers(
        toml,
        in_env(&|_, file| fs::File::create(file).unwrap().set_len(1 << 40).unwrap()),
        &["larger than"],
    );
    if rustix::process::geteuid().is_root() {
        let device = in_env(&|_, file| drop(Ran::of(Command::new("mknod").arg(file).args(["c", "1", "5"]))));
        Victim::suffers(toml, device, &["not a regular file"]);
    }
    // A hard link shares its content with a file outside; replacing the file parts the two.
    Victim::suffers(
        toml,
        |victim, root| {
            fs::create_dir(root.join("env")).unwrap();
            fs::hard_link(victim.sandbox.path("outside/file"), root.join("env/wtd.env")).unwrap();
        },
        &[],
    );
}

#[test]
fn other_repositories_in_the_worktree_are_left_alone() {
    let init = |arguments: &'static [&'static str]| {
        move |victim: &Victim, root: &Path| {
            let mut command = victim.sandbox.command("git");
            Ran::of(command.current_dir(root).arg("init").arg("-q").args(arguments)).ok();
        }
    };
    let files = |file: &str| format!("[files]\nenv = [\"{file}\"]\n");
    Victim::suffers(
        &files("vendor/bare/config"),
        init(&["--bare", "vendor/bare"]),
        &["vendor/bare is a git dir"],
    );
    Victim::suffers(
        &files("vendor/bare/hooks/post-checkout"),
        init(&["--bare", "vendor/bare"]),
        &["vendor/bare is a git dir"],
    );
    Victim::suffers(
        &files("vendor/sub/.env"),
        init(&["vendor/sub"]),
        &["vendor/sub is a worktree of its own"],
    );
    Victim::suffers(&files("vendor/sub/.git/config"), init(&["vendor/sub"]), &["it is git's own"]);
    let separate = init(&["--separate-git-dir", "elsewhere", "vendor/sub"]);
    Victim::suffers(&files("elsewhere/config"), separate, &["elsewhere is a git dir"]);
    // A repository whose own root poses as a git dir.
    let posing = |_: &Victim, root: &Path| {
        for name in ["objects", "refs"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        fs::write(root.join("HEAD"), "ref: refs/heads/main\n").unwrap();
    };
    Victim::suffers(&files("config"), posing, &["is a git dir"]);
}

#[test]
fn a_repository_that_is_not_trusted_does_nothing_at_all() {
    let victim = Victim::new();
    let _daemon = victim.sandbox.daemon();
    let repo = victim.sandbox.repo("app");
    let toml = "[env]\nX = \"1\"\n[files]\nenv = [\"new.env\", \"new/file\"]\n";
    fs::write(repo.path.join("wtd.toml"), toml).unwrap();
    let before = tree(&repo.path, &|path| path.file_name().is_some_and(|name| name == "wtd.json"));
    for arguments in
        [&["env"][..], &["list"], &["doctor"], &["trust", "--show"], &["trust"], &["exec", "--", "true"]]
    {
        victim.sandbox.client_in(&repo.path, arguments);
    }
    let after = tree(&repo.path, &|path| path.file_name().is_some_and(|name| name == "wtd.json"));
    assert!(before == after);
    let linked = repo.add("linked");
    assert_eq!(victim.sandbox.offset(&linked), 10_000);
    assert!(!linked.join("new.env").exists());
    assert!(victim.sandbox.list().at(&repo.path).untrusted);
}

/// Names of directories and branches, through the files that are kept and all who read them.
#[test]
fn names_of_directories_and_branches_never_run() {
    let names: [&[u8]; 9] = [
        b"x'$(EVIL)'\"`EVIL`;EVIL",
        b"a&EVIL&b",
        b"new\nline;EVIL\nPATH=x",
        b"-y --revoke",
        b"{WTD_WORKTREE}{{",
        b"#hash =x",
        b"bytes\xff\xfe",
        b"\x1b[31m\xe2\x80\xae",
        b"# >>> wtd >>>",
    ];
    for name in names {
        let victim = Victim::new();
        let _daemon = victim.sandbox.daemon();
        let repo = victim.sandbox.repo("app");
        // No name of a file has a slash, so the program is reached through PATH.
        let text = String::from_utf8_lossy(name);
        let is_command = text.contains("EVIL");
        let name = if is_command { text.replace("EVIL", "evil").into_bytes() } else { name.to_vec() };
        let toml = "[env]\nHERE = \"{WTD_WORKTREE}/x\"\n[files]\nenv = [\"env/wtd.env\"]\n";
        fs::write(repo.path.join("wtd.toml"), toml).unwrap();
        repo.git(["add", "."]);
        repo.git(["commit", "-q", "-m", "configure"]);
        victim.sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
        let path = victim.sandbox.path("d").join(OsStr::from_bytes(&name));
        fs::create_dir(victim.sandbox.path("d")).unwrap();
        let branch = "x$(evil)`evil`;evil&|";
        repo.git([
            OsStr::new("worktree"),
            "add".as_ref(),
            "-q".as_ref(),
            "-b".as_ref(),
            branch.as_ref(),
            "--".as_ref(),
            path.as_ref(),
        ]);
        victim.sandbox.client_in(&path, ["env", "--write", "person.env", "--exclude"]);
        let roots = [repo.path.clone(), path.clone()];
        let before = victim.untouchable(&roots);
        let told = victim.use_it(&repo, &path);
        let after = victim.untouchable(&roots);
        assert!(before == after, "{name:?}: {told}");
        assert!(told.contains("person.env lacks ") && told.contains("WTD_WORKTREE"), "{name:?}: {told}");
    }
}
