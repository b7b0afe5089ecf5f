//! A machine of its own: Debian with systemd as its first process, booted in a container on a copy that goes with it.

use std::fs::{self, File};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::wait::receive;
use super::{Ran, binaries, require};

/// How long a machine may take to boot.
const BOOT: Duration = Duration::from_mins(1);

/// Ends a unit that hangs; nothing that is run here takes so long. What systemd-run(1) has started is its manager's, and
/// outlives it, with the pipes to this process.
const LIMITED: &str = "--property=RuntimeMaxSec=60";

/// Where `scripts/debian-base` puts what is booted, below cargo's target directory.
const BASES: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../debian");

/// Where the sources are.
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/..");

/// A machine that runs. Its network is its own, and so are its users; the programs under test and the scripts that
/// install them are in `/wtd`.
pub(crate) struct Machine {
    /// Debian's name for its release.
    pub(crate) release: String,
    directory: TempDir,
    script: Child,
    notify: UnixDatagram,
    /// Its first process, as this machine numbers it.
    leader: Pid,
}

/// A user who is logged in.
pub(crate) struct User<'m> {
    machine: &'m Machine,
    name: &'static str,
}

/// Runs a test on each release that `scripts/debian-base` made: they differ in what systemd does for units of users.
#[track_caller]
pub(crate) fn on_each_debian(test: impl Fn(&mut Machine)) {
    on_each_debian_with(&[], test);
}

/// As [`on_each_debian`], with further options of systemd-nspawn(1).
#[track_caller]
pub(crate) fn on_each_debian_with(options: &[String], test: impl Fn(&mut Machine)) {
    let mut bases: Vec<_> = fs::read_dir(BASES)
        .into_iter()
        .flatten()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir() && !path.file_name().unwrap().to_string_lossy().starts_with('.'))
        .collect();
    bases.sort();
    let can_boot = !bases.is_empty()
        && rustix::process::geteuid().is_root()
        && ["systemd-nspawn", "nsenter"].iter().all(|part| require::find(part).is_some());
    let why = "booting Debian takes root, systemd-container and what scripts/debian-base makes";
    if !require::part(can_boot, why) {
        return;
    }
    for base in bases {
        let mut machine = Machine::boot(&base, options);
        test(&mut machine);
    }
}

impl Machine {
    #[track_caller]
    fn boot(base: &Path, options: &[String]) -> Self {
        let directory = TempDir::with_prefix_in("wtd-machine-", "/tmp").unwrap();
        let at = directory.path().join("notify");
        let notify = UnixDatagram::bind(&at).unwrap();
        notify.set_read_timeout(Some(BOOT)).unwrap();
        let bound = |from: &Path, to: &str| format!("--bind-ro={}:/wtd/{to}", from.display());
        let console = File::create(directory.path().join("console")).unwrap();
        let sources = fs::canonicalize(SOURCES).unwrap();
        // It does not outlive this test, however that ends.
        let script = Command::new("setpriv")
            .args(["--pdeathsig", "KILL"])
            .arg(sources.join("scripts/boot-debian"))
            .arg(base)
            .arg(directory.path().join("machine"))
            .arg(bound(&sources.join("scripts"), "scripts"))
            .arg(bound(&sources.join("systemd"), "systemd"))
            .arg(bound(binaries::directory(), "dist"))
            .args(options)
            .env("NOTIFY_SOCKET", &at)
            .stdin(Stdio::null())
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap();
        let release = base.file_name().unwrap().to_string_lossy().into_owned();
        // None is process 1 of this machine; it is replaced by what is told.
        let mut machine = Self { release, directory, script, notify, leader: Pid::INIT };
        machine.await_boot();
        machine.root("useradd --create-home --shell /bin/bash alice").ok();
        // Nobody is kept waiting for a session that has ended.
        let prompt = "mkdir /etc/systemd/logind.conf.d
            printf '[Login]\\nUserStopDelaySec=0\\n' >/etc/systemd/logind.conf.d/test.conf
            systemctl reload-or-restart systemd-logind";
        machine.root(prompt).ok();
        machine
    }

    /// Waits until everything that belongs to booting has been done (systemd-nspawn(1), `--notify-ready=`).
    #[track_caller]
    fn await_boot(&mut self) {
        let mut message = [0; 4096];
        let mut leader = None;
        loop {
            let length = receive(&self.notify, &mut message)
                .unwrap_or_else(|error| panic!("{} did not boot: {error}\n{}", self.release, self.console()));
            let text = String::from_utf8_lossy(&message[..length]).into_owned();
            for line in text.lines() {
                if let Some(pid) = line.strip_prefix("X_NSPAWN_LEADER_PID=") {
                    leader = Pid::from_raw(pid.parse().unwrap());
                }
                if line == "READY=1"
                    && let Some(leader) = leader
                {
                    self.leader = leader;
                    return;
                }
            }
        }
    }

    /// What it printed on its console.
    fn console(&self) -> String {
        fs::read_to_string(self.directory.path().join("console")).unwrap_or_default()
    }

    /// A command in all the machine's namespaces.
    fn command(&self, program: &str) -> Command {
        // For when not even the machine's manager answers, which ends what hangs before that.
        let mut command = Command::new("timeout");
        command.args(["--signal=KILL", "90", "nsenter"]);
        command.arg(format!("--target={}", self.leader.as_raw_nonzero()));
        command.args(["--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", program]);
        command
    }

    /// Runs a shell script as root. As a unit: what comes in from outside is a stranger to the machine's own login manager.
    pub(crate) fn root(&self, script: &str) -> Ran {
        let mut command = self.command("systemd-run");
        Ran::of(command.args(["--quiet", "--collect", "--pipe", "--wait", LIMITED, "sh", "-euc", script]))
    }

    /// Logs a user in, who stays until [`User::log_out`].
    #[track_caller]
    pub(crate) fn log_in(&self, name: &'static str) -> User<'_> {
        let user = User { machine: self, name };
        let session = format!("--unit=session-of-{name}");
        Ran::of(user.unit().args([&session, "sleep", "infinity"])).ok();
        // Waits for the user's manager, as every login does.
        user.says("true");
        user
    }

    /// Boots it again, in order; whoever was logged in is not any more.
    #[track_caller]
    pub(crate) fn reboot(&mut self) {
        self.root("systemctl reboot").ok();
        self.await_boot();
    }
}

impl User<'_> {
    /// A unit that the login session's own rules hold for (`pam_systemd(8)`).
    fn unit(&self) -> Command {
        let mut command = self.machine.command("systemd-run");
        command.arg(format!("--uid={}", self.name));
        command.args(["--quiet", "--collect", "--property=PAMName=login", "--property=WorkingDirectory=~"]);
        command.args(["--setenv=XDG_SESSION_CLASS=user", "--setenv=LC_ALL=C.UTF-8"]);
        for role in ["AUTHOR", "COMMITTER"] {
            command.args([
                format!("--setenv=GIT_{role}_NAME=A"),
                format!("--setenv=GIT_{role}_EMAIL=a@example.org"),
            ]);
        }
        command
    }

    /// Runs a script in the user's login shell, from the home directory.
    pub(crate) fn run(&self, script: &str) -> Ran {
        let script = format!("set -euo pipefail\n{script}");
        Ran::of(self.unit().args(["--pipe", "--wait", LIMITED, "bash", "-lc", &script]))
    }

    /// The output of a script that has to succeed, without the last line's end.
    #[track_caller]
    pub(crate) fn says(&self, script: &str) -> String {
        let ran = self.run(script);
        assert_eq!(ran.code, Some(0), "on {}: {ran:#?}\n{}", self.machine.release, self.journal());
        ran.text().trim_end_matches('\n').to_owned()
    }

    /// What the units told, for who has to find out why a test failed.
    fn journal(&self) -> String {
        self.machine
            .root("journalctl --no-pager --lines=100 _UID=1000 + _SYSTEMD_USER_UNIT=wtd.service")
            .text()
    }

    /// Ends the session that [`Machine::log_in`] began.
    #[track_caller]
    pub(crate) fn log_out(self) {
        self.machine.root(&format!("systemctl stop session-of-{}", self.name)).ok();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- console of {}\n{}---", self.release, self.console());
        }
        // With its first process gone the kernel ends all others; the script then clears up.
        let killed = if self.leader == Pid::INIT {
            self.script.kill().is_ok()
        } else {
            kill_process(self.leader, Signal::KILL).is_ok()
        };
        if !killed {
            eprintln!("the machine has ended by itself");
        }
        drop(self.script.wait());
    }
}
