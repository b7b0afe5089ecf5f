//! The shell hook beside what else a person has in an rc file: options, prompt commands, aliases, traps, direnv.

use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;

use crate::harness::{Daemon, Ran, Repo, Sandbox, Terminal, require};
use crate::hook::{assert_inside, assert_outside, line, shells};
use crate::shells::pwned;

/// A repository with a linked worktree.
fn worktrees(sandbox: &Sandbox) -> (Daemon<'_>, Repo<'_>, PathBuf) {
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    (daemon, repo, one)
}

/// In and out of a worktree under an rc file.
fn works_under(shell: &str, rc: &str) {
    if !require::program(shell) {
        return;
    }
    let sandbox = Sandbox::new();
    let (_daemon, repo, one) = worktrees(&sandbox);
    let mut terminal = Terminal::start(&sandbox, shell, rc, sandbox.root());
    let before = terminal.environment();
    for (worktree, offset) in [(&one, 10_000), (&repo.path, 0)] {
        terminal.quiet(&format!("cd {}", worktree.display()));
        assert_inside(&mut terminal, worktree, offset, &before);
    }
    terminal.quiet("cd /");
    assert_outside(&mut terminal, &before);
    assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new(), "{rc}");
}

#[test]
fn the_hook_works_under_strict_options_of_bash() {
    let line = line("bash");
    for options in [
        "set -euo pipefail",
        "set -eu; shopt -s inherit_errexit extglob failglob nullglob nocasematch extdebug",
        "set -CfaT; IFS=:/w; set -o posix",
        "shopt -s autocd cdspell histappend; set -b; set -H; set -E; trap 'echo ERR' ERR",
    ] {
        works_under("bash", &format!("{options}\n{line}"));
        works_under("bash", &format!("{line}\n{options}"));
    }
    works_under("bash", &format!("set -u; unset PROMPT_COMMAND\n{line}"));
}

#[test]
fn the_hook_works_under_strict_options_of_zsh() {
    let line = line("zsh");
    for options in [
        "setopt err_exit no_unset pipe_fail",
        "setopt ksh_arrays sh_word_split glob_subst no_clobber no_nomatch",
        "setopt err_return warn_create_global warn_nested_var all_export",
        "setopt extended_glob null_glob csh_nullcmd posix_builtins posix_identifiers; IFS=:/w",
        "setopt auto_cd auto_pushd pushd_silent cdable_vars chase_links; typeset -U chpwd_functions precmd_functions",
        "emulate sh",
        "emulate ksh",
    ] {
        works_under("zsh", &format!("{options}\n{line}"));
        works_under("zsh", &format!("{line}\n{options}"));
    }
}

#[test]
fn names_that_a_person_has_taken_for_something_else_do_no_harm() {
    let taken = "cd() { builtin cd \"$@\"; }\nexport() { echo EXPORT; }\nunset() { echo UNSET; }\n\
                 eval() { echo EVAL; }\ntrue() { echo TRUE; }\ncommand() { echo COMMAND; }\nlocal() { echo LOCAL; }\n\
                 test() { echo TEST; }\ntypeset() { echo TYPESET; }\nemulate() { echo EMULATE; }\n";
    let aliases = "alias export='echo EXPORT' unset='echo UNSET' local='echo LOCAL' return='echo RETURN' \
                   builtin='echo BUILTIN' eval='echo EVAL' typeset='echo TYPESET' emulate='echo EMULATE' \
                   true='echo TRUE' cd='\\builtin cd' command='echo COMMAND'\n";
    for shell in ["bash", "zsh"] {
        // What the person's own line needs is theirs to keep.
        let line = line(shell).replace("eval ", "\\builtin eval ");
        works_under(shell, &format!("{aliases}{line}"));
        works_under(shell, &format!("{line}\n{aliases}"));
        // In zsh the aliases of before would be expanded in these definitions.
        works_under(shell, &format!("{taken}{line}"));
        works_under(shell, &format!("{line}\n{taken}"));
    }
    // fish keeps the names of what it is made of.
    let taken = "function cd; builtin cd $argv; end\nalias env 'command env'\n";
    works_under("fish", &format!("{}\n{taken}", line("fish")));
    works_under("fish", &format!("{taken}\n{}", line("fish")));
}

#[test]
fn other_prompt_commands_of_bash_are_run_and_see_the_exit_status() {
    if !require::program("bash") {
        return;
    }
    let sandbox = Sandbox::new();
    let (_daemon, repo, one) = worktrees(&sandbox);
    let seen = sandbox.path("seen");
    let note = format!("note() {{ echo \"$? ${{PORT_OFFSET-none}}\" >{}; }}\n", seen.display());
    let hook = line("bash");
    let cases = [
        format!("PROMPT_COMMAND=note\n{hook}"),
        format!("PROMPT_COMMAND='note;'\n{hook}"),
        format!("PROMPT_COMMAND='note # and no more'\n{hook}"),
        format!("PROMPT_COMMAND=(note true)\n{hook}"),
        format!("PROMPT_COMMAND=(true note)\n{hook}\n{hook}"),
        format!("{hook}\nPROMPT_COMMAND=\"$PROMPT_COMMAND; note\""),
        format!("{hook}\nPROMPT_COMMAND+=(note)\n{hook}"),
        // As starship does it: it runs what was there, and then asks for the status.
        format!(
            "{hook}\nothers=$PROMPT_COMMAND\nwith_status() {{ return $1; }}\n\
             precmd() {{ local ended=$?; with_status $ended; eval \"$others\"; with_status $ended; note; }}\n\
             PROMPT_COMMAND=(precmd ': __wtd_hook prompt')"
        ),
        format!("PROMPT_COMMAND=note\n{hook}\n{hook}\n. \"${{BASH_SOURCE[0]}}.again\""),
    ];
    for rc in cases {
        fs::create_dir_all(sandbox.path("rc-bash")).unwrap();
        fs::write(sandbox.path("rc-bash/bashrc.again"), &hook).unwrap();
        let mut terminal = Terminal::start(&sandbox, "bash", &format!("{note}{rc}"), sandbox.root());
        let before = terminal.environment();
        for (directory, offset) in [(one.as_path(), "10000"), (&repo.path, "0"), (sandbox.root(), "none")] {
            let shown = terminal.run(&format!("cd {}; (exit 42)", directory.display()));
            assert_eq!((shown.status, shown.text.as_str()), (42, ""), "{rc}");
            let status = if rc.contains("(true note)") || rc.contains("; note\"") { "" } else { "42" };
            let noted = fs::read_to_string(&seen).unwrap();
            assert!(noted.ends_with(&format!(" {offset}\n")) && noted.starts_with(status), "{rc}: {noted}");
            assert_eq!(terminal.run("(exit 42)").status, 42);
        }
        assert_outside(&mut terminal, &before);
        let installed = terminal.ok("printf '%s\\n' \"${PROMPT_COMMAND[@]}\"");
        assert!(installed.matches("__wtd_hook prompt").count() == 1, "{rc}: {installed}");
    }
}

#[test]
fn other_hooks_of_zsh_are_run_and_see_the_exit_status() {
    if !require::program("zsh") {
        return;
    }
    let sandbox = Sandbox::new();
    let (_daemon, _repo, one) = worktrees(&sandbox);
    let seen = sandbox.path("seen");
    let note = format!("note() {{ echo \"$1 $? ${{PORT_OFFSET-none}}\" >>{}; }}\n", seen.display());
    let hook = line("zsh");
    let own = "on_cd() { note cd }\non_prompt() { note prompt }\n";
    for rc in [
        format!("{note}{own}chpwd_functions=(on_cd)\nprecmd_functions=(on_prompt)\n{hook}"),
        format!("{note}{own}{hook}\n{hook}\nchpwd_functions+=(on_cd)\nprecmd_functions+=(on_prompt)\n{hook}"),
        format!(
            "{note}{own}autoload -Uz add-zsh-hook\n{hook}\nadd-zsh-hook chpwd on_cd\nadd-zsh-hook precmd on_prompt"
        ),
    ] {
        let mut terminal = Terminal::start(&sandbox, "zsh", &rc, sandbox.root());
        drop(fs::remove_file(&seen));
        assert_eq!(terminal.run(&format!("cd {}; (exit 42)", one.display())).status, 42);
        let noted = fs::read_to_string(&seen).unwrap();
        assert!(noted.contains("cd 0 10000\n") && noted.contains("prompt 42 10000\n"), "{rc}: {noted}");
        let installed = terminal.ok("print $precmd_functions $chpwd_functions");
        assert_eq!(installed.matches("__wtd_prompt").count(), 1, "{rc}: {installed}");
        assert_eq!(installed.matches("__wtd_hook").count(), 2, "{rc}: {installed}");
        terminal.quiet("cd /");
        // A subshell that changes the directory has its own variables.
        let text =
            terminal.ok(&format!("(cd {}; echo $PORT_OFFSET); echo ${{PORT_OFFSET-none}}", one.display()));
        assert_eq!(text.lines().map(str::trim).collect::<Vec<_>>(), ["10000", "none"]);
    }
}

#[test]
fn traps_of_bash_stay_and_fire_as_before() {
    if !require::program("bash") {
        return;
    }
    let sandbox = Sandbox::new();
    let (_daemon, _repo, one) = worktrees(&sandbox);
    let rc = format!("trap ': debug' DEBUG\ntrap ': int' INT\ntrap ': exit' EXIT\n{}", line("bash"));
    let mut terminal = Terminal::start(&sandbox, "bash", &rc, sandbox.root());
    let before = terminal.ok("trap -p");
    terminal.quiet(&format!("cd {}", one.display()));
    terminal.quiet("cd /");
    assert_eq!(terminal.ok("trap -p"), before);
    // Whether there is one for INT depends on whether the tests were started in the background.
    assert!(["': debug' DEBUG", "': exit' EXIT"].iter().all(|trap| before.contains(trap)), "{before}");
}

#[test]
fn nothing_is_left_in_the_shell_but_the_hook_and_its_memory() {
    for shell in shells() {
        let sandbox = Sandbox::new();
        let (_daemon, _repo, one) = worktrees(&sandbox);
        let names = match shell {
            "bash" => "compgen -A variable -A function | grep -vx -e BASH_LINENO -e _ -e PIPESTATUS",
            "zsh" => "print -l ${(ok)parameters} ${(ok)functions}",
            _ => "begin; set --names; functions --all --names; end",
        };
        let mut terminal = Terminal::start(&sandbox, shell, "", sandbox.root());
        let before = terminal.ok(names);
        let mut terminal = Terminal::start(&sandbox, shell, &line(shell), sandbox.root());
        terminal.quiet(&format!("cd {}", one.display()));
        terminal.quiet("cd /");
        let after = terminal.ok(names);
        let words = |text: &str| {
            text.split([',', ' ', '\n']).map(str::to_owned).collect::<std::collections::BTreeSet<_>>()
        };
        let added: Vec<_> = words(&after).difference(&words(&before)).cloned().collect();
        let ours = |name: &&String| {
            ["WTD_HOOK", "__wtd_here", "__wtd_hook", "__wtd_prompt"].contains(&name.as_str())
                || (shell == "bash" && ["cd", "pushd", "popd"].contains(&name.as_str()))
        };
        // What any `cd`, or a prompt command of any kind, brings with it.
        let usual = [
            "OLDPWD",
            "PROMPT_COMMAND",
            "chpwd_functions",
            "precmd_functions",
            "dirprev",
            "__fish_cd_direction",
        ];
        let foreign: Vec<_> = added.iter().filter(|n| !ours(n) && !usual.contains(&n.as_str())).collect();
        assert_eq!(foreign, Vec::<&String>::new(), "{shell}");
    }
}

#[test]
fn what_a_person_has_made_read_only_stays_and_the_rest_follows() {
    for (shell, options) in
        [("bash", ""), ("bash", "set -eu; "), ("zsh", ""), ("zsh", "setopt err_exit no_unset; ")]
    {
        if !require::program(shell) {
            continue;
        }
        let sandbox = Sandbox::new();
        let (_daemon, _repo, one) = worktrees(&sandbox);
        let rc = format!(
            "{options}export DB_VOLUME=mine\nreadonly DB_VOLUME\ntypeset -i PORT_OFFSET=7\n{}",
            line(shell)
        );
        let mut terminal = Terminal::start(&sandbox, shell, &rc, sandbox.root());
        let before = terminal.environment();
        terminal.quiet(&format!("cd {}", one.display()));
        for (name, value) in
            [("DB_VOLUME", "mine"), ("PORT_OFFSET", "10000"), ("WTD_WORKTREE", one.to_str().unwrap())]
        {
            assert_eq!(terminal.variable(name), Some(value.into()), "{shell}");
        }
        terminal.quiet("cd /");
        assert_outside(&mut terminal, &before);
        assert_eq!(terminal.ok("echo $PORT_OFFSET"), "7");
    }
}

/// The line of direnv for an rc file.
fn direnv(shell: &str) -> String {
    match shell {
        "fish" => "direnv hook fish | source".to_owned(),
        _ => format!("eval \"$(direnv hook {shell})\""),
    }
}

#[test]
fn beside_direnv_an_envrc_reads_the_variables_and_wins_and_leaves_nothing_behind() {
    if !require::program("direnv") {
        return;
    }
    for shell in shells() {
        let sandbox = Sandbox::new();
        let (daemon, repo, one) = worktrees(&sandbox);
        let two = repo.add("two");
        daemon.await_agreement(&repo);
        let envrc = "export URL=localhost:$DB_HOST_PORT\nexport POSTGRES_DB=of-the-envrc\n";
        for worktree in [&one, &repo.path] {
            fs::write(worktree.join(".envrc"), envrc).unwrap();
            Ran::of(sandbox.command("direnv").arg("allow").current_dir(worktree)).ok();
        }
        let hook = line(shell);
        for (rc, is_second) in
            [(format!("{}\n{hook}", direnv(shell)), true), (format!("{hook}\n{}", direnv(shell)), false)]
        {
            let rc = format!(
                "{rc}\n{}",
                if shell == "fish" { "set -gx DIRENV_LOG_FORMAT ''" } else { "export DIRENV_LOG_FORMAT=" }
            );
            let mut terminal = Terminal::start_with(&sandbox, shell, &rc, sandbox.root(), |command| {
                command.env("POSTGRES_DB", "of before");
            });
            let before = terminal.environment();
            let variable = |terminal: &mut Terminal<'_>, name: &str| {
                terminal.variable(name).map(|value| value.to_string_lossy().into_owned())
            };
            for _ in 0..2 {
                for (worktree, port) in [(&one, "15432"), (&repo.path, "5432")] {
                    terminal.quiet(&format!("cd {}", worktree.display()));
                    terminal.quiet("true");
                    assert_eq!(
                        variable(&mut terminal, "DB_HOST_PORT").as_deref(),
                        Some(port),
                        "{shell}: {rc}"
                    );
                    assert_eq!(
                        variable(&mut terminal, "POSTGRES_DB").as_deref(),
                        Some("of-the-envrc"),
                        "{shell}: {rc}"
                    );
                    if is_second {
                        let url = format!("localhost:{port}");
                        assert_eq!(variable(&mut terminal, "URL"), Some(url), "{shell}: {rc}");
                    }
                }
                // A worktree without the file, right after one with it.
                terminal.quiet(&format!("cd {}", two.display()));
                terminal.quiet("true");
                assert_inside(&mut terminal, &two, 20_000, &before);
                terminal.quiet(&format!("cd {}", one.display()));
                terminal.quiet(&format!("cd {}", sandbox.root().display()));
                terminal.quiet("true");
                assert_outside(&mut terminal, &before);
            }
        }
    }
}

#[test]
fn doctor_counts_direnv_as_a_hook() {
    if !require::program("direnv") {
        return;
    }
    let sandbox = Sandbox::new();
    let (_daemon, _repo, one) = worktrees(&sandbox);
    fs::write(one.join(".envrc"), "eval \"$(wtd-client env --shell bash)\"\n").unwrap();
    Ran::of(sandbox.command("direnv").arg("allow").current_dir(&one)).ok();
    let mut command = sandbox.command("direnv");
    let arguments = [
        OsStr::new("exec"),
        one.as_os_str(),
        "bash".as_ref(),
        "-c".as_ref(),
        "wtd-client doctor; :".as_ref(),
    ];
    let text = Ran::of(command.args(arguments).env("WTD_NO_START", "1")).ok();
    assert!(text.contains("by direnv"), "{text}");
}
