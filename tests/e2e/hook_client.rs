//! How the shell hook runs the client: when, which one, and what comes of it when there is no answer.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Ran, Sandbox, Shown, Terminal, require, until};
use crate::hook::{line, shells};
use crate::shells::pwned;

/// A client in whose place the hook runs a script that counts how often it is run.
struct Counted {
    rc: String,
    count: PathBuf,
}

impl Counted {
    fn new(sandbox: &Sandbox, shell: &str) -> Self {
        let (script, count) = (sandbox.path("counting-client"), sandbox.path("count"));
        let program = Sandbox::program("wtd-client");
        let program = program.to_str().unwrap();
        fs::write(&script, format!("#!/bin/sh\necho >>{}\nexec {program} \"$@\"\n", count.display()))
            .unwrap();
        fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
        let code = sandbox.client(["--timeout", "20s", "hook", shell]).quiet();
        assert!(code.contains(program), "the program is named by its path: {code}");
        Self { rc: code.replace(program, script.to_str().unwrap()), count }
    }

    /// How often the client was run since the last look.
    fn take(&self) -> usize {
        let count = fs::read(&self.count).map_or(0, |bytes| bytes.len());
        drop(fs::remove_file(&self.count));
        count
    }
}

#[test]
fn no_process_is_started_unless_the_directory_has_changed() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let one = repo.add("one");
        fs::create_dir(one.join("below")).unwrap();
        daemon.await_agreement(&repo);
        let counted = Counted::new(&sandbox, shell);

        let mut terminal = Terminal::start(&sandbox, shell, &counted.rc, &one);
        assert_eq!(counted.take(), 1, "{shell}: at the start");
        for line in ["true", "", "cd .", "cd below; cd ..", "ls >/dev/null"] {
            counted.take();
            terminal.quiet(line);
            // In one line fish and zsh follow at once, and bash at the prompt.
            let most = if line.contains("below") { 2 } else { 0 };
            assert!(counted.take() <= most, "{shell}: {line}");
        }
        for directory in [repo.path.as_path(), &one, &one.join("below"), sandbox.root(), Path::new("/")] {
            terminal.quiet(&format!("cd {}", directory.display()));
            assert_eq!(counted.take(), 1, "{shell}: into {}", directory.display());
            terminal.quiet("true");
            assert_eq!(counted.take(), 0, "{shell}: in {}", directory.display());
        }

        // Where nothing can be had, there is one more attempt, and then none until the directory changes.
        daemon.kill9();
        repo.git(["worktree", "add", "-q", "../two"]);
        terminal.quiet(&format!("cd {}", sandbox.path("two").display()));
        terminal.quiet("true");
        assert_eq!(counted.take(), 2, "{shell}: two attempts");
        terminal.quiet("true");
        assert_eq!(counted.take(), 0, "{shell}: and no more");
        terminal.quiet(&format!("cd {}", one.display()));
        assert_eq!(counted.take(), 1, "{shell}: the allocation file answers");
    }
}

#[test]
fn the_second_attempt_has_the_answer_of_a_daemon_that_is_back() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let repo = sandbox.repo("app");
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), sandbox.root());
        terminal.quiet(&format!("cd {}", repo.path.display()));
        let _daemon = sandbox.daemon();
        terminal.quiet("true");
        assert_eq!(terminal.variable("PORT_OFFSET"), Some("0".into()), "{shell}");
    }
}

#[test]
fn a_daemon_that_hangs_costs_two_short_waits_in_a_directory() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        repo.git(["worktree", "add", "-q", "../two"]);
        daemon.await_agreement(&repo);
        let file = repo.git_dir(&sandbox.path("two")).join("wtd.json");
        until("the allocation file is there", || file.is_file(), |there| *there);
        let counted = Counted::new(&sandbox, shell);
        let rc = counted.rc.replace("20000ms", "1ms");
        let mut terminal = Terminal::start(&sandbox, shell, &rc, sandbox.root());
        daemon.sigstop();
        fs::remove_file(file).unwrap();
        counted.take();
        terminal.quiet(&format!("cd {}", sandbox.path("two").display()));
        for _ in 0..3 {
            terminal.quiet("true");
        }
        assert_eq!(counted.take(), 2, "{shell}");
        daemon.sigcont();
    }
}

#[test]
fn the_hook_runs_the_program_that_made_it_with_its_options() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        // Neither the program nor the socket is where it is looked for, and both names are hostile.
        let elsewhere = sandbox.path("it's $(touch PWNED)\n\\@CLIENT@");
        fs::create_dir(&elsewhere).unwrap();
        let (program, socket) = (elsewhere.join("wtd-client"), elsewhere.join("s"));
        Ran::of(sandbox.command("cp").arg(Sandbox::program("wtd-client")).arg(&program)).ok();
        std::os::unix::fs::symlink(sandbox.socket(), &socket).unwrap();
        let mut command = sandbox.command(&program);
        let rc = Ran::of(command.arg("--socket").arg(&socket).args([
            "--timeout",
            "20",
            "--no-start",
            "hook",
            shell,
        ]))
        .quiet();
        let mut terminal = Terminal::start_with(&sandbox, shell, &rc, sandbox.root(), |command| {
            command.env("XDG_RUNTIME_DIR", sandbox.path("nowhere")).env("PATH", "/usr/bin:/bin");
        });
        terminal.quiet(&format!("cd {}", repo.path.display()));
        assert_eq!(terminal.variable("PORT_OFFSET"), Some("0".into()), "{shell}");
        assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new());
        // With the program gone, everything goes on.
        fs::remove_file(program).unwrap();
        terminal.quiet("cd /");
    }
}

#[test]
fn what_the_daemon_refuses_is_told_once() {
    for shell in shells() {
        // No offset is left from the beginning.
        let sandbox =
            Sandbox::with_config("engine = \"none\"\nprobe = false\nreserved_ports = [\"1024-65535\"]\n");
        let _daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), sandbox.root());
        let shown = terminal.run(&format!("cd {}", repo.path.display()));
        assert!(shown.text.starts_with("wtd-client: hook: "), "{shown:?}");
        assert_eq!(shown.text.lines().count(), 1, "{shown:?}");
        assert_eq!(terminal.run("true"), Shown { text: String::new(), status: 0 });
        assert_eq!(terminal.variable("PORT_OFFSET"), None);
    }
}

#[test]
fn doctor_tells_the_line_for_a_shell_in_which_the_hook_is_not_active() {
    let sandbox = Sandbox::new();
    for (shell, file) in [("bash", "~/.bashrc"), ("zsh", "~/.zshrc"), ("fish", "~/.config/fish/config.fish")]
    {
        if !require::program(shell) {
            continue;
        }
        // Inherited from a shell that has it.
        let mut command = sandbox.command(shell);
        let ran = Ran::of(command.args(["-c", "wtd-client --no-start doctor; true"]).env("WTD_HOOK", "1:1:"));
        let line = line(shell).replace("--timeout 20s ", "");
        let remedy = format!("add `{line}` to {file}");
        assert!(ran.text().contains(&remedy), "{ran:#?}");
    }
}

#[test]
fn a_shell_without_a_hook_is_refused_in_one_line() {
    let sandbox = Sandbox::new();
    for (shell, words) in
        [("tcsh", "nothing can be quoted safely"), ("csh", "csh"), ("nu", "bash"), ("x", "zsh")]
    {
        let line = sandbox.client(["hook", shell]).fails(2);
        assert!(line.contains(words), "{line}");
    }
    Ran::of(&mut sandbox.client_command(["hook"])).fails(2);
}
