//! Another user, who has no privilege.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Daemon, Ran, Sandbox};

/// The overflow uid, which owns nothing (`user_namespaces(7)`).
const UID: u32 = 65_534;

/// Runs programs as another user where the tests run as root; as oneself where they don't.
pub(crate) struct Nobody<'s> {
    sandbox: &'s Sandbox,
    bin: PathBuf,
    is_other: bool,
}

impl<'s> Nobody<'s> {
    pub(crate) fn of(sandbox: &'s Sandbox) -> Self {
        let is_other = rustix::process::geteuid().is_root();
        let bin = sandbox.path("bin");
        fs::create_dir_all(&bin).unwrap();
        for name in ["wtd", "wtd-client"] {
            // The directory in which they were built may be closed to others. Copied by a process of its own: a file
            // that is open for writing, if only in what another thread has just forked, can't be run (ETXTBSY).
            Ran::of(Command::new("cp").arg(Sandbox::program(name)).arg(&bin)).ok();
        }
        let nobody = Self { sandbox, bin, is_other };
        if is_other {
            use std::os::unix::fs::PermissionsExt as _;
            fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o755)).unwrap();
        }
        nobody
    }

    /// Makes everything below `path` this user's.
    pub(crate) fn own(&self, path: &Path) {
        if self.is_other {
            Ran::of(Command::new("chown").args(["-R", &format!("{UID}:{UID}")]).arg(path)).ok();
        }
    }

    /// A command that this user runs.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        if !self.is_other {
            return self.sandbox.command(program);
        }
        let mut command = self.sandbox.command("setpriv");
        let id = [format!("--reuid={UID}"), format!("--regid={UID}")];
        command.args(id).args(["--clear-groups", "--"]).arg(program);
        command
    }

    /// Starts a daemon, and waits until it is ready.
    pub(crate) fn daemon(&self) -> Daemon<'s> {
        Daemon::start_command(self.sandbox, self.command(self.bin.join("wtd")))
    }

    /// Runs `wtd-client`; it starts no daemon.
    pub(crate) fn client<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.command(self.bin.join("wtd-client")).args(arguments).env("WTD_NO_START", "1"))
    }
}
