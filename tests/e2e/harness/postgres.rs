//! A real PostgreSQL of a test's own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Ran, Sandbox, require, until};

/// `postgres` and `initdb`: on PATH, or where distributions put them.
fn programs() -> Option<(PathBuf, PathBuf)> {
    let packaged = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"));
    let on_path =
        require::find("postgres").and_then(|found| Some(found.canonicalize().ok()?.parent()?.to_owned()));
    on_path
        .into_iter()
        .chain(packaged)
        .map(|directory| (directory.join("postgres"), directory.join("initdb")))
        .find(|(postgres, initdb)| postgres.is_file() && initdb.is_file())
}

/// A server, which ends with the test. Its superuser is `postgres`.
pub(crate) struct Postgres<'s> {
    sandbox: &'s Sandbox,
    program: PathBuf,
    data: PathBuf,
    pub(crate) port: u16,
    /// The superuser's password, where the server asks for one.
    pub(crate) password: Option<String>,
    child: Option<Child>,
}

impl<'s> Postgres<'s> {
    /// Starts a server on `port` that takes everybody at their word; none where the machine lacks something for it.
    pub(crate) fn start(sandbox: &'s Sandbox, port: u16) -> Option<Self> {
        Self::start_with(sandbox, port, &["--auth=trust"])
    }

    /// As [`Postgres::start`], made by `initdb` with these arguments.
    pub(crate) fn start_with(sandbox: &'s Sandbox, port: u16, arguments: &[&str]) -> Option<Self> {
        let found = programs();
        if !require::part(found.is_some(), "postgres and initdb are not installed")
            || !require::program("psql")
            || !require::unprivileged()
        {
            return None;
        }
        let (program, initdb) = found?;
        let data = sandbox.path(format!("data-{port}"));
        let mut server = Self { sandbox, program, data, port, password: None, child: None };
        fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o777)).unwrap();
        let mut command = server.unprivileged(&initdb);
        command.args(arguments).args(["--no-sync", "--username=postgres", "--pgdata"]).arg(&server.data);
        Ran::of(&mut command).ok();
        server.start_again();
        Some(server)
    }

    /// PostgreSQL refuses to run as root.
    fn unprivileged(&self, program: &Path) -> Command {
        if !rustix::process::geteuid().is_root() {
            return self.sandbox.command(program);
        }
        let mut command = self.sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        command
    }

    /// Starts it where it has stopped, and waits until it is ready.
    pub(crate) fn start_again(&mut self) {
        let mut command = self.unprivileged(&self.program);
        command.arg("-D").arg(&self.data).args(["-c", "listen_addresses=localhost", "-c", "fsync=off", "-c"]);
        command.arg(format!("unix_socket_directories={}", self.sandbox.root().display()));
        command.args(["-p", &self.port.to_string()]);
        let path = self.sandbox.path(format!("postgres-{}.log", self.sandbox.number()));
        let log = File::create(&path).unwrap();
        self.child = Some(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
        let log = || fs::read_to_string(&path).unwrap();
        until("PostgreSQL is ready", log, |log| log.contains("ready to accept connections"));
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// "Fast shutdown" (postgres(1)): sessions are ended.
    pub(crate) fn stop(&mut self) {
        self.end(Signal::INT);
    }

    /// "Immediate shutdown" (postgres(1)): as a crash.
    pub(crate) fn crash(&mut self) {
        self.end(Signal::QUIT);
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut child) = self.child.take() else { return };
        let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
        if kill_process(pid, signal).is_ok() {
            drop(child.wait());
        }
    }

    /// psql, as the superuser.
    pub(crate) fn psql_command<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Command {
        let mut command = self.sandbox.command("psql");
        command.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "localhost", "-U", "postgres"]);
        command.args(["-p", &self.port.to_string()]).args(arguments);
        command.envs(self.password.as_ref().map(|password| ("PGPASSWORD", password)));
        command
    }

    /// What a statement in a database gives.
    #[track_caller]
    pub(crate) fn sql(&self, database: &str, sql: &str) -> String {
        Ran::of(&mut self.psql_command(["-d", database, "-c", sql])).ok().trim_end().to_owned()
    }

    /// The databases that are there beside those of every server, each with its comment.
    #[track_caller]
    pub(crate) fn databases(&self) -> Vec<(String, String)> {
        let sql =
            "SELECT datname || '|' || coalesce(shobj_description(oid, 'pg_database'), '') FROM pg_database
                   WHERE datname NOT IN ('postgres', 'template0', 'template1') ORDER BY datname";
        pairs(&self.sql("postgres", sql))
    }

    /// The schemas of a database that are there beside those of every database, each with its comment.
    #[track_caller]
    pub(crate) fn schemas(&self, database: &str) -> Vec<(String, String)> {
        let sql = "SELECT nspname || '|' || coalesce(obj_description(oid, 'pg_namespace'), '') FROM pg_namespace
                   WHERE nspname NOT LIKE 'pg\\_%' AND nspname NOT IN ('public', 'information_schema') ORDER BY nspname";
        pairs(&self.sql(database, sql))
    }
}

fn pairs(lines: &str) -> Vec<(String, String)> {
    let pair = |line: &str| line.split_once('|').map(|(name, comment)| (name.to_owned(), comment.to_owned()));
    lines.lines().filter_map(pair).collect()
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        self.end(Signal::QUIT);
    }
}
