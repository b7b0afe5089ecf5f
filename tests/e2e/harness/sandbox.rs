//! A sandbox: a home, a runtime directory, a configuration and an environment that nothing of the machine's leaks
//! into.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use tempfile::TempDir;

use super::limit::Limit;
use super::{Daemon, Ran, Repo, Rows, binaries, http};

/// The configuration of a daemon whose test says nothing else: no container engine, and no look at ports of the
/// machine that tests share.
const PLAIN: &str = "engine = \"none\"\nprobe = false\n";

/// For a busy machine, where the test is not about how long an answer takes.
const PATIENT: &str = "--timeout=20s";

/// A directory of a test's own, short enough for a socket's path. Kept, and named, when the test fails.
pub(crate) struct Sandbox {
    dir: Option<TempDir>,
    root: PathBuf,
    pub(super) count: AtomicUsize,
    _limit: Limit,
}

impl Sandbox {
    pub(crate) fn new() -> Self {
        Self::with_config(PLAIN)
    }

    /// A sandbox whose daemon reads this configuration. It has to say `engine` and `probe` itself.
    pub(crate) fn with_config(config: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("wtd-").tempdir_in("/tmp").unwrap();
        let root = dir.path().canonicalize().unwrap();
        let limit = Limit::of_programs_in(&root);
        let sandbox = Self { dir: Some(dir), root, count: AtomicUsize::new(0), _limit: limit };
        for directory in ["home", "run", "state", "config/wtd"] {
            fs::create_dir_all(sandbox.path(directory)).unwrap();
        }
        fs::set_permissions(sandbox.path("run"), fs::Permissions::from_mode(0o700)).unwrap();
        sandbox.configure(config);
        sandbox
    }

    /// Replaces the daemon's configuration; it is read at its next start.
    pub(crate) fn configure(&self, config: &str) {
        fs::write(self.path("config/wtd/config.toml"), config).unwrap();
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/wtd/wtd.sock")
    }

    pub(crate) fn registry(&self) -> PathBuf {
        self.path("state/wtd/registry.db")
    }

    /// The `wtd` and the `wtd-client` that are on PATH.
    pub(crate) fn program(name: &str) -> PathBuf {
        binaries::directory().join(name)
    }

    /// A number that no other call gives.
    pub(crate) fn number(&self) -> usize {
        self.count.fetch_add(1, Ordering::Relaxed)
    }

    /// A command in the sandbox's environment and nothing else's.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let program = program.as_ref();
        let mut path = OsString::from(binaries::directory());
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into()));
        // By its path: std forks this process, which is large, to look for a program on another PATH than its own.
        let is_there = |file: &PathBuf| file.is_file();
        let file = std::env::split_paths(&path).map(|directory| directory.join(program)).find(is_there);
        let mut command = Command::new(file.as_deref().unwrap_or(program.as_ref()));
        command
            .arg0(program)
            .env_clear()
            .current_dir(&self.root)
            .env("PATH", path)
            .env("HOME", self.path("home"))
            .env("XDG_RUNTIME_DIR", self.path("run"))
            .env("XDG_STATE_HOME", self.path("state"))
            .env("XDG_CONFIG_HOME", self.path("config"))
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_SYSTEM", "/dev/null")
            .env("LC_ALL", "C.UTF-8")
            .env("TZ", "UTC");
        for role in ["AUTHOR", "COMMITTER"] {
            command.env(format!("GIT_{role}_NAME"), "A").env(format!("GIT_{role}_EMAIL"), "a@example.org");
        }
        command
    }

    /// `wtd-client` with these arguments, to be run from anywhere.
    pub(crate) fn client_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.command(Self::program("wtd-client"));
        command.args(arguments);
        command
    }

    /// Runs `wtd-client` with these arguments; it starts no daemon.
    pub(crate) fn client<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.client_command(arguments).env("WTD_NO_START", "1"))
    }

    /// Runs `wtd-client` in `directory`; it starts no daemon.
    pub(crate) fn client_in<S: AsRef<OsStr>>(
        &self,
        directory: &Path,
        arguments: impl IntoIterator<Item = S>,
    ) -> Ran {
        Ran::of(self.client_command(arguments).env("WTD_NO_START", "1").current_dir(directory))
    }

    /// What `wtd-client list --json` shows.
    pub(crate) fn list(&self) -> Rows {
        Rows::parse(&self.client(["list", "--json", PATIENT]).ok())
    }

    /// What `wtd-client list --json --all` shows.
    pub(crate) fn list_all(&self) -> Rows {
        Rows::parse(&self.client(["list", "--json", "--all", PATIENT]).ok())
    }

    /// The value of one variable in the worktree at `path`.
    pub(crate) fn get(&self, path: &Path, key: &str) -> String {
        let arguments = ["get", key, PATIENT, "--path"].map(OsStr::new).into_iter().chain([path.as_os_str()]);
        let text = self.client(arguments).ok();
        text.strip_suffix('\n').unwrap().to_owned()
    }

    /// The offset of the worktree at `path`, as the client says it.
    pub(crate) fn offset(&self, path: &Path) -> u16 {
        self.get(path, "PORT_OFFSET").parse().unwrap()
    }

    /// Keeps what is in it, to be looked at.
    pub(crate) fn keep(mut self) {
        if let Some(dir) = self.dir.take() {
            eprintln!("sandbox kept: {}", dir.keep().display());
        }
    }

    /// Starts a daemon, and waits until it is ready.
    pub(crate) fn daemon(&self) -> Daemon<'_> {
        Daemon::start(self)
    }

    /// A repository with one commit on `main`.
    pub(crate) fn repo(&self, name: &str) -> Repo<'_> {
        Repo::init(self, &self.path(name))
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        // A daemon that a client started belongs to nobody else.
        if let Ok(answer) = http::exchange(&self.socket(), "GET", "/v1/health", None)
            && let Ok(health) = serde_json::from_slice::<serde_json::Value>(&answer.body)
            && let Some(pid) = health["pid"].as_i64()
            && let Some(pid) = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw)
            && rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_err()
        {
            eprintln!("the daemon has ended by itself");
        }
        if std::thread::panicking()
            && let Some(dir) = self.dir.take()
        {
            eprintln!("sandbox kept: {}", dir.keep().display());
        }
    }
}
