//! A daemon on scratch state, and what the kernel says of its process (proc(5)).

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use tempfile::TempDir;
use wtd_protocol::routes;

use crate::http;

/// The programs as they are installed.
#[derive(Debug)]
pub(crate) struct Programs {
    pub(crate) daemon: PathBuf,
    pub(crate) client: PathBuf,
}

impl Programs {
    pub(crate) fn new(directory: &Path) -> Self {
        Self { daemon: directory.join("wtd"), client: directory.join("wtd-client") }
    }
}

/// A daemon that runs until this is dropped.
#[derive(Debug)]
pub(crate) struct Daemon {
    child: Child,
    /// From the start of the process to its `READY=1` (`sd_notify(3)`).
    pub(crate) ready_after: Duration,
    pub(crate) socket: PathBuf,
    /// Sockets have short paths (unix(7)), so they are not beside the registry.
    _sockets: TempDir,
    /// Where the daemon tells what systemd would want to know.
    notifications: UnixDatagram,
}

/// What a process has used up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// Time on a processor.
    pub(crate) cpu: Duration,
    /// How often a thread went to sleep, and so was woken.
    pub(crate) wake_ups: u64,
}

impl Daemon {
    /// Starts a daemon with the registry in `state`, and waits until it is ready.
    pub(crate) fn start(
        programs: &Programs,
        state: &Path,
        settings: &[(&str, &str)],
    ) -> anyhow::Result<Self> {
        let sockets = tempfile::tempdir()?;
        let (socket, ready) = (sockets.path().join("wtd.sock"), sockets.path().join("ready"));
        let notifications = UnixDatagram::bind(&ready)?;
        notifications.set_read_timeout(Some(Duration::from_mins(1)))?;
        let begin = Instant::now();
        let child = Command::new(&programs.daemon)
            .env_clear()
            // As the unit and the client start it.
            .env("MALLOC_ARENA_MAX", "1")
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", state)
            .env("WTD_STATE_DIR", state)
            .env("WTD_SOCKET", &socket)
            .env("WTD_ENGINE", "none")
            .env("WTD_LOG", "warn")
            .env("NOTIFY_SOCKET", &ready)
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{}", programs.daemon.display()))?;
        let mut daemon =
            Self { child, ready_after: Duration::ZERO, socket, _sockets: sockets, notifications };
        let mut buffer = [0; 512];
        loop {
            let read = daemon.notifications.recv(&mut buffer).context("wtd does not become ready")?;
            if buffer.split_at(read).0.split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                break;
            }
        }
        daemon.ready_after = begin.elapsed();
        Ok(daemon)
    }

    /// Ends the daemon as systemd does, and waits for it.
    pub(crate) fn stop(mut self) -> anyhow::Result<()> {
        let sent = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status()?;
        ensure!(sent.success(), "the daemon can't be told to end");
        let status = self.child.wait()?;
        ensure!(status.success(), "the daemon ended with {status}");
        Ok(())
    }

    pub(crate) fn get(&self, route: &str) -> anyhow::Result<Value> {
        http::ask_once(&self.socket, &http::get(route))
    }

    /// How many allocations are active.
    pub(crate) fn active(&self) -> anyhow::Result<u64> {
        self.get(routes::HEALTH)?
            .get("active")
            .and_then(Value::as_u64)
            .context("no number of active allocations")
    }

    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let mut usage = Usage { cpu: Duration::ZERO, wake_ups: 0 };
        for task in fs::read_dir(self.proc("task"))? {
            let task = task?.path();
            let scheduled = fs::read_to_string(task.join("schedstat"))?;
            let nanoseconds = scheduled.split(' ').next().unwrap_or_default().parse()?;
            usage.cpu += Duration::from_nanos(nanoseconds);
            usage.wake_ups += field(&fs::read_to_string(task.join("status"))?, "voluntary_ctxt_switches:")?;
        }
        Ok(usage)
    }

    /// Resident memory, in KiB.
    pub(crate) fn resident_kib(&self) -> anyhow::Result<u64> {
        field(&fs::read_to_string(self.proc("status"))?, "VmRSS:")
    }

    /// Resident memory with what is shared counted by share, in KiB.
    pub(crate) fn proportional_kib(&self) -> anyhow::Result<u64> {
        field(&fs::read_to_string(self.proc("smaps_rollup"))?, "Pss:")
    }

    /// What is used up in `time`.
    pub(crate) fn used_in(&self, time: Duration) -> anyhow::Result<Usage> {
        let before = self.usage()?;
        pause(time);
        let after = self.usage()?;
        Ok(Usage {
            cpu: after.cpu.saturating_sub(before.cpu),
            wake_ups: after.wake_ups.saturating_sub(before.wake_ups),
        })
    }

    /// Waits until the daemon has finished what it does by itself.
    pub(crate) fn settle(&self) -> anyhow::Result<()> {
        let mut quiet = 0;
        for _ in 0..120 {
            let used = self.used_in(Duration::from_millis(250))?;
            quiet = if used.cpu < Duration::from_micros(500) { quiet + 1 } else { 0 };
            if quiet == 4 {
                break;
            }
        }
        Ok(())
    }

    fn proc(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{file}", self.child.id()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It has ended already unless something failed, and then there is nothing better to do.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The number of a line such as `VmRSS:     5120 kB`.
fn field(text: &str, name: &str) -> anyhow::Result<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no {name}"))?;
    Ok(line.split_whitespace().next().unwrap_or_default().parse()?)
}

/// Lets time pass: here that is what is measured, or a load that is paced.
#[expect(clippy::disallowed_methods, reason = "nothing is waited for but time")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
