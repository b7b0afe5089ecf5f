//! A real PostgreSQL on the port that everybody uses.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use crate::harness::{Ran, Sandbox, free_port, require, until};

const PORT: u16 = 5432;

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

/// A server that ends with the test.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // SIGINT is "fast shutdown" (postgres(1)): its children end with it.
        let pid = rustix::process::Pid::from_raw(self.0.id().try_into().unwrap()).unwrap();
        if rustix::process::kill_process(pid, rustix::process::Signal::INT).is_ok() {
            drop(self.0.wait());
        }
    }
}

#[test]
fn a_postgresql_on_5432_moves_the_next_worktree_and_list_says_why() {
    let found = programs();
    let is_root = rustix::process::geteuid().is_root();
    if !require::part(found.is_some(), "postgres and initdb are not installed")
        || !require::unprivileged()
        || !require::part(free_port(PORT), "something listens on 5432 already")
    {
        return;
    }
    let (postgres, initdb) = found.unwrap();
    let sandbox = Sandbox::with_config("engine = \"none\"\nprobe = true\n");
    let data = sandbox.path("data");
    // PostgreSQL refuses to run as root.
    let unprivileged = |program: &PathBuf| -> Command {
        if !is_root {
            return sandbox.command(program);
        }
        let mut command = sandbox.command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
        command
    };
    fs::set_permissions(sandbox.root(), fs::Permissions::from_mode(0o777)).unwrap();
    let mut command = unprivileged(&initdb);
    Ran::of(command.args(["--auth=trust", "--no-sync", "--username=postgres", "--pgdata"]).arg(&data)).ok();
    let mut command = unprivileged(&postgres);
    command.arg("-D").arg(&data).args(["-c", "listen_addresses=localhost", "-c", "fsync=off", "-c"]);
    command
        .arg(format!("unix_socket_directories={}", sandbox.root().display()))
        .args(["-p", &PORT.to_string()]);
    let log = fs::File::create(sandbox.path("postgres.log")).unwrap();
    let server = Server(command.stdout(Stdio::null()).stderr(log).spawn().unwrap());
    let log = || fs::read_to_string(sandbox.path("postgres.log")).unwrap();
    until("PostgreSQL is ready", log, |log| log.contains("ready to accept connections"));

    let daemon = sandbox.daemon();
    let repo = sandbox.repo("app");
    daemon.put(&repo.path);
    let row = daemon.await_agreement(&repo).at(&repo.path).clone();
    assert_ne!(row.offset, 0);
    let why = serde_json::to_string(&row.passed_over).unwrap();
    assert!(
        why.contains("5432") && why.contains("postgres") && why.contains(&format!("pid {}", server.0.id())),
        "{why}"
    );
    let table = sandbox.client(["list"]).ok();
    assert!(table.contains("5432") && table.contains("postgres"), "{table}");
    let doctor = sandbox.client(["doctor"]).text();
    assert!(doctor.contains("5432") && doctor.contains("postgres"), "{doctor}");

    drop(server);
    let one = repo.add("one");
    let rows = daemon.await_agreement(&repo);
    assert_eq!(rows.at(&one).offset, 0, "once it is gone, offset 0 is to be had");
    assert_eq!(rows.at(&repo.path).offset, row.offset);
}
