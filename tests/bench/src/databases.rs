//! What a worktree with a copy of a template costs on a real PostgreSQL, beside `pg_dump | psql`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::Effort;
use crate::daemon::{Daemon, Programs, pause};
use crate::http::{ask_once, put_worktree};
use crate::report::{Report, Table};
use crate::repositories::{git, with_git};
use crate::samples::{Samples, Short};

const WHAT: &str = "a database as a copy of a template";

/// Whose the server is where this runs as root, which PostgreSQL refuses: the overflow user (`user_namespaces(7)`).
const NOBODY: &str = "65534";

/// How long a copy may take before something is taken to be broken.
const PATIENCE: Duration = Duration::from_mins(10);

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let Some(directory) = programs_of_postgresql() else {
        report.skipped(WHAT, "PostgreSQL is not installed");
        return Ok(());
    };
    let directory_of_run = scratch.join("databases");
    fs::create_dir_all(&directory_of_run)?;
    // The server may be another user's.
    fs::set_permissions(scratch, fs::Permissions::from_mode(0o711))?;
    let server = match Server::start(&directory, &directory_of_run) {
        Ok(server) => server,
        Err(why) => {
            report.skipped(WHAT, &format!("PostgreSQL does not start: {why:#}"));
            return Ok(());
        }
    };
    let size = server.fill("template", effort.choose(1024, 64))?;
    let rounds = effort.choose(3, 1);
    let mut worktrees = Ways::default();
    measure_worktrees(&mut worktrees, &server, programs, &directory_of_run, rounds)?;
    let (mut copies, mut dumps) = (Ways::default(), Ways::default());
    let strategy = if server.version()? >= 15 { " STRATEGY = FILE_COPY" } else { "" };
    for number in 0..rounds {
        let create = format!("CREATE DATABASE copy{number} TEMPLATE template{strategy}");
        copies.measure(&server, || server.sql("postgres", &create).map(drop))?;
        dumps.measure(&server, || server.dump_and_restore("template", &format!("dump{number}")))?;
    }
    tell(report, size, [worktrees, copies, dumps]);
    Ok(())
}

/// Worktrees of a project with a template, each timed until its database is there.
fn measure_worktrees(
    ways: &mut Ways,
    server: &Server,
    programs: &Programs,
    directory: &Path,
    rounds: usize,
) -> anyhow::Result<()> {
    let repository = directory.join("shop");
    with_git(&repository)?;
    let toml = format!(
        "[ports]\nDB_HOST_PORT = {}\n[database]\nmode = \"database\"\ntemplate = \"template\"\n",
        server.port
    );
    fs::write(repository.join("wtd.toml"), toml)?;
    let settings = [("PGHOST", "127.0.0.1"), ("PGUSER", "postgres"), ("WTD_PROBE", "false")];
    let daemon = Daemon::start(programs, &directory.join("state"), &settings)?;
    await_database(&daemon, &repository)?;
    for number in 0..rounds {
        let worktree = directory.join(format!("w{number}"));
        let mut add = git(&repository);
        add.args(["worktree", "add", "--quiet", "--detach"]).arg(&worktree);
        ways.measure(server, || {
            ensure!(add.status()?.success(), "git worktree add fails");
            await_database(&daemon, &worktree)
        })?;
    }
    daemon.stop()
}

/// Asks for a worktree until its database is there.
fn await_database(daemon: &Daemon, worktree: &Path) -> anyhow::Result<()> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let allocation = ask_once(&daemon.socket, &put_worktree(worktree)?)?;
        if allocation.get("database_made").and_then(Value::as_bool) == Some(true) {
            return Ok(());
        }
        pause(Duration::from_millis(2));
    }
    bail!("{}: its database is not made", worktree.display())
}

fn tell(report: &mut Report, size: u64, [mut worktrees, mut copies, mut dumps]: [Ways; 3]) {
    let slowest = dumps.times.median().as_secs_f64();
    let row = |name: &str, ways: &mut Ways| {
        let time = ways.times.median();
        let space = ways.bytes.iter().sum::<u64>() / ways.bytes.len().max(1) as u64;
        let ratio = format!("{:.2}", time.as_secs_f64() / slowest);
        vec![name.to_owned(), Short(time).to_string(), ratio, megabytes(space)]
    };
    let rows = vec![
        row("`git worktree add`, until the worktree's database is there", &mut worktrees),
        row("`CREATE DATABASE … TEMPLATE … STRATEGY = FILE_COPY` alone", &mut copies),
        row("`pg_dump template | psql`", &mut dumps),
    ];
    report.table(Table {
        title: format!("A copy of a database of {}", megabytes(size)),
        header: ["way", "median", "ratio to `pg_dump | psql`", "space on disk, with the write-ahead log"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    });
    report.remark(
        "Where the file system shares blocks (btrfs, XFS) and PostgreSQL is 18 or newer, a copy of a template takes neither \
         the time nor the space of its files.",
    );
}

fn megabytes(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}

/// What one way took, each time.
#[derive(Debug, Default)]
struct Ways {
    times: Samples,
    bytes: Vec<u64>,
}

impl Ways {
    fn measure(&mut self, server: &Server, run: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        server.sql("postgres", "CHECKPOINT")?;
        let before = server.used()?;
        let begin = Instant::now();
        run()?;
        self.times.push(begin.elapsed());
        self.bytes.push(server.used()?.saturating_sub(before));
        Ok(())
    }
}

/// The directory of `postgres` and its kin: where distributions put them, or that of the one on PATH.
fn programs_of_postgresql() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let on_path = std::env::split_paths(&path)
        .filter_map(|directory| Some(directory.join("postgres").canonicalize().ok()?.parent()?.to_owned()));
    let packaged = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut directories = on_path.chain(packaged.map(|entry| entry.path().join("bin")));
    let parts = ["postgres", "initdb", "psql", "pg_dump", "pg_isready"];
    directories.find(|directory| parts.iter().all(|part| directory.join(part).is_file()))
}

/// A server that runs until this is dropped.
#[derive(Debug)]
struct Server {
    programs: PathBuf,
    data: PathBuf,
    port: u16,
    child: Option<Child>,
}

impl Server {
    fn start(programs: &Path, directory: &Path) -> anyhow::Result<Self> {
        // It is free now; nobody else is expected to take it.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let data = directory.join("data");
        fs::create_dir(&data)?;
        let mut server = Self { programs: programs.to_owned(), data, port, child: None };
        if is_root()? {
            let owned = Command::new("chown").arg(NOBODY).arg(&server.data).status()?;
            ensure!(owned.success(), "its directory can't be given to another user");
        }
        let mut initdb = server.unprivileged("initdb")?;
        initdb.args(["--auth=trust", "--username=postgres", "--pgdata"]).arg(&server.data);
        let made = initdb.stdout(Stdio::null()).output().context("initdb")?;
        ensure!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr).trim());
        let mut postgres = server.unprivileged("postgres")?;
        postgres.arg("-D").arg(&server.data).args(["-p", &port.to_string()]);
        postgres.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        let log = File::create(directory.join("postgres.log"))?;
        server.child = Some(postgres.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn()?);
        let end = Instant::now() + Duration::from_secs(30);
        while !server.client("pg_isready", "postgres").stdout(Stdio::null()).status()?.success() {
            ensure!(Instant::now() < end, "see {}", directory.join("postgres.log").display());
            pause(Duration::from_millis(50));
        }
        Ok(server)
    }

    fn unprivileged(&self, program: &str) -> anyhow::Result<Command> {
        let program = self.programs.join(program);
        if !is_root()? {
            return Ok(Command::new(program));
        }
        let mut command = Command::new("setpriv");
        let id = [format!("--reuid={NOBODY}"), format!("--regid={NOBODY}")];
        command.args(id).args(["--clear-groups", "--"]).arg(program);
        Ok(command)
    }

    fn client(&self, program: &str, database: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-U", "postgres", "-d", database]);
        command.env_remove("PGOPTIONS").stdin(Stdio::null());
        command
    }

    fn sql(&self, database: &str, sql: &str) -> anyhow::Result<String> {
        let mut psql = self.client("psql", database);
        let output = psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql]).output()?;
        ensure!(output.status.success(), "psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn version(&self) -> anyhow::Result<u32> {
        let number: u32 = self.sql("postgres", "SHOW server_version_num")?.parse()?;
        Ok(number / 10_000)
    }

    /// A database of at least so many MiB, a third of them indexes; its size in bytes.
    fn fill(&self, database: &str, mebibytes: usize) -> anyhow::Result<u64> {
        self.sql("postgres", &format!("CREATE DATABASE {database}"))?;
        let table =
            "CREATE TABLE filler (id bigserial PRIMARY KEY, a uuid, b text); CREATE INDEX ON filler (a)";
        self.sql(database, table)?;
        loop {
            let more =
                "INSERT INTO filler (a, b) SELECT gen_random_uuid(), md5(n::text) || md5(random()::text)
                        FROM generate_series(1, 100000) n";
            self.sql(database, more)?;
            let size: u64 = self.sql(database, "SELECT pg_database_size(current_database())")?.parse()?;
            if size >= mebibytes as u64 * 1024 * 1024 {
                self.sql(database, "VACUUM ANALYZE")?;
                return Ok(size);
            }
        }
    }

    fn dump_and_restore(&self, from: &str, to: &str) -> anyhow::Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {to}"))?;
        let mut dump = self.client("pg_dump", from).stdout(Stdio::piped()).spawn()?;
        let text = dump.stdout.take().context("the dump")?;
        let mut psql = self.client("psql", to);
        psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1"]).stdin(text).stdout(Stdio::null());
        ensure!(psql.status()?.success() && dump.wait()?.success(), "pg_dump | psql fails");
        Ok(())
    }

    /// The space that its files take on the disk, in bytes.
    fn used(&self) -> anyhow::Result<u64> {
        let output = Command::new("du").args(["-s", "-B1"]).arg(&self.data).output()?;
        let text = String::from_utf8(output.stdout)?;
        Ok(text.split_whitespace().next().context("du")?.parse()?)
    }
}

fn is_root() -> anyhow::Result<bool> {
    let output = Command::new("id").arg("-u").output()?;
    Ok(output.stdout.trim_ascii() == b"0")
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // "Fast shutdown" (postgres(1)): its children end with it.
        let told = Command::new("kill").args(["-INT", &child.id().to_string()]).status();
        if told.is_ok_and(|status| status.success()) {
            drop(child.wait());
        }
    }
}
