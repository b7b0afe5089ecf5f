//! The shell hook in real interactive shells on a terminal: the variables follow every change of directory, what was
//! before comes back, and nothing is seen of it.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use crate::harness::{Sandbox, Terminal, Variables, require};
use crate::shells::{HOSTILE, hostile_worktrees, pwned};

/// The shells that have a hook.
pub(crate) const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// The line for the rc file. The machine may be busy, and this is not about how long anything takes.
pub(crate) fn line(shell: &str) -> String {
    match shell {
        "fish" => "wtd-client --timeout 20s hook fish | source".to_owned(),
        _ => format!("eval \"$(wtd-client --timeout 20s hook {shell})\""),
    }
}

/// The shells of the machine that have a hook.
pub(crate) fn shells() -> impl Iterator<Item = &'static str> {
    SHELLS.into_iter().filter(|shell| require::program(shell))
}

/// Asserts that the shell has the variables of the worktree at `worktree`, with this offset; and otherwise what it had
/// `before`.
#[track_caller]
pub(crate) fn assert_inside(terminal: &mut Terminal<'_>, worktree: &Path, offset: u16, before: &Variables) {
    let mut environment = terminal.environment();
    assert_eq!(environment.remove(OsStr::new("WTD_WORKTREE")).as_deref(), Some(worktree.as_os_str()));
    let mut expect = |name: &str, value: String| {
        assert_eq!(environment.remove(OsStr::new(name)), Some(value.into()), "{name}");
    };
    expect("PORT_OFFSET", offset.to_string());
    expect("DB_HOST_PORT", (5432 + offset).to_string());
    expect("DB_VOLUME", format!("db_data_{offset}"));
    expect("POSTGRES_DB", format!("app-{offset}"));
    if offset > 0 {
        expect("COMPOSE_PROJECT_NAME", format!("app-{offset}"));
    }
    forget_the_hooks_own(&mut environment);
    let mut before = before.clone();
    forget_the_hooks_own(&mut before);
    for name in ["PORT_OFFSET", "DB_HOST_PORT", "DB_VOLUME", "POSTGRES_DB", "WTD_WORKTREE"] {
        before.remove(OsStr::new(name));
    }
    if offset > 0 {
        before.remove(OsStr::new("COMPOSE_PROJECT_NAME"));
    }
    assert_eq!(environment, before);
    terminal.quiet("wtd-client check");
}

/// Removes the hook's memory, and what it keeps in the shell (which `set -a` exports); false if there is none.
fn forget_the_hooks_own(environment: &mut Variables) -> bool {
    environment.remove(OsStr::new("__wtd_here"));
    environment.remove(OsStr::new("WTD_HOOK")).is_some()
}

/// Asserts that the shell's environment is what it was `before`.
#[track_caller]
pub(crate) fn assert_outside(terminal: &mut Terminal<'_>, before: &Variables) {
    let mut environment = terminal.environment();
    let mut before = before.clone();
    assert!(forget_the_hooks_own(&mut environment), "the hook is active");
    forget_the_hooks_own(&mut before);
    assert_eq!(environment, before);
}

#[test]
fn what_env_has_set_under_the_hook_goes_with_the_worktree_and_what_a_person_has_set_stays() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let (repo, other) = (sandbox.repo("app"), sandbox.repo("other"));
        fs::create_dir(repo.path.join("sub")).unwrap();
        daemon.put(&repo.path);
        daemon.put(&other.path);
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), sandbox.root());
        // As the main worktree has it.
        terminal.quiet("export DB_HOST_PORT=5432");
        let env = if shell == "fish" { "wtd-client env | source" } else { "eval \"$(wtd-client env)\"" };
        for (place, port) in [(&repo.path, 3000), (&repo.path.join("sub"), 4000)] {
            terminal.quiet(&format!("cd {}", repo.path.display()));
            fs::write(repo.path.join("wtd.toml"), format!("[ports]\nUI_PORT = {port}\n")).unwrap();
            terminal.quiet(env);
            terminal.quiet(&format!("cd {}", place.display()));
            terminal.quiet("wtd-client check");
            assert_eq!(terminal.variable("UI_PORT"), Some(port.to_string().into()), "{shell}");
            terminal.quiet(&format!("cd {}", other.path.display()));
            assert_eq!(terminal.variable("UI_PORT"), None, "{shell}: {port}");
            terminal.quiet(&format!("cd {}", sandbox.root().display()));
            assert_eq!(terminal.variable("DB_HOST_PORT"), Some("5432".into()), "{shell}");
            fs::remove_file(repo.path.join("wtd.toml")).unwrap();
        }
    }
}

#[test]
fn the_variables_follow_the_directory_and_what_was_before_comes_back() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let mut daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let (one, inner) = (repo.add("one"), repo.path.join(".worktrees/inner"));
        repo.add_at(&inner, "inner");
        fs::create_dir(one.join("below")).unwrap();
        daemon.await_agreement(&repo);
        let (one_offset, inner_offset) = (sandbox.offset(&one), sandbox.offset(&inner));
        let (main, outside) = (repo.path.display(), sandbox.root().display());

        let unexported = if shell == "fish" { "set -g POSTGRES_DB " } else { "POSTGRES_DB=" };
        let rc = format!("{unexported}'not exported $(touch PWNED)'\n{}", line(shell));
        let show = if shell == "fish" { "echo \"[$POSTGRES_DB]\"" } else { "echo \"[${POSTGRES_DB-}]\"" };
        let hostile = "'; touch PWNED; '$(touch PWNED)`touch PWNED`\n\\ \u{fc}\u{202e}";
        let start = |at: &Path| {
            Terminal::start_with(&sandbox, shell, &rc, at, |command| {
                command.env("DB_HOST_PORT", hostile).env("DB_VOLUME", "").env("COMPOSE_PROJECT_NAME", "mine");
            })
        };

        let mut terminal = start(sandbox.root());
        let before = terminal.environment();
        assert_eq!(before[OsStr::new("DB_HOST_PORT")], *hostile);
        assert_eq!(before.get(OsStr::new("POSTGRES_DB")), None);
        for _ in 0..2 {
            terminal.quiet(&format!("cd {main}"));
            assert_inside(&mut terminal, &repo.path, 0, &before);
            terminal.quiet(&format!("cd {}", inner.display()));
            assert_inside(&mut terminal, &inner, inner_offset, &before);
            terminal.quiet(&format!("cd {}", one.display()));
            assert_inside(&mut terminal, &one, one_offset, &before);
            terminal.quiet("cd below");
            assert_inside(&mut terminal, &one, one_offset, &before);
            terminal.quiet(&format!("cd {outside}"));
            assert_outside(&mut terminal, &before);
            terminal.quiet("wtd-client check");
            assert_eq!(terminal.ok(show), "[not exported $(touch PWNED)]", "{shell}");
        }
        terminal.ok(&format!("pushd {}", one.display()));
        assert_inside(&mut terminal, &one, one_offset, &before);
        terminal.ok("popd");
        assert_outside(&mut terminal, &before);
        terminal.quiet(&format!("cd {main}; git worktree add -q ../app-two; cd ../app-two"));
        let two = sandbox.path("app-two");
        let two_offset = sandbox.offset(&two);
        assert_inside(&mut terminal, &two, two_offset, &before);

        // With the daemon gone, the allocation files answer; and leaving always takes the variables back.
        daemon.kill9();
        terminal.quiet(&format!("cd {}", one.display()));
        assert_inside(&mut terminal, &one, one_offset, &before);
        repo.git(["worktree", "add", "-q", "../app-three"]);
        let three = sandbox.path("app-three");
        terminal.quiet(&format!("cd {}", three.display()));
        assert_outside(&mut terminal, &before);
        terminal.quiet(&format!("cd {}", inner.display()));
        assert_inside(&mut terminal, &inner, inner_offset, &before);
        terminal.quiet(&format!("cd {outside}"));
        assert_outside(&mut terminal, &before);
        assert_eq!(terminal.ok(show), "[not exported $(touch PWNED)]", "{shell}");
        daemon = sandbox.daemon();
        terminal.quiet(&format!("cd {}", three.display()));
        assert_inside(&mut terminal, &three, sandbox.offset(&three), &before);
        let checks = terminal.run("wtd-client doctor").text;
        assert!(checks.contains("shell hook: the hook is active"), "{checks}");

        let mut terminal = start(&one);
        assert_inside(&mut terminal, &one, one_offset, &before);
        terminal.quiet(&format!("cd {outside}"));
        assert_outside(&mut terminal, &before);
        drop(daemon);
        assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new());
    }
}

#[test]
fn what_follows_a_change_of_directory_in_the_same_line_has_the_new_variables() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let one = repo.add("one");
        daemon.await_agreement(&repo);
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), &repo.path);
        let (main, one) = (repo.path.display(), one.display());
        let ask = "wtd-client check && sh -c 'echo at $PORT_OFFSET'";
        for change in [format!("cd {one}"), format!("pushd {one} >/dev/null")] {
            assert_eq!(terminal.ok(&format!("{change} && {ask}")).trim(), "at 10000", "{shell}: {change}");
            assert_eq!(terminal.ok(&format!("cd {main} && {ask}")).trim(), "at 0", "{shell}");
        }
        if shell != "fish" {
            assert_eq!(terminal.ok(&format!("(cd {one}; {ask}); {ask}")).trim(), "at 10000\nat 0", "{shell}");
            assert_eq!(terminal.run("cd /nowhere 2>/dev/null").status, 1, "{shell}");
        }
    }
}

#[test]
fn hostile_names_are_followed_and_nothing_runs() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let _daemon = sandbox.daemon();
        let worktrees = hostile_worktrees(&sandbox);
        let hostile: Vec<OsString> =
            HOSTILE.iter().map(|bytes| OsStr::from_bytes(bytes).to_owned()).collect();
        let mut terminal = Terminal::start_with(&sandbox, shell, &line(shell), sandbox.root(), |command| {
            for (number, (_, path)) in worktrees.iter().enumerate() {
                command.env(format!("TARGET_{number}"), path);
            }
            for (number, value) in hostile.iter().enumerate() {
                command.env(["DB_HOST_PORT", "DB_VOLUME", "COMPOSE_PROJECT_NAME"][number % 3], value);
            }
        });
        let before = terminal.environment();
        for (number, (_, path)) in worktrees.iter().enumerate() {
            terminal.quiet(&format!("cd \"$TARGET_{number}\""));
            assert_eq!(terminal.variable("WTD_WORKTREE"), Some(path.clone().into()), "{shell}");
        }
        terminal.quiet("cd /");
        assert_outside(&mut terminal, &before);
        assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new(), "{shell}");
    }
}

#[test]
fn a_directory_that_goes_or_moves_under_the_shell_is_noticed() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        let (one, two) = (repo.add("one"), repo.add("two"));
        daemon.await_agreement(&repo);
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), sandbox.root());
        let before = terminal.environment();

        terminal.quiet(&format!("cd {}", one.display()));
        let offset = sandbox.offset(&one);
        let moved = sandbox.path("app-moved");
        repo.mv(&one, &moved);
        terminal.quiet("true");
        assert_inside(&mut terminal, &moved, offset, &before);

        // Removed, and made again: another incarnation, with another offset.
        terminal.quiet(&format!("cd {}", two.display()));
        let offset = sandbox.offset(&two);
        repo.remove(&two);
        terminal.quiet("true");
        assert_outside(&mut terminal, &before);
        // Its offset goes to the next one as soon as it is free.
        daemon.await_state(&two, "released");
        repo.add("three");
        daemon.await_agreement(&repo);
        repo.git(["worktree", "add", "-q", two.to_str().unwrap(), "two"]);
        terminal.quiet(&format!("cd {}", two.display()));
        let fresh = sandbox.offset(&two);
        assert_ne!(fresh, offset, "{shell}");
        assert_inside(&mut terminal, &two, fresh, &before);
    }
}

#[test]
fn child_shells_follow_on_and_restore_what_was_before_the_first() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    let outer: Vec<_> = shells().collect();
    for shell in &outer {
        for child in &outer {
            let mut terminal =
                Terminal::start_with(&sandbox, shell, &line(shell), sandbox.root(), |command| {
                    command.env("DB_VOLUME", "of before");
                });
            let before = terminal.environment();
            terminal.quiet(&format!("cd {}", one.display()));
            // The child shell has the hook as well; it is told by a script, and leaves for good.
            let file = sandbox.path(format!("child-{}", sandbox.number()));
            let hook = line(child);
            let script =
                format!("{hook}\ncd {}\n__wtd_hook\nenv -0 > {}\n", sandbox.root().display(), file.display());
            let code = sandbox.path(format!("script-{}", sandbox.number()));
            fs::write(&code, script).unwrap();
            terminal.quiet(&format!("{child} {}", code.display()));
            let mut inherited = crate::harness::parse_environment(&fs::read(&file).unwrap());
            let marker = inherited.remove(OsStr::new("WTD_HOOK")).unwrap();
            let mut expected = before.clone();
            assert_ne!(expected.remove(OsStr::new("WTD_HOOK")), Some(marker), "{shell}: the child's own");
            assert_eq!(inherited, expected, "{child} in {shell}");
            assert_inside(&mut terminal, &one, sandbox.offset(&one), &before);
        }
    }
}

#[test]
fn a_change_by_hand_lasts_as_long_as_the_shell_stays_in_the_worktree() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        daemon.put(&repo.path);
        fs::create_dir(repo.path.join("below")).unwrap();
        let mut terminal = Terminal::start_with(&sandbox, shell, &line(shell), &repo.path, |command| {
            command.env("DB_HOST_PORT", "outside");
        });
        let set = if shell == "fish" { "set -gx DB_HOST_PORT" } else { "export DB_HOST_PORT=" };
        terminal.quiet(&format!("{set}{}9999", if shell == "fish" { " " } else { "" }));
        terminal.quiet("cd below");
        assert_eq!(terminal.variable("DB_HOST_PORT"), Some("9999".into()), "{shell}");
        let line = terminal.run("wtd-client check");
        assert!(line.status == 1 && line.text.contains("DB_HOST_PORT is 9999"), "{line:?}");
        terminal.quiet("cd /");
        assert_eq!(terminal.variable("DB_HOST_PORT"), Some("outside".into()), "{shell}");
    }
}

#[test]
fn a_memory_from_elsewhere_runs_nothing_and_sets_nothing_foreign() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let _daemon = sandbox.daemon();
        let repo = sandbox.repo("app");
        // NPATH B/evil S0, and NPORT_OFFSET B$(touch PWNED) S0, each field ended by NUL.
        for memory in [
            "$(touch PWNED)",
            "1:1:TlBBVEgAQi9ldmlsAFMwAA",
            "1:1:TlBPUlRfT0ZGU0VUAEIkKHRvdWNoIFBXTkVEKQBTMAA",
        ] {
            let mut terminal = Terminal::start_with(&sandbox, shell, &line(shell), &repo.path, |command| {
                command.env("WTD_HOOK", memory);
            });
            let path = terminal.variable("PATH").unwrap();
            terminal.quiet("cd /");
            assert_eq!(terminal.variable("PATH"), Some(path), "{shell}");
        }
        assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new(), "{shell}");
    }
}
