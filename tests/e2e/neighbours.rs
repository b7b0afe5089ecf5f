//! Hostile neighbours: other users, web pages, and repositories that somebody has made to do harm. None of them hangs the
//! daemon, makes it grow, or is felt by another repository.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{DEADLINE, Daemon, Nobody, Ran, Repo, Sandbox, free_base, require, until};

/// How much a daemon may grow, in KiB, by whatever a repository holds.
const GROWTH_KIB: u64 = 48 * 1024;

/// How long another repository's new worktree may wait for its allocation meanwhile: far beyond what it takes, far
/// below what a hang would.
const PROMPT: Duration = Duration::from_secs(15);

/// What can stand where git has a file.
const INSTEAD: [&str; 8] = [
    "a FIFO",
    "a device",
    "a socket",
    "a directory",
    "a gigabyte",
    "a loop",
    "a link to a device",
    "a link to /proc",
];

/// Puts something else in a file's place, whatever is there or comes there meanwhile.
fn put_instead(path: &Path, what: &str) {
    let draft = path.with_file_name("draft");
    match what {
        "a FIFO" => drop(Ran::of(Command::new("mkfifo").arg(&draft)).ok()),
        // One that is never read to its end. Without leave to make it, a link to it.
        "a device" => {
            if Ran::of(Command::new("mknod").arg(&draft).args(["c", "1", "5"])).code != Some(0) {
                drop(fs::remove_file(&draft));
                symlink("/dev/zero", &draft).unwrap();
            }
        }
        "a socket" => drop(std::os::unix::net::UnixListener::bind(&draft).unwrap()),
        "a directory" => fs::create_dir(&draft).unwrap(),
        "a gigabyte" => File::create(&draft).unwrap().set_len(1 << 30).unwrap(),
        "a loop" => symlink(path.file_name().unwrap(), &draft).unwrap(),
        "a link to a device" => symlink("/dev/tty", &draft).unwrap(),
        "a link to /proc" => symlink("/proc/self/mem", &draft).unwrap(),
        _ => unreachable!("{what}"),
    }
    let replace = || {
        drop(fs::remove_file(path).or_else(|_| fs::remove_dir_all(path)));
        fs::rename(&draft, path)
    };
    until("it is in place", replace, Result::is_ok).unwrap();
}

/// A repository that is nobody's enemy; its worktrees have to be allocated while others are looked at.
struct Peaceful<'s> {
    repo: Repo<'s>,
    count: usize,
}

impl<'s> Peaceful<'s> {
    fn new(daemon: &Daemon<'_>, sandbox: &'s Sandbox) -> Self {
        let repo = sandbox.repo("peaceful");
        daemon.put(&repo.path);
        Self { repo, count: 0 }
    }

    /// A new worktree is allocated with nobody asking, a client is answered, and all of it promptly.
    #[track_caller]
    fn is_served(&mut self, daemon: &Daemon<'_>, what: &str) {
        let mut events = daemon.events(None);
        self.count += 1;
        let path = self.repo.add(&format!("n{}", self.count));
        let begin = Instant::now();
        let active = |event: &serde_json::Value| event["path"] == json!(path) && event["state"] == "active";
        let found = std::iter::from_fn(|| events.next_until(begin + DEADLINE))
            .find(|event| active(&event.data["allocation"]));
        assert!(found.is_some(), "{what}: {}", daemon.log());
        assert!(begin.elapsed() < PROMPT, "{what}: allocated after {:?}", begin.elapsed());
        let begin = Instant::now();
        let sandbox = self.repo.sandbox;
        sandbox.client_in(&path, ["env"]).quiet();
        sandbox.client_in(&path, ["list"]).quiet();
        assert!(begin.elapsed() < PROMPT, "{what}: answered after {:?}", begin.elapsed());
        self.repo.remove(&path);
    }
}

/// Asks for a worktree's allocation; whatever comes of it comes soon, and is no failure of the daemon.
#[track_caller]
fn ask(daemon: &Daemon<'_>, path: &Path, what: &str) {
    let begin = Instant::now();
    let answer = daemon.http("PUT", "/v1/worktrees", Some(&request(path)));
    assert!(begin.elapsed() < PROMPT, "{what}: {:?}", begin.elapsed());
    assert!(answer.status == 200 || (400..500).contains(&answer.status), "{what}: {answer:?}");
}

fn request(path: &Path) -> serde_json::Value {
    let encoded = wtd_protocol::PathText::of(path);
    json!({ "path": encoded.text, "path_base64": encoded.base64 })
}

#[test]
fn whatever_stands_in_place_of_gits_files_hangs_nobody_and_removes_nothing() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let daemon = sandbox.daemon();
    let mut peaceful = Peaceful::new(&daemon, &sandbox);
    let before = daemon.resident_kib();
    for (number, file) in [
        "wt/.git",
        "wt/wtd.toml",
        "main/.git/worktrees/wt/gitdir",
        "main/.git/worktrees/wt/commondir",
        "main/.git/worktrees/wt/HEAD",
        "main/.git/worktrees/wt/locked",
        "main/.git/worktrees/wt/wtd.json",
        "main/.git/HEAD",
        "main/.git/config",
        "main/.git/commondir",
        "main/.git/worktrees",
        "main/.git/wtd.json",
        "main/.git",
        "main/wtd.toml",
    ]
    .iter()
    .enumerate()
    {
        let directory = format!("h{number}");
        fs::create_dir(sandbox.path(&directory)).unwrap();
        let repo = sandbox.repo(&format!("{directory}/main"));
        let linked = sandbox.path(format!("{directory}/wt"));
        repo.add_at(&linked, "wt");
        daemon.put(&repo.path);
        let ids = [&repo.path, &linked].map(|path| sandbox.list().at(path).id.clone());
        for instead in INSTEAD {
            let what = format!("{file} is {instead}");
            put_instead(&sandbox.path(&directory).join(file), instead);
            for path in [&linked, &repo.path] {
                ask(&daemon, path, &what);
            }
            let rows = sandbox.list_all();
            for id in &ids {
                let row = rows.id(id).unwrap();
                assert!(row.is("active") || row.is("missing"), "{what}: {row:#?}");
            }
        }
        peaceful.is_served(&daemon, file);
        drop(fs::remove_dir_all(sandbox.path(&directory)));
        for path in [&linked, &repo.path] {
            sandbox.client([OsStr::new("forget"), "-y".as_ref(), path.as_ref()]);
        }
    }
    let after = daemon.resident_kib();
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after}");
    daemon.terminate();
}

#[test]
fn a_client_without_a_daemon_hangs_at_nothing_that_stands_in_place_of_gits_files() {
    let sandbox = Sandbox::new();
    let repo = sandbox.repo("app");
    let one = repo.add("one");
    for file in [one.join(".git"), repo.path.join(".git/worktrees/app-one/wtd.json")] {
        for instead in INSTEAD {
            put_instead(&file, instead);
            let begin = Instant::now();
            let ran = sandbox.client_in(&one, ["env"]);
            assert!(begin.elapsed() < PROMPT, "{instead}: {:?}", begin.elapsed());
            assert!(ran.stdout.is_empty(), "{instead}: {ran:#?}");
        }
        drop(fs::remove_file(&file).or_else(|_| fs::remove_dir_all(&file)));
        fs::write(&file, format!("gitdir: {}\n", repo.path.join(".git/worktrees/app-one").display()))
            .unwrap();
    }
}

#[test]
fn a_git_that_would_wait_for_ever_in_one_repository_delays_no_other() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let daemon = sandbox.daemon();
    let mut peaceful = Peaceful::new(&daemon, &sandbox);
    // More of them than looks go on at once.
    let hostile: Vec<PathBuf> = (0..12)
        .map(|number| {
            let repo = sandbox.repo(&format!("h{number}"));
            let (one, two) = (repo.add("one"), repo.add("two"));
            daemon.put(&repo.path);
            // Only git can say what becomes of the one, and which branch the other is on: and it reads a FIFO.
            put_instead(&repo.path.join(".git/config"), "a FIFO");
            fs::write(repo.git_dir_of(&two).join("HEAD"), "ref: refs/heads/.invalid\n").unwrap();
            fs::remove_dir_all(repo.git_dir_of(&one)).unwrap();
            fs::remove_dir_all(&one).unwrap();
            one
        })
        .collect();
    for round in 0..3 {
        peaceful.is_served(&daemon, &format!("round {round}"));
    }
    let rows = sandbox.list_all();
    for path in &hostile {
        assert!(rows.at(path).is("active") || rows.at(path).is("missing"), "git did not say that it is gone");
    }
}

#[test]
fn a_hundred_thousand_entries_in_worktrees_are_felt_by_nobody() {
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = false\nresync = \"1s\"\n");
    let daemon = sandbox.daemon();
    let mut peaceful = Peaceful::new(&daemon, &sandbox);
    let repo = sandbox.repo("hostile");
    let one = repo.add("one");
    daemon.put(&repo.path);
    let id = sandbox.list().at(&one).id.clone();
    let worktrees = repo.path.join(".git/worktrees");
    let before = daemon.resident_kib();
    for number in 0..100_000 {
        File::create(worktrees.join(format!("junk{number}"))).unwrap();
    }
    ask(&daemon, &repo.path, "files");
    peaceful.is_served(&daemon, "files");
    assert!(!sandbox.list_all().id(&id).unwrap().is("stale"));
    fs::remove_dir_all(&worktrees).unwrap();
    peaceful.is_served(&daemon, "no files");
    // As many as are listed at all, and each names a worktree that isn't there.
    for number in 0..19_000 {
        let entry = worktrees.join(format!("{number}"));
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("gitdir"), format!("{}/gone{number}/.git\n", sandbox.root().display())).unwrap();
    }
    ask(&daemon, &repo.path, "entries");
    peaceful.is_served(&daemon, "entries");
    ask(&daemon, &repo.path, "entries, again");
    fs::remove_dir_all(&worktrees).unwrap();
    peaceful.is_served(&daemon, "no entries");
    let after = daemon.resident_kib();
    assert!(after < before + GROWTH_KIB, "{before} KiB, then {after}");
}

#[test]
fn paths_as_long_as_they_get_are_taken_or_refused_and_nothing_else_suffers() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let mut peaceful = Peaceful::new(&daemon, &sandbox);
    // As long as a name can be, and as unprintable.
    let name = OsString::from_vec([vec![b'\xff'; 127], vec![b'\n'; 128]].concat());
    let repo = Repo::init(&sandbox, &sandbox.path(&name));
    let one = sandbox.path(OsString::from_vec(vec![b'w'; 255]));
    repo.add_at(&one, "one");
    let allocation = daemon.http("PUT", "/v1/worktrees", Some(&request(&repo.path))).ok();
    assert_eq!(allocation["state"], "active");
    daemon.await_state(&one, "active");
    peaceful.is_served(&daemon, "names of 255 bytes");
    // As long as a path can be (PATH_MAX with its NUL), on disk, in a question, and in git's files.
    let mut deep = sandbox.path("deep");
    while deep.as_os_str().len() + 200 < 4000 {
        deep.push("d".repeat(199));
    }
    fs::create_dir_all(&deep).unwrap();
    let deep = Repo::init(&sandbox, &deep);
    ask(&daemon, &deep.path, "a repository at a path of 4,000 bytes");
    for length in [4_094, 4_095, 4_096, 5_000, 40_000] {
        let long = Path::new("/").join("p/".repeat(length / 2 - 1)).join("p");
        ask(&daemon, &long, &format!("a path of {length} bytes"));
        let entry = repo.path.join(".git/worktrees/long");
        drop(fs::remove_dir_all(&entry));
        fs::create_dir(&entry).unwrap();
        for (file, content) in
            [("gitdir", long.join(".git")), ("commondir", long.clone()), ("HEAD", long.clone())]
        {
            fs::write(entry.join(file), content.as_os_str().as_bytes()).unwrap();
        }
        fs::create_dir_all(sandbox.path("stray")).unwrap();
        fs::write(sandbox.path("stray/.git"), [b"gitdir: ", long.as_os_str().as_bytes()].concat()).unwrap();
        ask(&daemon, &sandbox.path("stray"), &format!("a .git of {length} bytes"));
        ask(&daemon, &repo.path, &format!("an entry of {length} bytes"));
        peaceful.is_served(&daemon, &format!("paths of {length} bytes"));
        assert!(sandbox.list().at(&one).is("active"));
    }
    let loops = sandbox.path("loop");
    symlink("loop", &loops).unwrap();
    for path in [loops.clone(), loops.join("below"), sandbox.path("stray/loop")] {
        ask(&daemon, &path, "a loop");
    }
}

#[test]
fn a_repository_cannot_have_files_written_outside_of_itself() {
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("hostile");
    let one = repo.add("one");
    let victim = sandbox.path("victim");
    fs::write(&victim, "mine\n").unwrap();
    let git_dirs = [repo.path.join(".git"), repo.path.join(".git/worktrees/hostile-one")];
    for git_dir in &git_dirs {
        symlink(&victim, git_dir.join("wtd.json")).unwrap();
        for name in [format!("wtd.json.{}", daemon.pid()), "wtd.json.new".to_owned()] {
            symlink(&victim, git_dir.join(name)).unwrap();
        }
    }
    daemon.put(&repo.path);
    daemon.await_state(&one, "active");
    until(
        "the files are written",
        || git_dirs[1].join("wtd.json").symlink_metadata().unwrap(),
        fs::Metadata::is_file,
    );
    sandbox.client(["forget", "-y", repo.path.to_str().unwrap()]).ok();
    assert_eq!(fs::read(&victim).unwrap(), b"mine\n");
    // A git dir that a link leads to is another repository's.
    let other = sandbox.repo("other");
    let elsewhere = sandbox.path("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    fs::write(elsewhere.join("gitdir"), format!("{}/.git\n", other.path.display())).unwrap();
    symlink(&elsewhere, repo.path.join(".git/worktrees/linked")).unwrap();
    daemon.put(&repo.path);
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 1, "nothing is written there");
}

#[test]
fn a_client_does_not_talk_to_another_users_daemon() {
    if !require::root() {
        return;
    }
    let sandbox = Sandbox::new();
    let nobody = Nobody::of(&sandbox);
    nobody.own(&sandbox.path("run"));
    nobody.own(&sandbox.path("state"));
    let repo = sandbox.repo("app");
    let daemon = nobody.daemon();
    for path in [sandbox.path("run"), sandbox.path("run/wtd"), sandbox.socket()] {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }
    // By --socket, by WTD_SOCKET, and by a runtime directory that another user has planted.
    for arguments in [&["env"][..], &["get", "PORT_OFFSET"], &["list"], &["add", "."], &["status"]] {
        for variable in ["WTD_SOCKET", ""] {
            let mut command = sandbox.client_command(arguments);
            if !variable.is_empty() {
                command.env(variable, sandbox.socket());
            }
            let line = Ran::of(command.current_dir(&repo.path)).fails(4);
            assert!(line.contains("uid 65534") && line.contains("wtd.sock"), "{line}");
        }
    }
    assert!(!daemon.log().contains("allocation changed"), "{}", daemon.log());
}

#[test]
fn what_another_user_has_planted_is_neither_used_nor_followed() {
    if !require::root() {
        return;
    }
    let refused = |sandbox: &Sandbox, variables: &[(&str, PathBuf)], part: &str| {
        let mut command = sandbox.command(Sandbox::program("wtd"));
        let (status, log) = Daemon::refused(sandbox, {
            command.envs(variables.iter().map(|(name, value)| (*name, value)));
            command
        });
        assert_eq!(status.code(), Some(1), "{log}");
        let line = log.lines().last().unwrap_or_default().to_owned();
        assert!(line.starts_with("wtd: ") && line.contains(part), "{line}");
    };
    let sandbox = Sandbox::new();
    let nobody = Nobody::of(&sandbox);
    let planted = sandbox.path("planted");
    let victim = sandbox.path("victim");
    fs::write(&victim, "mine\n").unwrap();

    // A socket's directory, with the right mode and the wrong owner.
    fs::create_dir(sandbox.path("run/wtd")).unwrap();
    fs::set_permissions(sandbox.path("run/wtd"), Permissions::from_mode(0o700)).unwrap();
    nobody.own(&sandbox.path("run/wtd"));
    refused(&sandbox, &[], "uid 65534 owns it");
    fs::remove_dir(sandbox.path("run/wtd")).unwrap();

    // A state directory in which another user can put what they like: links, in this case.
    for (owner, mode) in [(true, 0o755), (false, 0o777)] {
        drop(fs::remove_dir_all(&planted));
        fs::create_dir(&planted).unwrap();
        fs::set_permissions(&planted, Permissions::from_mode(mode)).unwrap();
        for name in ["registry.lock", "registry.db.new", "wtd.log"] {
            symlink(&victim, planted.join(name)).unwrap();
        }
        if owner {
            Ran::of(Command::new("chown").args(["-h", "65534:65534"]).arg(&planted)).ok();
        }
        refused(&sandbox, &[("WTD_STATE_DIR", planted.clone())], "planted");
        let mut command = sandbox.client_command(["list", "--timeout", "20s"]);
        Ran::of(command.env("WTD_STATE_DIR", &planted)).fails(4);
        assert_eq!(fs::read(&victim).unwrap(), b"mine\n", "{owner} {mode:o}");
    }

    // The lock beside a socket that a person put where others can write.
    let open = sandbox.path("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, Permissions::from_mode(0o1777)).unwrap();
    symlink(sandbox.path("made-by-a-link"), open.join("wtd.sock.lock")).unwrap();
    refused(&sandbox, &[("WTD_SOCKET", open.join("wtd.sock"))], "wtd.sock.lock");
    assert!(!sandbox.path("made-by-a-link").exists());
    assert_eq!(fs::read(&victim).unwrap(), b"mine\n");
}

#[test]
fn no_page_of_a_browser_reaches_the_tcp_listener() {
    let port = free_base();
    let sandbox =
        Sandbox::with_config(&format!("engine = \"none\"\nprobe = false\nlisten = \"127.0.0.1:{port}\"\n"));
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let body = json!({ "path": repo.path }).to_string();
    let ask = |request_line: &str, fields: &str| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let length = body.len();
        write!(
            stream,
            "{request_line} HTTP/1.1\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
        )
        .unwrap();
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer));
        String::from_utf8_lossy(&answer).into_owned()
    };
    let json = "Content-Type: application/json\r\n";
    let good = format!("Host: 127.0.0.1:{port}\r\n{json}");
    assert!(ask("PUT /v1/worktrees", &good).starts_with("HTTP/1.1 200"));
    let forget = "DELETE /v1/repositories";
    // A name of the page's own that leads here by now (DNS rebinding), and its like.
    for host in [
        "evil.example".to_owned(),
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("localhost.evil.example:{port}"),
        format!("0.0.0.0:{port}"),
        format!("[::1]:{port}"),
        format!("127.0.0.1:{}", port + 1),
        format!("127.1:{port}"),
        String::new(),
    ] {
        let answer = ask(forget, &format!("Host: {host}\r\n{json}"));
        assert!(answer.starts_with("HTTP/1.1 403") || answer.starts_with("HTTP/1.1 400"), "{host}: {answer}");
    }
    let absolute = format!("DELETE http://evil.example:{port}/v1/repositories");
    assert!(ask(&absolute, &good).starts_with("HTTP/1.1 4"));
    // A page of another site that asks for this address openly: a form, a script, an image, a frame.
    for fields in [
        "Origin: http://evil.example\r\n".to_owned(),
        "Origin: null\r\n".to_owned(),
        format!("Origin: http://127.0.0.1:{port}\r\n"),
        "Referer: http://evil.example/\r\n".to_owned(),
        "Sec-Fetch-Site: cross-site\r\n".to_owned(),
        "Sec-Fetch-Site: same-site\r\n".to_owned(),
        "Sec-Fetch-Site: same-origin\r\n".to_owned(),
    ] {
        for content_type in [json, "Content-Type: text/plain\r\n", ""] {
            let answer = ask(forget, &format!("Host: 127.0.0.1:{port}\r\n{fields}{content_type}"));
            assert!(answer.starts_with("HTTP/1.1 403"), "{fields}: {answer}");
            assert!(!answer.to_ascii_lowercase().contains("access-control-allow"), "{answer}");
        }
    }
    // What a form can send without a script, from a browser that says nothing of where it comes from.
    for content_type in ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
    {
        let answer = ask(forget, &format!("Host: 127.0.0.1:{port}\r\nContent-Type: {content_type}\r\n"));
        assert!(answer.starts_with("HTTP/1.1 415"), "{content_type}: {answer}");
    }
    let preflight = ask(
        "OPTIONS /v1/repositories",
        &format!("Host: 127.0.0.1:{port}\r\nAccess-Control-Request-Method: DELETE\r\n"),
    );
    assert!(!preflight.to_ascii_lowercase().contains("access-control-allow"), "{preflight}");
    assert_eq!(sandbox.list().at(&repo.path).offset, 0, "nothing was forgotten");
    assert_eq!(sandbox.list_all().len(), 1);
}
