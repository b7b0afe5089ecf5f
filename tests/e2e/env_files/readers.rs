//! Who reads the files, and what they read.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

use serde_json::Value;

use super::write;
use crate::harness::{Ran, Sandbox, require, until};

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
