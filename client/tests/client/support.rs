//! What the tests share: a directory of their own, a server, and the program.

use std::ffi::OsString;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::thread::JoinHandle;

use serde_json::{Value, json};

/// The program under test.
/// The client, in a directory of its own: the `wtd` that a build of the workspace puts beside it is none of these
/// tests' business, and the client would start it.
pub(crate) fn client_program() -> &'static str {
    static PROGRAM: LazyLock<String> = LazyLock::new(|| {
        let alone = format!("{}/client-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        fs::create_dir_all(&alone).unwrap();
        let program = format!("{alone}/wtd-client");
        fs::hard_link(env!("CARGO_BIN_EXE_wtd-client"), &program).unwrap();
        program
    });
    &PROGRAM
}

/// A directory of the test's own, with a short path: a socket's path has room for 107 bytes.
pub(crate) struct Sandbox {
    dir: tempfile::TempDir,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::Builder::new().prefix("wtd-").tempdir_in("/tmp").unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The environment that every program of the test gets: nothing of the machine's but PATH.
    pub(crate) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("LC_ALL", "C.UTF-8")
            .env("WTD_NO_START", "1")
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// The client, to be told where the daemon is.
    pub(crate) fn client(&self, arguments: &[&str]) -> Command {
        let mut command = self.command(client_program());
        command.args(arguments);
        command
    }

    /// Runs git, which must succeed.
    pub(crate) fn git(&self, dir: &Path, arguments: &[&str]) {
        let output = self.command("git").current_dir(dir).args(arguments).output().unwrap();
        assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    /// A repository with one commit at `name`; gives its canonical path.
    pub(crate) fn repository(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(&path).unwrap();
        self.git(&path, &["init", "--quiet", "--initial-branch=main"]);
        let identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"];
        let commit = ["commit", "--quiet", "--allow-empty", "--message=one"];
        self.git(&path, &[&identity[..], &commit[..]].concat());
        path.canonicalize().unwrap()
    }
}

/// How a program ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Ended {
    /// Asserts that the program failed as the contract has it: this code, nothing on standard output, and one
    /// line on standard error that holds `words` and says what to do.
    #[track_caller]
    pub(crate) fn failed(&self, code: i32, words: &str) {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert_eq!(self.stdout, "", "{self:?}");
        assert_eq!(self.stderr.matches('\n').count(), 1, "{self:?}");
        assert!(self.stderr.starts_with("wtd-client: ") && self.stderr.contains("; "), "{self:?}");
        assert!(self.stderr.contains(words), "{self:?} lacks {words:?}");
    }

    /// Asserts success without a word on standard error; gives the output.
    #[track_caller]
    pub(crate) fn done(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }
}

/// Runs a command to its end.
pub(crate) fn run(command: &mut Command) -> Ended {
    command.output().unwrap().into()
}

/// A request that the server got.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    /// Method and target.
    pub(crate) line: String,
    /// Header fields, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Received {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Reads one request from `stream`.
    fn read(stream: &mut UnixStream) -> Option<Self> {
        let mut bytes = Vec::new();
        let mut piece = [0; 4096];
        loop {
            if let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
                let (line, fields) = head.split_once("\r\n").unwrap();
                let fields = fields.to_ascii_lowercase();
                let length = fields
                    .split_once("content-length: ")
                    .map_or(0, |(_, rest)| rest.split("\r\n").next().unwrap().parse().unwrap());
                let body = &bytes[end + 4..];
                if body.len() == length {
                    let line = line.strip_suffix(" HTTP/1.1").unwrap().to_owned();
                    return Some(Self { line, head: fields, body: body.to_vec() });
                }
            }
            match stream.read(&mut piece).unwrap() {
                0 => return None,
                length => bytes.extend_from_slice(&piece[..length]),
            }
        }
    }
}

/// A server on a Unix socket that answers as the test says.
pub(crate) struct Server {
    path: PathBuf,
    requests: Arc<Mutex<Vec<Received>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on `path`; `answer` writes the answer to each request.
    pub(crate) fn at(path: PathBuf, answer: impl Fn(&Received, &mut UnixStream) + Send + 'static) -> Self {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(&path).unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let ending = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let (requests, ending) = (Arc::clone(&requests), Arc::clone(&ending));
            move || {
                for stream in listener.incoming() {
                    if ending.load(Ordering::SeqCst) {
                        return;
                    }
                    let mut stream = stream.unwrap();
                    if let Some(request) = Received::read(&mut stream) {
                        requests.lock().unwrap().push(request.clone());
                        answer(&request, &mut stream);
                    }
                }
            }
        });
        Self { path, requests, ending, thread: Some(thread) }
    }

    /// Serves in `sandbox`, with the same bytes for every request.
    pub(crate) fn saying(sandbox: &Sandbox, answer: Vec<u8>) -> Self {
        // The client may have had enough before all of it is written.
        Self::at(sandbox.path("s"), move |_, stream| drop(stream.write_all(&answer)))
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Received> {
        self.requests.lock().unwrap().clone()
    }

    /// Those that ask for something, and not only whether it answers.
    pub(crate) fn requests_for_work(&self) -> Vec<Received> {
        self.requests().into_iter().filter(|request| request.line != "GET /v1/health").collect()
    }

    /// Runs the client against this server.
    pub(crate) fn run(&self, sandbox: &Sandbox, arguments: &[&str]) -> Ended {
        run(&mut self.client(sandbox, arguments))
    }

    /// The client, pointed at this server.
    pub(crate) fn client(&self, sandbox: &Sandbox, arguments: &[&str]) -> Command {
        let mut command = sandbox.client(arguments);
        command.env("WTD_SOCKET", &self.path);
        command
    }

    /// A shell that finds the client on PATH, and the client this server.
    pub(crate) fn shell(&self, sandbox: &Sandbox, program: &str, arguments: &[&str]) -> Command {
        let mut command = sandbox.command(program);
        let dir = Path::new(client_program()).parent().unwrap().display();
        let path = format!("{dir}:{}", std::env::var("PATH").unwrap());
        command.args(arguments).env("PATH", path).env("WTD_SOCKET", &self.path);
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(&self.path));
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the server failed");
        }
    }
}

/// An answer with a JSON body.
pub(crate) fn answer(status: u16, body: &Value) -> Vec<u8> {
    let body = body.to_string();
    format!(
        "HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An answer that tells a problem.
pub(crate) fn problem(status: u16, kind: &str, detail: &str, remedy: &str) -> Vec<u8> {
    let kind = format!("urn:wtd:problem:{kind}");
    answer(status, &json!({"type": kind, "title": "t", "status": status, "detail": detail, "remedy": remedy}))
}

/// An allocation of a linked worktree with these variables.
pub(crate) fn allocation(path: &Path, variables: &[(&str, &str)]) -> Value {
    let wtd_protocol::PathText { text, base64 } = wtd_protocol::PathText::of(path);
    let mut all = serde_json::Map::new();
    all.insert("PORT_OFFSET".into(), "10000".into());
    all.insert("DB_HOST_PORT".into(), "15432".into());
    all.insert("WTD_WORKTREE".into(), text.clone().into());
    all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())));
    let mut allocation = json!({
        "id": "01890f5e-7b3c-7cc0-98c4-dc0c0c07398f",
        "repository": "/repo/.git", "path": text, "main": false,
        "offset": 10000, "ports": {"DB_HOST_PORT": 15432, "UI_PORT": 13000},
        "volume": "db_data_10000", "database": "x-10000", "project": "x",
        "state": "active", "since": "2026-01-01T00:00:00Z", "created": "2026-01-01T00:00:00Z",
        "variables": all, "a_later_field": 1,
    });
    if let Some(base64) = base64 {
        allocation["path_base64"] = base64.into();
    }
    allocation
}

/// The allocation file that goes with [`allocation`].
pub(crate) fn allocation_file(path: &Path) -> String {
    let allocation = allocation(path, &[]);
    json!({
        "format": 1, "id": allocation["id"], "offset": 10000, "path": allocation["path"],
        "path_base64": allocation["path_base64"], "variables": allocation["variables"],
    })
    .to_string()
}

/// The variables that `env -0` printed.
pub(crate) fn environment(bytes: &[u8]) -> Vec<(String, OsString)> {
    let lines = bytes.split(|byte| *byte == 0).filter(|line| !line.is_empty());
    let pairs = lines.filter_map(|line| {
        let equals = line.iter().position(|byte| *byte == b'=')?;
        let name = String::from_utf8(line[..equals].to_vec()).ok()?;
        Some((name, OsString::from_vec(line[equals + 1..].to_vec())))
    });
    pairs.collect()
}

/// Whether `program` is there. A test without it says so by name, and fails where everything is asked for.
pub(crate) fn has(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap();
    let found = std::env::split_paths(&path).any(|dir| dir.join(program).is_file());
    if !found {
        let line = format!("skipped: wtd-client's tests: {program} is not installed");
        assert!(std::env::var("WTD_TEST_REQUIRE").as_deref() != Ok("all"), "{line}");
        eprintln!("{line}");
        if let Some(file) = std::env::var_os("WTD_TEST_SKIPPED") {
            let mut file = fs::OpenOptions::new().append(true).create(true).open(file).unwrap();
            writeln!(file, "{line}").unwrap();
        }
    }
    found
}
