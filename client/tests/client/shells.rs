//! The output of `env` in real shells: every value arrives as it is, and nothing else happens.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::Path;

use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use crate::support::{Sandbox, Server, allocation, answer, environment, has};

/// How a shell evaluates the client's output and then runs `env -0`, by the name of its program.
/// (Nushell and PowerShell are no packages of Debian's, so unit tests have to do for them.)
const EVALUATIONS: [(&str, &[&str]); 10] = [
    ("bash", &["-c", "eval \"$(wtd-client env)\"; env -0"]),
    ("bash", &["--posix", "-c", "eval \"$(wtd-client env --shell sh)\"; env -0"]),
    ("zsh", &["-fc", "eval \"$(wtd-client env)\"; env -0"]),
    ("zsh", &["-fc", "setopt bsd_echo rc_quotes interactive_comments; eval \"$(wtd-client env)\"; env -0"]),
    ("dash", &["-c", "eval \"$(wtd-client env)\"; env -0"]),
    ("mksh", &["-c", "eval \"$(wtd-client env)\"; env -0"]),
    ("fish", &["--no-config", "-c", "eval (wtd-client env); env -0"]),
    ("fish", &["--no-config", "-c", "eval \"$(wtd-client env)\"; env -0"]),
    ("fish", &["--no-config", "-c", "wtd-client env | source; env -0"]),
    ("elvish", &["-norc", "-c", "eval (wtd-client env | slurp); env -0"]),
];

/// Values that try to be code in one shell or another.
const HOSTILE: [&str; 24] = [
    "",
    " ",
    "'",
    "\"",
    "\\",
    "'\\''; touch PWN; #'",
    "'\\'\\''; touch PWN; #'",
    "$(touch PWN)",
    "`touch PWN`",
    "(touch PWN)",
    "; touch PWN;",
    "\n touch PWN\n",
    "\r\n",
    "\t\u{7}\u{1b}[31m\u{7f}",
    "a'b\"c\\d$e`f!g*h?i[j]k{l}m~n#o&p|q<r>s(t)u;v",
    "!!",
    "~root",
    "*",
    "%1",
    "-n",
    "= a",
    "\u{2018}; touch PWN; \u{2019}",
    "ü 日本 \u{1f600}",
    "\\n\\x41\\u0041\\e",
];

/// Evaluates in one shell; gives the environment that came of it.
fn evaluate(sandbox: &Sandbox, server: &Server, shell: &str, arguments: &[&str]) -> Vec<(String, OsString)> {
    let work = sandbox.path("work");
    fs::create_dir_all(&work).unwrap();
    let output = server.shell(sandbox, shell, arguments).current_dir(&work).output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{shell} {arguments:?}: {stderr}");
    assert_eq!(fs::read_dir(&work).unwrap().count(), 0, "{shell} {arguments:?} ran a value");
    environment(&output.stdout)
}

/// Asserts that `values`, and a worktree at `path`, arrive in the shell.
fn assert_arrive(shell: &str, arguments: &[&str], path: &OsStr, values: &[String]) {
    let sandbox = Sandbox::new();
    let names: Vec<_> = (0..values.len()).map(|index| format!("V{index}")).collect();
    let variables: Vec<_> =
        names.iter().zip(values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Server::saying(&sandbox, answer(200, &allocation(Path::new(path), &variables)));
    let environment = evaluate(&sandbox, &server, shell, arguments);
    let value = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str());
    for (name, expected) in &variables {
        assert_eq!(value(name), Some(OsStr::new(expected)), "{shell} {arguments:?}");
    }
    assert_eq!(value("WTD_WORKTREE"), Some(path), "{shell} {arguments:?}");
}

/// Whether the shell has a way to write bytes that are no text.
fn takes_bytes(shell: &str) -> bool {
    shell != "elvish"
}

#[test]
fn hostile_values_arrive_and_nothing_runs() {
    let values = HOSTILE.map(str::to_owned);
    for (shell, arguments) in EVALUATIONS {
        if has(shell) {
            assert_arrive(shell, arguments, OsStr::new("/w x'\n$(touch PWN)"), &values);
        }
    }
}

#[test]
fn paths_that_are_not_text_arrive_where_the_shell_can_hold_them() {
    let path = OsStr::from_bytes(b"/\xff\xfe'\x80\n\xc3(\xed\xa0\x80\\");
    for (shell, arguments) in EVALUATIONS {
        if !has(shell) {
            continue;
        }
        if takes_bytes(shell) {
            assert_arrive(shell, arguments, path, &[]);
        } else {
            let sandbox = Sandbox::new();
            let server = Server::saying(&sandbox, answer(200, &allocation(Path::new(path), &[])));
            server.run(&sandbox, &["env", "--shell", shell]).failed(1, "not UTF-8");
        }
    }
}

/// Text that is made of what shells mind, and of anything else.
fn text() -> impl Strategy<Value = String> {
    let character = prop_oneof![
        4 => prop::sample::select("'\"\\$`!;&|<>(){}[]*?~#%^=-+,. \n\r\t\u{1}\u{1b}\u{7f}nxuU0aA\u{2018}\u{2019}\u{201b}".chars().collect::<Vec<_>>()),
        1 => prop::sample::select(vec!['\u{fdd0}', '\u{e000}', '\u{f600}', '\u{f700}', '\u{fffe}', '\u{85}', '\u{a0}', '\u{2028}']),
        1 => prop::char::range('\u{1}', '\u{10ffff}'),
    ];
    prop::collection::vec(character, 0..12).prop_map(|characters| characters.into_iter().collect())
}

#[test]
fn any_value_arrives() {
    let bytes = prop::collection::vec(1..=u8::MAX, 0..12).prop_map(|bytes| [b"/", &bytes[..]].concat());
    let strategy = (bytes, prop::collection::vec(text(), 200));
    for (shell, arguments) in EVALUATIONS {
        if !has(shell) {
            continue;
        }
        let seed = RngSeed::Fixed(5432);
        let config = Config {
            cases: 3,
            max_shrink_iters: 64,
            failure_persistence: None,
            rng_seed: seed,
            ..Config::default()
        };
        let tested = TestRunner::new(config).run(&strategy, |(path, values)| {
            let path = if takes_bytes(shell) { OsString::from_vec(path) } else { "/w".into() };
            assert_arrive(shell, arguments, &path, &values);
            Ok(())
        });
        assert!(tested.is_ok(), "{shell}: {tested:?}");
    }
}

#[test]
fn the_shell_is_detected_past_what_merely_runs_the_client() {
    let sandbox = Sandbox::new();
    let server = Server::saying(&sandbox, answer(200, &allocation(Path::new("/w x"), &[])));
    for (shell, arguments) in [
        ("bash", &["-c", "timeout 60 env A=b wtd-client env WTD_WORKTREE; true"][..]),
        ("fish", &["--no-config", "-c", "env A=b timeout 60 wtd-client env WTD_WORKTREE; true"]),
    ] {
        if has(shell) {
            let output = server.shell(&sandbox, shell, arguments).output().unwrap();
            let text = String::from_utf8(output.stdout).unwrap();
            let expected =
                if shell == "fish" { "set -gx WTD_WORKTREE /w' x';" } else { "export WTD_WORKTREE=$'/w x'" };
            assert_eq!(text.lines().next(), Some(expected));
        }
    }
}

#[test]
fn dotenv_lines_are_read_back_by_a_shell() {
    let sandbox = Sandbox::new();
    let values = HOSTILE.map(str::to_owned).into_iter().filter(|value| !value.ends_with('\\'));
    let values: Vec<_> = values.filter(|value| !(value.contains('\'') && value.contains('`'))).collect();
    let names: Vec<_> = (0..values.len()).map(|index| format!("V{index}")).collect();
    let variables: Vec<_> =
        names.iter().zip(&values).map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let server = Server::saying(&sandbox, answer(200, &allocation(Path::new("/w"), &variables)));
    let output = server.client(&sandbox, &["env", "--format", "dotenv"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    fs::write(sandbox.path("x.env"), output.stdout).unwrap();
    for shell in ["bash", "dash", "zsh"] {
        if has(shell) {
            let mut command = sandbox.command(shell);
            let output = command.args(["-c", "set -a; . ./x.env; env -0"]).output().unwrap();
            let environment = environment(&output.stdout);
            for (name, value) in &variables {
                let arrived = environment.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_os_str());
                assert_eq!(arrived, Some(OsStr::new(value)), "{shell}");
            }
        }
    }
    let server = Server::at(sandbox.path("t"), |_, stream| {
        let variables = [("X", "`'")];
        std::io::Write::write_all(stream, &answer(200, &allocation(Path::new("/w"), &variables))).unwrap();
    });
    server.run(&sandbox, &["env", "--format", "dotenv"]).failed(1, "X has a value");
}
