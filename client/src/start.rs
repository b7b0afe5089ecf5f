//! Starting a daemon when none answers: through systemd where its unit is installed, else `wtd` itself.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::io::Errno;

use crate::connection;
use crate::daemon::{Connected, Places, variable};
use crate::deadline::{Deadline, Waited};
use crate::error::Unreachable;
use crate::hook::WTD_HOOK;
use wtd_protocol::socket::FAILED;
use wtd_protocol::variable::WTD_WORKTREE;

/// The unit that listens on the socket in the user's runtime directory.
const UNIT: &str = "wtd.socket";

/// The daemon's program.
const PROGRAM: &str = "wtd";

/// Variables that a daemon started here keeps. All others belong to what the client happens to run in: a git
/// hook's `GIT_DIR` or a debugger's `LD_PRELOAD` must not last as long as the daemon does.
const KEPT: [&str; 20] = [
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "DOCKER_HOST",
    "DOCKER_CONTEXT",
    "CONTAINER_HOST",
    // Where PostgreSQL is and who asks it, as libpq reads them; not PGOPTIONS, which is a worktree's own.
    "PGHOST",
    "PGHOSTADDR",
    "PGUSER",
    "PGPASSWORD",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "PGDATABASE",
    "PGSSLMODE",
];

/// Beginnings of further names that are kept.
const KEPT_PREFIXES: [&str; 2] = ["XDG_", "WTD_"];

/// Names that begin so and belong to a shell.
const NOT_KEPT: [&str; 2] = [WTD_WORKTREE, WTD_HOOK];

/// Starts the daemon as a child of its own that nobody waits for. The shell in between ends at once, so that the
/// daemon never is a child of what `exec` turns this process into. The daemon itself closes the descriptors that this
/// process inherited (a lock, a test runner's pipe): sh can name none above 9.
const DETACH: &str = "\"$@\" &";

/// The first pause between two looks for the socket, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(50));

/// Starts a daemon and connects to it.
pub(crate) fn start(places: &Places, deadline: Deadline) -> Result<Connected, Unreachable> {
    if let Some(manager) = UserManager::find()
        && manager.is_for(places)
        && manager.start_socket(deadline)
    {
        return connect(places, deadline).ok_or_else(|| {
            Unreachable::new(
                format!("{UNIT} is started, and its socket is not there"),
                format!("run `systemctl --user restart {UNIT}`, and look at `systemctl --user status wtd`"),
            )
        });
    }
    let program = find_program().ok_or_else(|| {
        Unreachable::new(
            "no daemon answers, and there is no `wtd` beside wtd-client or on PATH to start",
            "install wtd, or name a daemon's socket with --socket",
        )
    })?;
    let failed = |error: io::Error| {
        Unreachable::new(
            format!("{} can't be started: {error}", program.display()),
            "run it by hand to see more",
        )
    };
    let mut child = detached(&program, places).map_err(failed)?;
    // The shell in between is gone at once; what stays open is the daemon's end of the pipe.
    let said = wait_until_served(&child, deadline).map_err(|errno| failed(errno.into()))?;
    child.wait().map_err(failed)?;
    if let Some(why) = said.strip_prefix(FAILED) {
        return Err(Unreachable::new(
            format!("no daemon answers, and wtd can't start: {}", why.trim_end()),
            "correct that, and ask again",
        ));
    }
    connect(places, deadline).ok_or_else(|| {
        Unreachable::new(
            format!("{} was started, and nothing answers", program.display()),
            "run it by hand to see why, or allow more with --timeout",
        )
    })
}

/// Waits until the daemon says that it serves, or has ended. It ends without a word when another one was
/// quicker, which then can be connected to as well. Gives what it said.
fn wait_until_served(child: &Child, deadline: Deadline) -> Result<String, Errno> {
    let Some(pipe) = &child.stdout else { return Ok(String::new()) };
    let mut line = [0; 2048];
    let length = match deadline.wait_readable(pipe.as_fd())? {
        Waited::Ready => rustix::io::read(pipe, &mut line)?,
        Waited::TimedOut => 0,
    };
    Ok(String::from_utf8_lossy(line.get(..length).unwrap_or_default()).into_owned())
}

/// Connects as soon as the socket is there, within the deadline. Nothing announces that a daemon which someone
/// else started binds its socket, so this looks again after short pauses.
fn connect(places: &Places, deadline: Deadline) -> Option<Connected> {
    let (mut pause, longest) = PAUSES;
    loop {
        match places.connect(deadline) {
            Ok(connected) => return Some(connected),
            Err(failures) if !failures.iter().all(|(_, error)| error.is_vacant()) => return None,
            Err(_) if deadline.is_over() => return None,
            Err(_) => deadline.pause(pause).ok()?,
        }
        pause = (pause * 2).min(longest);
    }
}

/// Starts `wtd --detached`.
fn detached(program: &Path, places: &Places) -> io::Result<Child> {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", DETACH, "sh"]).arg(program).arg("--detached");
    if places.is_named
        && let Some(socket) = places.sockets.first()
    {
        command.arg("--socket").arg(std::path::absolute(socket)?);
    }
    command
        .current_dir("/")
        .env_clear()
        .envs(kept(std::env::vars_os()))
        // As in the unit: looks at repositories run on several threads, and the C library would keep for each what
        // one of them once used.
        .env("MALLOC_ARENA_MAX", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
}

/// The variables that a daemon started here keeps.
fn kept(variables: impl Iterator<Item = (OsString, OsString)>) -> impl Iterator<Item = (OsString, OsString)> {
    variables.filter(|(name, _)| {
        name.to_str().is_some_and(|name| {
            let is_kept = KEPT.contains(&name) || KEPT_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            is_kept && !NOT_KEPT.contains(&name)
        })
    })
}

/// The `wtd` beside this program, else on PATH. An entry of PATH that is not absolute would be looked up in the
/// working directory, which may be a stranger's repository.
fn find_program() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().map(|this| this.with_file_name(PROGRAM));
    let path = variable("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).filter(|dir| dir.is_absolute()).map(|dir| dir.join(PROGRAM));
    beside.into_iter().chain(on_path).find(|candidate| is_executable(candidate))
}

/// Whether `path` is a file that may be run.
pub(crate) fn is_executable(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

/// The systemd manager of the user, where it answers.
#[derive(Debug)]
pub(crate) struct UserManager {
    runtime_dir: PathBuf,
}

impl UserManager {
    /// The manager that answers in the user's runtime directory. It is looked for by its own socket, since
    /// `systemctl` is slow to find out that there is none.
    pub(crate) fn find() -> Option<Self> {
        let uid = rustix::process::geteuid().as_raw();
        let runtime_dir = variable("XDG_RUNTIME_DIR")
            .map(PathBuf::from)
            .filter(|dir| dir.is_absolute())
            .unwrap_or_else(|| Path::new("/run/user").join(uid.to_string()));
        let private = runtime_dir.join("systemd/private");
        let soon = Deadline::after(Duration::from_millis(200));
        connection::connect(&private, soon).is_ok().then_some(Self { runtime_dir })
    }

    /// Whether the unit serves the socket that is looked for, and is installed.
    fn is_for(&self, places: &Places) -> bool {
        let served = self.runtime_dir.join(PROGRAM).join(wtd_protocol::socket::FILE_NAME);
        places.sockets.first() == Some(&served) && installed_unit().is_some()
    }

    /// Starts the unit; false when that fails.
    fn start_socket(&self, deadline: Deadline) -> bool {
        let started = Command::new("systemctl")
            .args(["--user", "--quiet", "--no-ask-password", "start", UNIT])
            .current_dir("/")
            .env_clear()
            .envs(kept(std::env::vars_os()))
            .env("XDG_RUNTIME_DIR", &self.runtime_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn();
        let Ok(mut child) = started else { return false };
        // Its end closes the pipe: that can be waited for with a deadline.
        let ended = child
            .stdout
            .as_ref()
            .is_some_and(|pipe| matches!(deadline.wait_readable(pipe.as_fd()), Ok(Waited::Ready)));
        ended && child.wait().is_ok_and(|status| status.success())
    }
}

/// Where the unit is installed: the first of the places where a user manager looks (systemd.unit(5)).
pub(crate) fn installed_unit() -> Option<PathBuf> {
    let home = variable("HOME").map(PathBuf::from);
    let base = |name: &str, below_home: &str| {
        let set = variable(name).map(PathBuf::from).filter(|dir| dir.is_absolute());
        set.or_else(|| home.as_ref().map(|home| home.join(below_home)))
    };
    let own = [base("XDG_CONFIG_HOME", ".config"), base("XDG_DATA_HOME", ".local/share")];
    let system = ["/etc", "/run", "/usr/local/share", "/usr/share", "/usr/local/lib", "/usr/lib"];
    own.into_iter()
        .flatten()
        .chain(system.map(PathBuf::from))
        .map(|dir| dir.join("systemd/user").join(UNIT))
        .find(|unit| unit.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_started_daemon_keeps_only_what_is_its_own() {
        let variables = [
            "HOME",
            "XDG_STATE_HOME",
            "WTD_LOG",
            "PGUSER",
            "PGOPTIONS",
            "GIT_DIR",
            "LD_PRELOAD",
            "BASH_ENV",
            "PWD",
        ]
        .map(|name| (OsString::from(name), OsString::from("x")));
        let names: Vec<_> = kept(variables.into_iter()).map(|(name, _)| name).collect();
        assert_eq!(names, ["HOME", "XDG_STATE_HOME", "WTD_LOG", "PGUSER"]);
    }
}
