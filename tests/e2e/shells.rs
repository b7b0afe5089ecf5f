//! `eval "$(wtd-client env)"` in real shells: whatever stands in a path, a branch or a directory's name, exactly the
//! contract's variables are set, and nothing runs.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use crate::harness::{Ran, Repo, Sandbox, Variables, parse_environment, require};

/// Directory names that a careless shell would run, split, expand or lose.
pub(crate) const HOSTILE: [&[u8]; 22] = [
    b"plain",
    b"a b  c",
    b"it's",
    b"say \"hi\"",
    b"$(touch PWNED)",
    b"`touch PWNED`",
    b"'$(touch PWNED)'",
    b"'; touch PWNED; '",
    b"\"; touch PWNED; \"",
    b"\\'; touch PWNED; \\'",
    b"new\nline\ntouch PWNED\n",
    b"tab\tand\rreturn",
    b"$HOME ${PATH} $0",
    b"(touch PWNED)",
    b"*?[a-z]{a,b}~",
    b"!! !touch",
    b"-n --help",
    b"# = & | < > %s %n",
    "ünï-日本-\u{202e}".as_bytes(),
    b"bytes\xff\xfe\x80",
    b"\x1b[31m\x07\x7f",
    b"back\\slash\\n\\x41\\",
];

/// Branch names that git allows and a careless shell would run.
const BRANCHES: [&[u8]; 4] =
    [b"x'\"$(touch${IFS}PWNED)`touch${IFS}PWNED`;&|", b"a!b#c%d{e}", "ünï/日本".as_bytes(), b"bytes\xff"];

/// Files named PWNED anywhere below a directory.
pub(crate) fn pwned(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().is_some_and(|name| name == "PWNED") {
            found.push(path);
        } else if path.is_dir() && !path.is_symlink() {
            found.extend(pwned(&path));
        }
    }
    found
}

/// Repositories and worktrees with hostile names, each path with its offset and project as the daemon has them.
pub(crate) fn hostile_worktrees(sandbox: &Sandbox) -> Vec<(Repo<'_>, PathBuf)> {
    let mut worktrees = Vec::new();
    let repo = sandbox.repo("app");
    sandbox.offset(&repo.path);
    for (number, name) in HOSTILE.iter().enumerate() {
        let path = sandbox.path(format!("d{number}")).join(OsStr::from_bytes(name));
        fs::create_dir(path.parent().unwrap()).unwrap();
        let branch: OsString = match BRANCHES.get(number) {
            Some(branch) => OsString::from_vec(branch.to_vec()),
            None => format!("b{number}").into(),
        };
        let arguments = ["worktree", "add", "-q", "-b"].map(OsString::from);
        repo.git(arguments.into_iter().chain([branch, "--".into(), path.clone().into()]));
        worktrees.push((repo.clone(), path));
    }
    for name in HOSTILE.iter().filter(|name| name.len() > 10) {
        let path = sandbox.path("mains").join(OsStr::from_bytes(name));
        worktrees.push((Repo::init(sandbox, &path), path));
    }
    worktrees
}

/// Evaluates `script` in a shell in every hostile worktree, and compares its environment before and after.
fn sets_exactly_the_variables(shell: &str, arguments: &[&str], script: &str, takes_bytes: bool) {
    if !require::program(shell) {
        return;
    }
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (before, after) = (sandbox.path("before"), sandbox.path("after"));
    let script = script.replace("BEFORE", before.to_str().unwrap()).replace("AFTER", after.to_str().unwrap());
    for (repo, path) in hostile_worktrees(&sandbox) {
        drop(fs::remove_file(&after));
        let mut command = sandbox.command(shell);
        let ran = Ran::of(command.args(arguments).arg(&script).current_dir(&path));
        if !takes_bytes && path.to_str().is_none() {
            assert!(ran.stderr.contains("not UTF-8"), "{ran:#?}");
            continue;
        }
        assert_eq!((ran.stderr.as_str(), ran.text().as_str()), ("", ""), "{}: {ran:#?}", path.display());
        let (before, after) =
            (parse_environment(&fs::read(&before).unwrap()), parse_environment(&fs::read(&after).unwrap()));
        let mut added = after.clone();
        added.retain(|name, value| before.get(name) != Some(value));
        assert!(before.keys().all(|name| after.contains_key(name)), "none is unset");

        let row = sandbox.list().at(&path).clone();
        let is_main = repo.path == path;
        let mut expected: Variables = [
            ("PORT_OFFSET", row.offset.to_string()),
            ("DB_HOST_PORT", (5432 + row.offset).to_string()),
            ("DB_VOLUME", format!("db_data_{}", row.offset)),
            ("POSTGRES_DB", format!("{}-{}", row.project, row.offset)),
        ]
        .map(|(name, value)| (name.into(), value.into()))
        .into();
        if !is_main {
            expected.insert("COMPOSE_PROJECT_NAME".into(), format!("{}-{}", row.project, row.offset).into());
        }
        expected.insert("WTD_WORKTREE".into(), path.clone().into());
        assert_eq!(added, expected, "{} in {shell}", path.display());
        let plain =
            |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
        assert!(row.project.bytes().all(plain), "{}", row.project);
    }
    assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new());
    // A table and JSON of such names are one line each, and JSON.
    let table = sandbox.client(["list"]).ok();
    assert!(
        !table.contains('\u{1b}') && !table.contains('\u{7}') && !table.contains('\u{202e}'),
        "{table:?}"
    );
    let rows = sandbox.list();
    for listed in sandbox_worktrees(&sandbox) {
        let row = rows.at(&listed.path);
        let branch = listed.branch.map(|branch| branch.to_string_lossy().into_owned());
        assert_eq!(row.branch, branch);
    }
}

fn sandbox_worktrees(sandbox: &Sandbox) -> Vec<crate::harness::Listed> {
    Repo::at(sandbox, &sandbox.path("app")).worktrees()
}

#[test]
fn what_a_person_calls_as_wtd_does_stays_and_what_is_not_set_is_nobodys() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (app, shop) = (sandbox.repo("app"), sandbox.repo("shop"));
    fs::write(shop.path.join("wtd.toml"), "[database]\nmode = \"shared\"\n").unwrap();
    daemon.put(&app.path);
    daemon.put(&shop.path);
    for (path, own, mode) in [(&app.path, "DB_MODE=dev", "dev"), (&shop.path, "MINE=1", "shared")] {
        let script = format!("export {own}; eval \"$(wtd-client env)\"; wtd-client check && echo $DB_MODE");
        let mut bash = sandbox.command("bash");
        bash.args(["--norc", "-c", &script]).env("WTD_NO_START", "1").current_dir(path);
        assert_eq!(Ran::of(&mut bash).quiet().trim(), mode);
    }
}

#[test]
fn eval_in_one_worktree_after_another_leaves_nothing_of_the_other() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let (app, shop) = (sandbox.repo("app"), sandbox.repo("shop"));
    fs::write(app.path.join("wtd.toml"), "[ports]\nUI_PORT = 3000\n").unwrap();
    daemon.put(&app.path);
    daemon.put(&shop.path);
    let one = app.add("one");
    daemon.await_agreement(&app);
    let mine = "export MINE=1";
    for (shell, export, eval) in [
        ("bash", mine, "eval \"$(wtd-client env)\""),
        ("zsh", mine, "eval \"$(wtd-client env)\""),
        ("dash", mine, "eval \"$(wtd-client env)\""),
        ("fish", "set -gx MINE 1", "wtd-client env | source"),
    ] {
        if !require::program(shell) {
            continue;
        }
        let names = "sh -c 'echo $PORT_OFFSET,$COMPOSE_PROJECT_NAME,$UI_PORT,$MINE'";
        let visit = |path: &Path| {
            format!("cd '{}'; {eval}; {names}; wtd-client check || echo wrong\n", path.display())
        };
        let script =
            [format!("{export}\n"), visit(&one), visit(&app.path), visit(&one), visit(&shop.path)].concat();
        let ran = Ran::of(sandbox.command(shell).args(["-c", &script]).env("WTD_NO_START", "1"));
        assert_eq!(
            ran.quiet(),
            "20000,app-20000,23000,1\n0,,3000,1\n20000,app-20000,23000,1\n10000,,,1\n",
            "{shell}"
        );
        // Where nobody evaluates anything, `check` says so and `exec` leaves it out.
        let there = [("WTD_WORKTREE", one.to_str().unwrap()), ("PORT_OFFSET", "20000"), ("UI_PORT", "23000")];
        let mut exec = sandbox.client_command(["exec", "--", "sh", "-c", "echo $PORT_OFFSET,$UI_PORT"]);
        assert_eq!(Ran::of(exec.envs(there).current_dir(&shop.path)).quiet(), "10000,\n");
    }
}

const POSIX: &str = "env -0 > BEFORE; eval \"$(wtd-client env)\"; env -0 > AFTER";

#[test]
fn eval_sets_exactly_the_variables_in_bash() {
    sets_exactly_the_variables("bash", &["--norc", "-euo", "pipefail", "-c"], POSIX, true);
}

#[test]
fn eval_sets_exactly_the_variables_in_bash_with_history_expansion() {
    sets_exactly_the_variables("bash", &["--norc", "-H", "-c"], POSIX, true);
}

#[test]
fn eval_sets_exactly_the_variables_in_zsh() {
    sets_exactly_the_variables("zsh", &["-f", "-eu", "-c"], POSIX, true);
}

#[test]
fn eval_sets_exactly_the_variables_in_dash() {
    sets_exactly_the_variables("dash", &["-eu", "-c"], POSIX, true);
}

#[test]
fn eval_sets_exactly_the_variables_in_fish() {
    let script = "env -0 > BEFORE; eval \"$(wtd-client env)\"; env -0 > AFTER";
    sets_exactly_the_variables("fish", &["--no-config", "-c"], script, true);
}

#[test]
fn source_sets_exactly_the_variables_in_fish() {
    sets_exactly_the_variables(
        "fish",
        &["--no-config", "-c"],
        "env -0 > BEFORE; wtd-client env | source; env -0 > AFTER",
        true,
    );
}

#[test]
fn eval_sets_exactly_the_variables_in_elvish() {
    if require::wish(require::find("elvish").is_some(), "elvish is not installed") {
        let script = "e:env -0 > BEFORE; eval (wtd-client env | slurp); e:env -0 > AFTER";
        sets_exactly_the_variables("elvish", &["-norc", "-c"], script, false);
    }
}

#[test]
fn the_dotenv_format_is_taken_by_a_posix_shell() {
    let script = "env -0 > BEFORE; set -a; wtd-client env --format dotenv > file || exit; . ./file; rm file; env -0 > AFTER";
    if !require::program("sh") {
        return;
    }
    let sandbox = Sandbox::new();
    let _daemon = sandbox.daemon();
    let (before, after) = (sandbox.path("before"), sandbox.path("after"));
    let script = script.replace("BEFORE", before.to_str().unwrap()).replace("AFTER", after.to_str().unwrap());
    for (_, path) in hostile_worktrees(&sandbox) {
        drop(fs::remove_file(&after));
        let ran = Ran::of(sandbox.command("sh").args(["-c", &script]).current_dir(&path));
        // A value that the format can't hold is refused, and never written wrongly.
        if ran.code != Some(0) {
            assert!(ran.stderr.starts_with("wtd-client: env: "), "{ran:#?}");
            continue;
        }
        let after = parse_environment(&fs::read(&after).unwrap());
        assert_eq!(after[OsStr::new("WTD_WORKTREE")], path);
    }
    assert_eq!(pwned(sandbox.root()), Vec::<PathBuf>::new());
}
