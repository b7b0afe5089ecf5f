//! Trust: templates and files of a `wtd.toml` do nothing before a person has seen its content, and go with it.

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::harness::{Ran, Repo, Sandbox, require, until};

const TOML: &str = "[ports]\nUI_PORT = 3000\n[env]\nDATABASE_URL = \"postgresql://localhost:{DB_HOST_PORT}/{POSTGRES_DB}\"\n\
    BRACES = \"{{{UI_PORT}}}\"\n[files]\nenv = [\"kept.env\"]\n";

const NOTICE: &str =
    "wtd.toml has templates or files that are not applied: `wtd-client trust` shows them, and asks";

fn configure(repo: &Path, toml: &str) {
    fs::write(repo.join("wtd.toml"), toml).unwrap();
}

/// A repository that has committed this configuration, known to the daemon.
fn configured<'s>(sandbox: &'s Sandbox, name: &str, toml: &str) -> Repo<'s> {
    let repo = sandbox.repo(name);
    configure(&repo.path, toml);
    repo.git(["add", "wtd.toml"]);
    repo.git(["commit", "-q", "-m", "configure"]);
    sandbox.offset(&repo.path);
    repo
}

/// A variable of the worktree at `path`, as `env` has it.
fn variable(sandbox: &Sandbox, path: &Path, name: &str) -> Option<String> {
    let json = sandbox.client_in(path, ["env", "--format", "json"]).quiet();
    let variables: Value = serde_json::from_str(&json).unwrap();
    variables[name].as_str().map(str::to_owned)
}

fn checks(sandbox: &Sandbox, name: &str) -> Vec<Value> {
    let checks = sandbox.client(["doctor", "--json"]).text();
    let checks: Vec<Value> = serde_json::from_str(&checks).unwrap();
    checks.into_iter().filter(|check| check["check"] == name).collect()
}

#[test]
fn the_very_next_answer_goes_by_the_file_that_is_there() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    let one = repo.add("one");
    for (path, round) in [&repo.path, &one].into_iter().zip([0, 1]).cycle().take(12) {
        configure(path, TOML);
        assert!(variable(&sandbox, path, "DATABASE_URL").is_some(), "{round}: this content is trusted");
        configure(path, &TOML.replace("3000", "3001"));
        assert_eq!(variable(&sandbox, path, "DATABASE_URL"), None, "{round}: and this one is not");
        let port = 3001 + sandbox.offset(path);
        assert_eq!(sandbox.get(path, "UI_PORT"), port.to_string(), "{round}");
    }
}

#[test]
fn untrusted_templates_and_files_do_nothing_and_are_told_of() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    assert_eq!(sandbox.get(&repo.path, "UI_PORT"), "3000", "numbers and names need no trust");
    assert_eq!(variable(&sandbox, &repo.path, "DATABASE_URL"), None);
    assert!(!repo.path.join("kept.env").exists());
    sandbox.client_in(&repo.path, ["get", "DATABASE_URL"]).fails(1);
    let rows = sandbox.list();
    assert!(rows.at(&repo.path).untrusted);
    assert_eq!(rows.at(&repo.path).warnings, [NOTICE]);
    assert!(sandbox.client(["list"]).ok().contains("wtd-client trust"));
    let [check] = &checks(&sandbox, "trust")[..] else { panic!("one finding") };
    assert_eq!(check["status"], "warn");
    let remedy = format!("`wtd-client trust --path {}` shows them, and asks", repo.path.display());
    assert_eq!(check["remedy"], remedy);
    assert!(checks(&sandbox, "wtd.toml").is_empty(), "the file itself is right");
    // Whoever evaluates the output at every prompt is not told each time; who writes a file is.
    sandbox.client_in(&repo.path, ["env"]).quiet();
    let ran = sandbox.client_in(&repo.path, ["env", "--write", "own.env"]);
    assert!(ran.stderr.contains("not applied; `wtd-client trust`"), "{ran:#?}");
    // What declares nothing of the kind takes no trust.
    let plain = configured(&sandbox, "plain", "[ports]\nUI_PORT = 4000\n");
    assert!(!sandbox.list().at(&plain.path).untrusted);
    let text = sandbox.client_in(&plain.path, ["trust"]).quiet();
    assert!(text.contains("nothing in it takes trust"), "{text}");
    let none = sandbox.repo("none");
    assert!(sandbox.client_in(&none.path, ["trust"]).quiet().contains("no wtd.toml"));
}

#[test]
fn what_is_trusted_is_applied_everywhere() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    let shown = sandbox.client_in(&repo.path, ["trust", "--show"]).quiet();
    for words in [
        "app/wtd.toml\n",
        "sets DATABASE_URL to postgresql://localhost:{DB_HOST_PORT}/{POSTGRES_DB}\n",
        "sets BRACES to {{{UI_PORT}}}\n",
        "keeps the file kept.env\n",
        "not trusted in",
    ] {
        assert!(shown.contains(words), "{words:?}: {shown}");
    }
    assert!(sandbox.list().at(&repo.path).untrusted, "to look at it is not to trust it");
    let ran = sandbox.client_in(&repo.path, ["trust", "-y"]);
    assert!(ran.ok().contains("trusted in all worktrees of"), "{ran:#?}");
    assert!(ran.stderr.contains("git does not ignore kept.env"), "{ran:#?}");

    let url = "postgresql://localhost:5432/app-0";
    assert_eq!(sandbox.get(&repo.path, "DATABASE_URL"), url);
    assert_eq!(sandbox.get(&repo.path, "BRACES"), "{3000}");
    let ran = sandbox.client_in(&repo.path, ["exec", "--", "printenv", "DATABASE_URL"]);
    assert_eq!(ran.quiet(), format!("{url}\n"));
    let shell = sandbox.client_in(&repo.path, ["env", "--shell", "sh", "DATABASE_URL"]).quiet();
    assert_eq!(shell, format!("export DATABASE_URL={url}\n"));
    let file = fs::read_to_string(repo.path.join(".git/wtd.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&file).unwrap()["variables"]["DATABASE_URL"], url);
    assert!(
        fs::read_to_string(repo.path.join("kept.env")).unwrap().contains(&format!("\nDATABASE_URL={url}\n"))
    );
    let rows = sandbox.list();
    assert!(!rows.at(&repo.path).untrusted);
    assert_eq!(rows.at(&repo.path).warnings, ["kept.env lacks BRACES"]);
    assert!(checks(&sandbox, "trust").is_empty());
    let again = sandbox.client_in(&repo.path, ["trust"]).quiet();
    assert!(again.contains("trusted in all worktrees of"), "nothing is asked a second time: {again}");

    // It outlives the daemon, and without one the allocation file has it.
    daemon.terminate();
    assert_eq!(sandbox.get(&repo.path, "DATABASE_URL"), url);
    let daemon = sandbox.daemon();
    let changes = daemon.get("/v1/worktrees").ok();
    assert_eq!(sandbox.get(&repo.path, "DATABASE_URL"), url);
    assert_eq!(daemon.get("/v1/worktrees").ok(), changes, "a restart changes nothing");
}

#[test]
fn the_same_content_needs_no_second_word_and_another_content_does() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    let before = repo.add("before");
    sandbox.client_in(&before, ["trust", "-y"]).ok();
    let after = repo.add("after");
    for (path, offset) in [(&repo.path, 0), (&before, 10_000), (&after, 20_000)] {
        let url = format!("postgresql://localhost:{}/app-{offset}", 5432 + offset);
        assert_eq!(sandbox.get(path, "DATABASE_URL"), url);
        until("the file is there", || path.join("kept.env").exists(), |there| *there);
    }
    // A worktree without a file of its own has the main worktree's, and its trust.
    let bare = repo.add("without");
    fs::remove_file(bare.join("wtd.toml")).unwrap();
    sandbox.client(["add", bare.to_str().unwrap()]).ok();
    assert!(variable(&sandbox, &bare, "DATABASE_URL").is_some());

    // One byte more, in one worktree.
    let kept = fs::read(after.join("kept.env")).unwrap();
    configure(&after, &format!("{TOML}\n"));
    daemon.await_list("it is untrusted", |rows| rows.at(&after).untrusted);
    assert_eq!(variable(&sandbox, &after, "DATABASE_URL"), None, "templates vanish");
    assert_eq!(fs::read(after.join("kept.env")).unwrap(), kept, "files are left alone");
    fs::remove_file(after.join("kept.env")).unwrap();
    sandbox.client(["add", after.to_str().unwrap()]).ok();
    assert!(!after.join("kept.env").exists(), "and not kept any more");
    assert!(variable(&sandbox, &before, "DATABASE_URL").is_some(), "the others stay as they are");
    // Back again.
    configure(&after, TOML);
    daemon.await_list("it is trusted", |rows| !rows.at(&after).untrusted);
    assert!(variable(&sandbox, &after, "DATABASE_URL").is_some());
    until("the file is back", || after.join("kept.env").exists(), |there| *there);
    // Both can be trusted, as on two branches.
    configure(&after, &format!("{TOML}\n"));
    daemon.await_list("it is untrusted", |rows| rows.at(&after).untrusted);
    sandbox.client_in(&after, ["trust", "-y"]).ok();
    assert!(variable(&sandbox, &after, "DATABASE_URL").is_some());
    assert!(variable(&sandbox, &before, "DATABASE_URL").is_some());
}

#[test]
fn only_the_very_content_that_was_shown_is_trusted() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    let path = repo.path.to_str().unwrap();
    let shown = daemon.get(&format!("/v1/trust?path={path}")).ok();
    assert_eq!(shown["trusted"], false);
    assert_eq!(shown["file"], format!("{path}/wtd.toml"));
    assert_eq!(shown["files"], json!(["kept.env"]));
    assert_eq!(shown["env"]["BRACES"], "{{{UI_PORT}}}");
    let sha256 = Ran::of(Command::new("sha256sum").arg(repo.path.join("wtd.toml"))).ok();
    assert_eq!(shown["sha256"], sha256[..64]);

    let put =
        |sha256: &Value| daemon.http("PUT", "/v1/trust", Some(&json!({ "path": path, "sha256": sha256 })));
    configure(&repo.path, &TOML.replace("localhost", "evil.example"));
    let problem = put(&shown["sha256"]).is_problem(409, "content-changed");
    assert!(problem["detail"].as_str().unwrap().contains("changed meanwhile"), "{problem:#}");
    configure(&repo.path, "[ports]\nUI_PORT = 1\n");
    put(&shown["sha256"]).is_problem(409, "content-changed");
    fs::remove_file(repo.path.join("wtd.toml")).unwrap();
    put(&shown["sha256"]).is_problem(409, "content-changed");
    for bad in [json!(""), json!("abc"), json!("g".repeat(64)), json!(1)] {
        put(&bad).is_problem(400, "bad-request");
    }
    configure(&repo.path, TOML);
    assert_eq!(variable(&sandbox, &repo.path, "BRACES"), None, "nothing was trusted by any of this");
    assert_eq!(put(&shown["sha256"]).ok()["trusted"], true);
    assert_eq!(put(&shown["sha256"]).ok()["trusted"], true, "it is idempotent");
    assert_eq!(sandbox.get(&repo.path, "BRACES"), "{3000}");

    daemon.get("/v1/trust").is_problem(400, "bad-request");
    daemon.get("/v1/trust?path=relative").is_problem(400, "bad-request");
    daemon.get("/v1/trust?path=/nonexistent").is_problem(404, "path-not-found");
    daemon.get(&format!("/v1/trust?path={}", sandbox.root().display())).is_problem(404, "not-in-a-worktree");
    let bytes = sandbox.path("exact");
    let exact =
        wtd_protocol::PathText::of(Path::new(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(
            &[bytes.as_os_str().as_encoded_bytes(), b"\xff+ &"].concat(),
        )));
    let odd = wtd_protocol::PathText::path("", exact.base64.as_deref()).unwrap();
    Repo::init(&sandbox, &odd);
    configure(&odd, TOML);
    sandbox.client_in(&odd, ["trust", "-y"]).ok();
    assert_eq!(sandbox.get(&odd, "BRACES"), format!("{{{}}}", 3000 + sandbox.offset(&odd)));
}

#[test]
fn trust_is_one_repositorys_and_can_be_taken_back() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    let one = repo.add("one");
    sandbox.client_in(&repo.path, ["trust", "-y"]).ok();
    until("the file is there", || one.join("kept.env").exists(), |there| *there);
    // A clone and a copy are other repositories.
    Ran::of(sandbox.command("git").args(["clone", "-q", "app", "clone"])).ok();
    Ran::of(Command::new("cp").arg("-a").arg(&repo.path).arg(sandbox.path("copy"))).ok();
    for other in ["clone", "copy"] {
        let other = sandbox.path(other);
        sandbox.offset(&other);
        assert!(sandbox.list().at(&other).untrusted);
        assert_eq!(variable(&sandbox, &other, "BRACES"), None);
    }
    // One that moves is the same.
    let moved = sandbox.path("moved");
    fs::rename(&repo.path, &moved).unwrap();
    Repo::at(&sandbox, &moved).git(["worktree", "repair", one.to_str().unwrap()]);
    assert_eq!(sandbox.get(&moved, "BRACES"), "{3000}");
    assert_eq!(sandbox.get(&one, "BRACES"), "{13000}");

    let kept = fs::read(one.join("kept.env")).unwrap();
    let text = sandbox.client_in(&one, ["trust", "--revoke"]).quiet();
    assert!(text.contains("is trusted any more"), "{text}");
    for path in [&moved, &one] {
        assert_eq!(variable(&sandbox, path, "BRACES"), None);
        assert!(sandbox.list().at(path).untrusted);
    }
    assert_eq!(fs::read(one.join("kept.env")).unwrap(), kept);
    assert!(sandbox.client_in(&one, ["trust", "--revoke"]).quiet().contains("nothing of"));
    daemon.terminate();
    let daemon = sandbox.daemon();
    assert!(sandbox.list().at(&one).untrusted, "and that outlives the daemon");

    // Who gives a repository up gives up what was trusted in it.
    sandbox.client_in(&one, ["trust", "-y"]).ok();
    sandbox.client(["forget", "-y", moved.to_str().unwrap()]).ok();
    sandbox.offset(&moved);
    assert!(sandbox.list().at(&moved).untrusted);
    sandbox.client_in(&moved, ["trust", "-y"]).ok();
    assert!(!sandbox.get(&moved, "BRACES").is_empty());

    // A registry that is lost knows of no trust, and no file says otherwise.
    daemon.terminate();
    fs::remove_dir_all(sandbox.path("state/wtd")).unwrap();
    let _daemon = sandbox.daemon();
    assert_eq!(variable(&sandbox, &moved, "BRACES"), None);
    assert!(sandbox.list().at(&moved).untrusted);
}

#[test]
fn trust_is_asked_for_on_a_terminal_and_nowhere_else() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let repo = configured(&sandbox, "app", TOML);
    let line = sandbox.client_in(&repo.path, ["trust"]).fails(1);
    assert!(line.contains("no terminal") && line.contains("-y"), "{line}");
    assert!(sandbox.list().at(&repo.path).untrusted);
    for wrong in [&["--show", "-y"][..], &["--revoke", "--show"], &["--revoke", "-y"], &["x"]] {
        assert_eq!(sandbox.client_in(&repo.path, [&["trust"], wrong].concat()).code, Some(2), "{wrong:?}");
    }
    sandbox.client_in(&sandbox.path("home"), ["trust", "-y"]).fails(3);
    if !require::program("script") {
        return;
    }
    // A terminal of its own (script(1)), on which a person types.
    let typed = |text: &str| {
        let mut command = sandbox.command("script");
        command.args(["-qec", "wtd-client --no-start trust", "/dev/null"]).current_dir(&repo.path);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    for no in ["n\n", "\n", "yessir\n"] {
        let (done, text) = typed(no);
        assert!(!done && text.contains("sets DATABASE_URL") && text.contains("[y/N]"), "{text}");
        assert!(sandbox.list().at(&repo.path).untrusted, "{no:?}");
    }
    // A terminal shows no escape of a stranger's.
    configure(&repo.path, &TOML.replace("{{{UI_PORT}}}", "\u{202e}\\u2066x"));
    let (done, text) = typed("y\n");
    assert!(done && text.contains("\\u{202e}\\u{2066}x"), "{text}");
    assert!(!sandbox.list().at(&repo.path).untrusted);
    // And a person who looks at the variables is told of what is missing.
    configure(&repo.path, &format!("{TOML}#"));
    until("it is untrusted", || sandbox.list().at(&repo.path).untrusted, |untrusted| *untrusted);
    let mut command = sandbox.command("script");
    command.args(["-qec", "wtd-client --no-start env --shell sh", "/dev/null"]).current_dir(&repo.path);
    assert!(Ran::of(&mut command).ok().contains("wtd-client trust"));
}

#[test]
fn a_bare_repositorys_configuration_is_trusted_for_its_worktrees() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let source = sandbox.repo("source");
    Ran::of(sandbox.command("git").args(["clone", "-q", "--bare", "source", "bare.git"])).ok();
    let bare = Repo::at(&sandbox, &sandbox.path("bare.git"));
    fs::write(bare.path.join("wtd.toml"), TOML).unwrap();
    let tree = sandbox.path("tree");
    bare.git(["worktree", "add", "-q", tree.to_str().unwrap(), "main"]);
    sandbox.offset(&tree);
    assert!(sandbox.list().at(&tree).untrusted);
    let shown = sandbox.client_in(&bare.path, ["trust", "--show"]).quiet();
    assert!(shown.contains("bare.git/wtd.toml") && shown.contains("not trusted"), "{shown}");
    sandbox.client_in(&tree, ["trust", "-y"]).ok();
    assert!(variable(&sandbox, &tree, "DATABASE_URL").is_some());
    until("the file is there", || tree.join("kept.env").exists(), |there| *there);
    assert!(!bare.path.join("kept.env").exists());
    assert!(sandbox.client_in(&bare.path, ["trust"]).quiet().contains("trusted in all worktrees"));
    drop(source);
}

#[test]
fn a_template_that_cannot_be_made_is_left_out_and_told() {
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let toml = "[env]\nSTACK = \"{COMPOSE_PROJECT_NAME}-x\"\nPLACE = \"{WTD_WORKTREE}/x\"\nFINE = \"{PORT_OFFSET}\"\n";
    let repo = configured(&sandbox, "app", toml);
    let one = repo.add("one");
    sandbox.client_in(&one, ["trust", "-y"]).ok();
    assert_eq!(sandbox.get(&one, "STACK"), "app-10000-x");
    assert_eq!(sandbox.get(&one, "PLACE"), format!("{}/x", one.display()));
    assert_eq!(variable(&sandbox, &repo.path, "STACK"), None);
    assert_eq!(sandbox.get(&repo.path, "FINE"), "0");
    let warning =
        "env.STACK is left out: this worktree has no COMPOSE_PROJECT_NAME, or none that text can hold";
    assert_eq!(sandbox.list().at(&repo.path).warnings, [warning]);
    // The path is the worktree's, wherever it goes.
    let two = sandbox.path("two");
    repo.mv(&one, &two);
    until(
        "it moved",
        || variable(&sandbox, &two, "PLACE"),
        |place| *place == Some(format!("{}/x", two.display())),
    );
    let odd = sandbox.path("odd\nname");
    repo.add_at(&odd, "odd");
    assert_eq!(variable(&sandbox, &odd, "PLACE"), None);
    assert_eq!(
        sandbox.list().at(&odd).warnings,
        ["env.PLACE is left out: its value would have a control character"]
    );
}
