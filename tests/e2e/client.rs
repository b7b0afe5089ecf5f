//! `wtd-client`: what it prints, how it fails, and what it does without a daemon.

use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};

use crate::harness::{Nobody, Ran, Sandbox, require, until};

#[test]
fn env_prints_the_contracts_variables_in_every_format() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("My App");
    fs::write(
        repo.path.join("wtd.toml"),
        "[ports]\nUI_PORT = 3000\n[volumes]\nREDIS_VOLUME = \"redis_data\"\n",
    )
    .unwrap();
    let one = repo.add("one");
    sandbox.offset(&repo.path);
    let expected = json!({
        "PORT_OFFSET": "10000", "DB_HOST_PORT": "15432", "UI_PORT": "13000", "DB_VOLUME": "db_data_10000",
        "REDIS_VOLUME": "redis_data_10000", "POSTGRES_DB": "my-app-10000", "COMPOSE_PROJECT_NAME": "my-app-10000",
        "WTD_WORKTREE": one,
    });
    let text = sandbox.client_in(&one, ["env", "--format", "json"]).quiet();
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), expected);

    let main = sandbox.client_in(&repo.path, ["env", "--format", "json"]).quiet();
    let main: Value = serde_json::from_str(&main).unwrap();
    assert_eq!(main["PORT_OFFSET"], "0");
    assert!(
        main.get("COMPOSE_PROJECT_NAME").is_none(),
        "a main worktree's stack keeps the name that Compose gives it"
    );

    let dotenv = sandbox.client_in(&one, ["env", "--format", "dotenv"]).quiet();
    assert!(dotenv.lines().any(|line| line == "DB_HOST_PORT=15432"), "{dotenv}");
    let keys = sandbox.client_in(&one, ["env", "--shell", "sh", "UI_PORT", "PORT_OFFSET"]).quiet();
    assert_eq!(keys, "export PORT_OFFSET=10000\nexport UI_PORT=13000\n");
    assert_eq!(sandbox.client_in(&one, ["get", "DB_HOST_PORT"]).quiet(), "15432\n");
    let line = sandbox.client_in(&one, ["get", "NONSENSE"]).fails(1);
    assert!(line.contains("NONSENSE") && line.contains("DB_HOST_PORT"), "it says which there are: {line}");
    sandbox.client_in(&one, ["env", "NONSENSE"]).fails(1);
}

#[test]
fn outside_of_a_worktree_env_is_silent_and_the_others_fail_with_3() {
    let sandbox = Sandbox::new();
    let outside = sandbox.path("outside");
    fs::create_dir(&outside).unwrap();
    let _daemon = sandbox.daemon();
    assert_eq!(sandbox.client_in(&outside, ["env"]).quiet(), "");
    assert_eq!(sandbox.client_in(&outside, ["env", "--format", "json"]).quiet(), "");
    sandbox.client_in(&outside, ["env", "--strict"]).fails(3);
    sandbox.client_in(&outside, ["get", "PORT_OFFSET"]).fails(3);
    sandbox.client_in(&outside, ["exec", "--", "true"]).fails(3);
    assert_eq!(sandbox.client_in(&outside, ["check"]).quiet(), "");
    // A working directory that is gone is in no worktree either.
    let mut command = sandbox.command("sh");
    let script = "mkdir gone; cd gone; rmdir ../gone; exec wtd-client --no-start env --shell sh";
    assert_eq!(Ran::of(command.args(["-c", script])).quiet(), "");
}

#[test]
fn a_path_that_cannot_be_asked_about_is_told_in_one_line() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    for verb in [&["env"][..], &["get", "PORT_OFFSET"], &["exec", "--path", "/nonexistent/x", "true"]] {
        let mut arguments = verb.to_vec();
        if verb[0] != "exec" {
            arguments.extend(["--path", "/nonexistent/x"]);
        }
        let line = sandbox.client(&arguments).fails(1);
        assert!(line.contains("/nonexistent/x"), "{line}");
    }
    sandbox.client(["add", "/nonexistent/x"]).fails(1);
    sandbox.client(["add", sandbox.root().to_str().unwrap()]).fails(3);
    sandbox.client(["forget", "-y", repo.path.to_str().unwrap()]).fails(1);
    // A .git that leads nowhere.
    let broken = sandbox.path("broken");
    fs::create_dir(&broken).unwrap();
    fs::write(broken.join(".git"), "gitdir: /nonexistent/git\n").unwrap();
    let ran = sandbox.client_in(&broken, ["get", "PORT_OFFSET"]);
    assert!(matches!(ran.code, Some(1 | 3)), "{ran:#?}");
    ran.fails(ran.code.unwrap());
    // A line is a line, whatever the path.
    let odd = sandbox.path("new\nline\u{1b}[31m");
    sandbox.client([OsStr::new("get"), "X".as_ref(), "--path".as_ref(), odd.as_os_str()]).fails(1);
}

#[test]
fn a_path_that_this_user_cannot_read_is_told_in_one_line() {
    if !require::unprivileged() {
        return;
    }
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("closed/app");
    let nobody = Nobody::of(&sandbox);
    nobody.own(sandbox.root());
    let _daemon = nobody.daemon();
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o000)).unwrap();
    let line = nobody.client(["get", "PORT_OFFSET", "--path", repo.path.to_str().unwrap()]).fails(1);
    assert!(line.contains("Permission denied"), "{line}");
    fs::set_permissions(sandbox.path("closed"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn output_is_coloured_on_no_pipe_whatever_a_variable_asks_for() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    daemon.put(&sandbox.repo("app").path);
    let programs = [("wtd-client", &["list"][..]), ("wtd-client", &["doctor"]), ("wtd-client", &["--help"])];
    for (program, arguments) in programs.into_iter().chain([("wtd", &["--help"][..]), ("wtd", &["--bogus"])])
    {
        let mut command = sandbox.command(Sandbox::program(program));
        let ran = Ran::of(command.args(arguments).env("CLICOLOR_FORCE", "1").env("CLICOLOR", "1"));
        assert!(!ran.stdout.contains(&0x1b) && !ran.stderr.contains('\u{1b}'), "{ran:#?}");
        assert!(!ran.stdout.is_empty() || !ran.stderr.is_empty(), "{ran:#?}");
    }
}

#[test]
fn bad_usage_of_the_daemon_is_one_line_and_2() {
    let sandbox = Sandbox::new();
    for (arguments, expected) in [
        (&["--nonsense"][..], "wtd: unexpected argument '--nonsense' found; see `wtd --help`"),
        (&["extra"], "wtd: unexpected argument 'extra' found; see `wtd --help`"),
        (
            &["--step"],
            "wtd: a value is required for '--step <PORTS>' but none was supplied; see `wtd --help`",
        ),
        (&["--step", "x"], "wtd: invalid value 'x' for '--step <PORTS>': "),
        (&["--probe=perhaps"], "wtd: invalid value 'perhaps' for '--probe [<BOOL>]'"),
    ] {
        let ran = Ran::of(sandbox.command(Sandbox::program("wtd")).args(arguments));
        assert_eq!((ran.code, ran.stdout.len(), ran.stderr.lines().count()), (Some(2), 0, 1), "{ran:#?}");
        let line = ran.stderr.trim_end();
        assert!(line.starts_with(expected) && line.ends_with("; see `wtd --help`"), "{line}");
    }
    let ran = Ran::of(sandbox.command(Sandbox::program("wtd")).arg("--version"));
    assert!(ran.quiet().starts_with("wtd "));
}

#[test]
fn bad_usage_is_one_line_and_2() {
    let sandbox = Sandbox::new();
    for arguments in [
        &["--nonsense"][..],
        &["env", "--nonsense"],
        &["nonsense"],
        &["env", "--shell", "dos"],
        &["env", "--shell", "tcsh"],
        &["env", "--format", "xml"],
        &["get"],
        &["exec"],
        &["list", "extra"],
        &["list", "--timeout", "soon"],
    ] {
        let ran = sandbox.client(arguments);
        assert_eq!(ran.code, Some(2), "{ran:#?}");
        assert!(ran.stdout.is_empty() && ran.stderr.starts_with("wtd-client: "), "{ran:#?}");
        assert_eq!(ran.stderr.lines().count(), 1, "one line: {}", ran.stderr);
    }
    assert!(sandbox.client(["env", "--shell", "tcsh"]).stderr.contains("quoted"));
}

#[test]
fn help_version_completions_and_manual_need_no_daemon() {
    let sandbox = Sandbox::new();
    assert!(sandbox.client(["--version"]).quiet().starts_with("wtd-client 0."));
    assert!(Ran::of(sandbox.command("wtd").arg("--version")).quiet().starts_with("wtd 0."));
    let help = sandbox.client(["--help"]).quiet();
    for verb in
        ["env", "get", "exec", "list", "add", "forget", "reassign", "check", "doctor", "events", "status"]
    {
        assert!(help.contains(verb), "{verb}: {help}");
        assert!(sandbox.client([verb, "--help"]).quiet().contains(verb));
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(sandbox.client(["completions", shell]).quiet().contains("wtd-client"));
    }
    assert!(sandbox.client(["man"]).quiet().contains(".TH"));
}

#[test]
fn exec_becomes_the_command() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    sandbox.offset(&repo.path);
    let one = repo.add("one");
    let exec = |command: &[&str]| sandbox.client_in(&one, [&["exec", "--"], command].concat());
    assert_eq!(
        exec(&["sh", "-c", "echo $PORT_OFFSET $DB_HOST_PORT \"$1\"", "sh", "a b"]).quiet(),
        "10000 15432 a b\n"
    );
    assert_eq!(exec(&["sh", "-c", "exit 42"]).code, Some(42));
    assert_eq!(exec(&["sh", "-c", "kill -TERM $$"]).code, None, "signals are the command's own");
    exec(&["/nonexistent/program"]).fails(127);
    exec(&["/etc/passwd"]).fails(126);
    let path = one.to_str().unwrap();
    assert_eq!(
        sandbox.client(["exec", "--path", path, "--", "printenv", "WTD_WORKTREE"]).quiet(),
        format!("{path}\n")
    );
}

#[test]
fn check_tells_whose_variables_the_shell_has() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    sandbox.offset(&repo.path);
    let one = repo.add("one");
    let check = |directory: &Path, variables_of: Option<&Path>| {
        let mut command = sandbox.client_command(["check"]);
        command.current_dir(directory);
        if let Some(path) = variables_of {
            let text = sandbox.client_in(path, ["env", "--format", "json"]).ok();
            let variables: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
            command.envs(variables);
        }
        Ran::of(&mut command)
    };
    assert_eq!(check(&one, Some(&one)).quiet(), "");
    check(&one, None).fails(1);
    let line = check(&one, Some(&repo.path)).fails(1);
    assert!(line.contains(repo.path.to_str().unwrap()), "{line}");
    check(sandbox.root(), Some(&one)).fails(1);
    let text = sandbox.client_in(&one, ["env", "--format", "json"]).ok();
    let variables: std::collections::BTreeMap<String, String> = serde_json::from_str(&text).unwrap();
    fs::write(one.join("wtd.toml"), "[ports]\nUI_PORT = 3000\n").unwrap();
    until(
        "they are out of date",
        || Ran::of(sandbox.client_command(["check"]).current_dir(&one).envs(&variables)),
        |ran| ran.code == Some(1) && ran.stderr.contains("UI_PORT"),
    );
}

#[test]
fn list_is_a_table_for_people_without_a_terminals_colours() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    assert!(sandbox.client(["list"]).quiet().contains("wtd-client add"));
    assert_eq!(sandbox.client(["list", "--json"]).quiet().trim(), "[]");
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let one = repo.add("feature/x");
    daemon.await_agreement(&repo);
    let table = sandbox.client(["list"]).quiet();
    for part in
        ["REPOSITORY", "OFFSET", one.to_str().unwrap(), "feature/x", "15432", "db_data_10000", "active"]
    {
        assert!(table.contains(part), "{part}: {table}");
    }
    assert!(!table.contains('\u{1b}'), "{table:?}");
    // A reader that goes away is no failure.
    let mut command = sandbox.command("sh");
    let ran = Ran::of(command.args(["-c", "{ wtd-client list; echo $? >&2; } | true"]));
    assert_eq!(ran.stderr, "0\n");
}

#[test]
fn status_shows_the_daemon_and_starts_none() {
    let sandbox = Sandbox::new();
    Ran::of(&mut sandbox.client_command(["status"])).fails(4);
    assert!(!sandbox.socket().exists());
    let daemon = sandbox.daemon();
    let text = sandbox.client(["status"]).quiet();
    assert!(text.contains(&format!("pid {}", daemon.pid())) && text.contains("registry.db"), "{text}");
    let health: Value = serde_json::from_str(&sandbox.client(["status", "--json"]).quiet()).unwrap();
    assert_eq!((health["status"].as_str(), health["pid"].as_u64()), (Some("ok"), Some(daemon.pid().into())));
}

#[test]
fn events_follow_changes_one_line_each_and_across_a_restart() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let mut command = sandbox.client_command(["events", "--json", "--timeout", "20s"]);
    let mut client = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let mut lines = BufReader::new(client.stdout.take().unwrap()).lines();
    // Changes are made until the first one is heard of: only then is it known that the client listens.
    let heard = std::sync::atomic::AtomicBool::new(false);
    let relaxed = std::sync::atomic::Ordering::Relaxed;
    let first: Value = std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0.. {
                if heard.load(relaxed) {
                    break;
                }
                let path = repo.add(&format!("r{round}"));
                daemon.await_state(&path, "active");
            }
        });
        let line = lines.next().unwrap().unwrap();
        heard.store(true, relaxed);
        serde_json::from_str(&line).unwrap()
    });
    assert_eq!(first["kind"], "allocated");
    // The client starts another one, and goes on where it was.
    daemon.terminate();
    let path = repo.add("after");
    let sequence = first["sequence"].as_i64().unwrap();
    for (expected, line) in (sequence + 1..).zip(lines) {
        let change: Value = serde_json::from_str(&line.unwrap()).unwrap();
        assert_eq!(change["sequence"], expected, "none is lost, none is told twice");
        if change["allocation"]["path"] == json!(path) {
            break;
        }
    }
    client.kill().unwrap();
    client.wait().unwrap();
}

#[test]
fn a_broken_wtd_toml_is_told_with_file_line_and_reason_and_the_rest_stands() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    for (number, (content, line, reason)) in [
        ("[ports]\nUI_PORT = 3000\nthis is not toml\n", 3, "nothing in the file is used"),
        ("[ports]\nUI_PORT = 70000\n", 2, "70000"),
        ("[ports]\nUI_PORT = 3000\nLD_PRELOAD = 4000\n", 3, "LD_PRELOAD"),
        ("[ports]\n\"A;touch PWNED\" = 4000\n", 2, "not a variable name"),
        ("project = 7\n", 1, "project"),
        ("[database]\nvolume = \"../containers/x\"\n", 2, "volume"),
        ("[nonsense]\nx = 1\n", 1, "nonsense"),
        ("[ports]\nUI_PORT = 5432\n", 2, "DB_HOST_PORT"),
    ]
    .into_iter()
    .enumerate()
    {
        let repo = sandbox.repo(&format!("app{number}"));
        let file = repo.path.join("wtd.toml");
        fs::write(&file, content).unwrap();
        let allocation = daemon.put(&repo.path);
        let place = format!("{}:{line}: ", file.display());
        let is_told = |text: &str| text.contains(&place) && text.contains(reason);
        assert!(is_told(&allocation["warnings"].to_string()), "{content:?}: {}", allocation["warnings"]);
        let offset = allocation["offset"].as_u64().unwrap();
        assert_eq!(allocation["ports"]["DB_HOST_PORT"], 5432 + offset, "the built-in values stand");
        assert_eq!(sandbox.get(&repo.path, "DB_HOST_PORT"), (5432 + offset).to_string());
        let warnings = sandbox.list().at(&repo.path).warnings.join("\n");
        assert!(is_told(&warnings), "{warnings}");
        assert!(sandbox.client(["list"]).ok().contains(&place));
        let doctor = sandbox.client(["doctor", "--json"]).text();
        assert!(doctor.contains(&place), "{doctor}");
    }
    let names = fs::read_dir(sandbox.root()).unwrap().map(|entry| entry.unwrap().file_name());
    assert!(!names.into_iter().any(|name| name == "PWNED"));
}

#[test]
fn a_project_is_called_as_configured_for_as_long_as_the_setting_stands() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    daemon.put(&repo.path);
    let file = repo.path.join("wtd.toml");
    let names = || [&repo.path, &one].map(|path| sandbox.get(path, "POSTGRES_DB"));
    fs::write(&file, "project = \"shop\"\n").unwrap();
    assert_eq!(names(), ["shop-0", "shop-10000"]);
    // A mistake that is about to be mended gives nothing another name.
    fs::write(&file, "project = \"shop\"\n[ports\n").unwrap();
    assert_eq!(names(), ["shop-0", "shop-10000"]);
    fs::write(&file, "[ports]\nUI_PORT = 3000\n").unwrap();
    assert_eq!(names(), ["app-0", "app-10000"]);
    assert_eq!(sandbox.get(&one, "COMPOSE_PROJECT_NAME"), "app-10000");
    // Nor does another directory.
    let moved = sandbox.path("renamed");
    fs::rename(&repo.path, &moved).unwrap();
    assert_eq!(sandbox.get(&moved, "POSTGRES_DB"), "app-0");
}

#[test]
fn whoever_uses_the_variables_hears_of_a_broken_wtd_toml_on_one_line_and_gets_them_all_the_same() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let commands = |compose: bool| {
        let shell = ["env", "--shell", "sh"].as_slice();
        let all = [shell, &["env", "--format", "json"], &["get", "PORT_OFFSET"], &["add", "."]];
        let write = ["env", "--write", ".env", "--exclude"].as_slice();
        let all = all.into_iter().chain([write, &["exec", "--", "printenv", "PORT_OFFSET"]]);
        all.chain(compose.then_some(["compose"].as_slice()))
    };
    let compose = require::compose();
    fs::write(repo.path.join("compose.yaml"), "services: {a: {image: x}}\n").unwrap();
    fs::write(repo.path.join("wtd.toml"), "[ports]\nUI_PORT = 3000\n").unwrap();
    for command in commands(compose) {
        sandbox.client_in(&repo.path, command).quiet();
    }
    let file = repo.path.join("wtd.toml").display().to_string();
    for (content, expected) in [
        (
            "[ports]\nUI_PORT = 70000\n",
            ":2: ports.UI_PORT: 70000 is not a port: ports go from 1 to 65535; the built-in values stand until it is mended",
        ),
        (
            "project = 7\nshared = 8\n",
            ":1: project: wanted a string, found an integer, and 1 more; the built-in values stand until they are mended",
        ),
    ] {
        fs::write(repo.path.join("wtd.toml"), content).unwrap();
        for command in commands(compose) {
            let ran = sandbox.client_in(&repo.path, command);
            assert_eq!(ran.stderr, format!("wtd-client: {}: {file}{expected}\n", command[0]));
            ran.ok();
        }
    }
    // The hook runs at prompts.
    sandbox.client_in(&repo.path, ["hook", "bash", "--follow", "1"]).quiet();
    // A name that is only written differently is no mistake.
    fs::write(repo.path.join("wtd.toml"), "project = \"My App\"\n").unwrap();
    sandbox.client_in(&repo.path, ["env", "--shell", "sh"]).quiet();
}

#[test]
fn what_a_project_declares_is_what_its_worktrees_have() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    let toml = "project = \"shop\"\n[ports]\nDB_HOST_PORT = 5433\nAPI_PORT = 8003\n[database]\nname = \"store\"\nvolume = \"pg\"\n";
    fs::write(repo.path.join("wtd.toml"), toml).unwrap();
    daemon.put(&repo.path);
    // The file is not committed: a linked worktree without one uses the main worktree's.
    let one = repo.add("one");
    daemon.await_agreement(&repo);
    for (key, value) in [
        ("DB_HOST_PORT", "15433"),
        ("API_PORT", "18003"),
        ("DB_VOLUME", "pg_10000"),
        ("POSTGRES_DB", "store-10000"),
        ("COMPOSE_PROJECT_NAME", "shop-10000"),
    ] {
        assert_eq!(sandbox.get(&one, key), value, "{key}");
    }
    let long = "x".repeat(80);
    fs::write(one.join("wtd.toml"), format!("project = \"{long}\"\n")).unwrap();
    let database =
        until("the name is cut", || sandbox.get(&one, "POSTGRES_DB"), |name| name.starts_with("xxxx"));
    assert!(database.len() <= 63, "{database}");
}
