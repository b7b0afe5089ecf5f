//! A daemon that runs in a sandbox.

use std::fs::{self, File};
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::{Answer, DEADLINE, Events, Repo, Rows, Sandbox, http, until};

/// How long readiness is waited for before the child is looked at: it may have died.
const LOOK: Duration = Duration::from_millis(100);

/// A running `wtd`. Killed when it goes; its log is printed when the test fails.
pub(crate) struct Daemon<'s> {
    sandbox: &'s Sandbox,
    child: Child,
    log: PathBuf,
    /// What it tells the manager that started it, which is us (`sd_notify(3)`), line by line.
    told: Mutex<Receiver<String>>,
    notify: UnixDatagram,
}

impl<'s> Daemon<'s> {
    /// Starts `wtd`, and waits until it says that it is ready (`sd_notify(3)`).
    pub(super) fn start(sandbox: &'s Sandbox) -> Self {
        Self::start_command(sandbox, sandbox.command(Sandbox::program("wtd")))
    }

    /// Starts a daemon by a command of one's own, and waits until it says that it is ready.
    #[track_caller]
    pub(crate) fn start_command(sandbox: &'s Sandbox, command: Command) -> Self {
        Self::start_with_stdin(sandbox, command, Stdio::null())
    }

    /// As [`Daemon::start_command`], with this as its standard input.
    #[track_caller]
    pub(crate) fn start_with_stdin(sandbox: &'s Sandbox, command: Command, stdin: Stdio) -> Self {
        Self::try_start(sandbox, command, stdin, Stdio::null())
            .unwrap_or_else(|(status, log)| panic!("wtd ended ({status}): {log}"))
    }

    /// As [`Daemon::start_command`], with this as its standard output.
    #[track_caller]
    pub(crate) fn start_with_stdout(sandbox: &'s Sandbox, command: Command, stdout: Stdio) -> Self {
        Self::try_start(sandbox, command, Stdio::null(), stdout)
            .unwrap_or_else(|(status, log)| panic!("wtd ended ({status}): {log}"))
    }

    /// The exit status and the log of a daemon that has to refuse to start.
    #[track_caller]
    pub(crate) fn refused(sandbox: &'s Sandbox, command: Command) -> (ExitStatus, String) {
        match Self::try_start(sandbox, command, Stdio::null(), Stdio::null()) {
            Ok(daemon) => panic!("wtd should have refused to start: {}", daemon.log()),
            Err(ended) => ended,
        }
    }

    /// Gives the exit status and the log of one that ends instead.
    fn try_start(
        sandbox: &'s Sandbox,
        mut command: Command,
        stdin: Stdio,
        stdout: Stdio,
    ) -> Result<Self, (ExitStatus, String)> {
        let number = sandbox.number();
        let notify = sandbox.path(format!("notify-{number}"));
        let log = sandbox.path(format!("wtd-{number}.log"));
        let socket = UnixDatagram::bind(&notify).unwrap();
        let told = Mutex::new(listen(socket.try_clone().unwrap()));
        // The daemon may run as another user.
        fs::set_permissions(&notify, fs::Permissions::from_mode(0o777)).unwrap();
        let child = command
            .env("NOTIFY_SOCKET", &notify)
            // As the unit and the client start it.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(stdin)
            .stdout(stdout)
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let mut daemon = Self { sandbox, child, log, told, notify: socket };
        match daemon.await_ready() {
            Ok(_) => Ok(daemon),
            Err(status) => Err((status, daemon.log())),
        }
    }

    /// Waits until it says that it is ready; gives what it said until then, line by line. Its exit status if it ends
    /// instead.
    fn await_ready(&mut self) -> Result<Vec<String>, ExitStatus> {
        let end = Instant::now() + DEADLINE;
        let mut said = Vec::new();
        loop {
            match self.told.get_mut().unwrap().recv_timeout(LOOK) {
                Ok(line) => {
                    said.push(line);
                    if said.last().is_some_and(|line| line == "READY=1") {
                        return Ok(said);
                    }
                }
                Err(_) => {
                    if let Some(status) = self.child.try_wait().unwrap() {
                        return Err(status);
                    }
                }
            }
            assert!(Instant::now() < end, "wtd was not ready within {DEADLINE:?}: {}", self.log());
        }
    }

    /// SIGHUP, upon which it reads its configuration again; gives what it tells its manager of that.
    #[track_caller]
    pub(crate) fn sighup(&mut self) -> Vec<String> {
        self.signal(Signal::HUP);
        self.await_reload()
    }

    /// Waits until it has told its manager of a reload; gives what it told.
    #[track_caller]
    pub(crate) fn await_reload(&mut self) -> Vec<String> {
        self.await_ready().unwrap_or_else(|status| panic!("wtd ended ({status}): {}", self.log()))
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory, in KiB (`VmRSS`, `proc_pid_status(5)`).
    #[track_caller]
    pub(crate) fn resident_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// SIGKILL: nothing is put in order.
    pub(crate) fn kill9(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits until it ends by itself, or by what was done to it.
    #[track_caller]
    pub(crate) fn await_end(mut self) -> ExitStatus {
        until("the daemon ends", || self.child.try_wait().unwrap(), Option::is_some).unwrap()
    }

    /// SIGTERM, after which it has to end well.
    #[track_caller]
    pub(crate) fn terminate(mut self) {
        self.signal(Signal::TERM);
        let status = until("the daemon ends", || self.child.try_wait().unwrap(), Option::is_some).unwrap();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Stops it where it is; the kernel goes on queueing its events.
    pub(crate) fn sigstop(&self) {
        self.signal(Signal::STOP);
        // Each thread stops when it gets to it.
        let is_stopped = |thread: io::Result<fs::DirEntry>| {
            let stat = fs::read_to_string(thread.unwrap().path().join("stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.starts_with('T')
        };
        let threads = || fs::read_dir(format!("/proc/{}/task", self.pid())).unwrap();
        until("every thread is stopped", || threads().all(is_stopped), |stopped| *stopped);
    }

    pub(crate) fn sigcont(&self) {
        self.signal(Signal::CONT);
    }

    /// One request over the socket.
    #[track_caller]
    pub(crate) fn http(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        http::exchange(&self.sandbox.socket(), method, target, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}\n{}", self.log()))
    }

    /// As [`Daemon::http`], of one that may not answer.
    pub(crate) fn try_http(&self, method: &str, target: &str, body: Option<&Value>) -> io::Result<Answer> {
        http::exchange(&self.sandbox.socket(), method, target, body)
    }

    #[track_caller]
    pub(crate) fn get(&self, target: &str) -> Answer {
        self.http("GET", target, None)
    }

    /// The allocation of the worktree that holds `path`, made if needed.
    #[track_caller]
    pub(crate) fn put(&self, path: &Path) -> Value {
        self.http("PUT", "/v1/worktrees", Some(&json!({ "path": path }))).ok()
    }

    /// Bytes over the socket, and what comes back until the daemon closes the connection.
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<Vec<u8>> {
        http::raw(&self.sandbox.socket(), bytes)
    }

    /// One request as it stands here; its answer.
    #[track_caller]
    pub(crate) fn send(&self, request: &str) -> Answer {
        let answer = self.raw(request.as_bytes()).unwrap();
        http::parse(&answer).unwrap_or_else(|| panic!("{request:?}: {:?}", String::from_utf8_lossy(&answer)))
    }

    pub(crate) fn events(&self, last: Option<i64>) -> Events {
        Events::follow(&self.sandbox.socket(), last)
    }

    /// Waits until `is_so` of the list, stale and released ones included, looking only when the daemon tells of a
    /// change: so nothing but what it noticed by itself can make it so.
    #[track_caller]
    pub(crate) fn await_list(&self, what: &str, is_so: impl Fn(&Rows) -> bool) -> Rows {
        let mut events = self.events(None);
        let end = Instant::now() + DEADLINE;
        loop {
            let rows = self.sandbox.list_all();
            if is_so(&rows) {
                return rows;
            }
            if events.next_until(end).is_none() {
                let rows = self.sandbox.list_all();
                assert!(
                    is_so(&rows),
                    "waited {DEADLINE:?} for: {what}\nlast seen: {rows:#?}\n{}",
                    self.log()
                );
                return rows;
            }
        }
    }

    /// Waits until the allocation of the worktree at `path` is in `state`; gives the list.
    #[track_caller]
    pub(crate) fn await_state(&self, path: &Path, state: &str) -> Rows {
        let what = format!("{} is {state}", path.display());
        let is_last =
            |rows: &Rows| rows.iter().filter(|row| row.exact_path() == path).any(|row| row.is(state));
        self.await_list(&what, is_last)
    }

    /// Waits until the registry has the worktrees of a repository that git lists, and no others; gives the list.
    #[track_caller]
    pub(crate) fn await_agreement(&self, repo: &Repo<'_>) -> Rows {
        let (paths, common_dir) = (repo.paths(), repo.common_dir());
        let what = format!("the registry has what git lists: {paths:#?}");
        let rows = self.await_list(&what, |rows| rows.active(Some(&common_dir)) == paths);
        rows.assert_disjoint();
        rows
    }
}

/// Takes in what is told at once, as a manager does: who tells it waits otherwise.
fn listen(socket: UnixDatagram) -> Receiver<String> {
    let (lines, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut message = [0; 4096];
        while let Ok(length @ 1..) = socket.recv(&mut message) {
            for line in String::from_utf8_lossy(&message[..length]).lines() {
                drop(lines.send(line.to_owned()));
            }
        }
    });
    told
}

impl Drop for Daemon<'_> {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(self.notify.shutdown(Shutdown::Both));
        if std::thread::panicking() {
            eprintln!("--- {}\n{}---", self.log.display(), self.log());
        }
    }
}
