//! Containers with real services: PostgreSQL, Redis and Python from Debian, in images that go by the names which Compose
//! files of users have, so that those run as they are and nothing is pulled.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, MutexGuard};

use serde_json::{Value, json};

use super::engine::Engine;
use super::{Ran, Sandbox, require};

/// What `scripts/service-image` makes, below cargo's target directory.
const TREE: &str = concat!(env!("CARGO_TARGET_TMPDIR"), "/../images/services.tar");

/// Does what the entry point of the official image does: makes a cluster where there is none, for `POSTGRES_USER` and
/// `POSTGRES_DB`, runs the scripts, and starts the server as its own user.
const DATABASE: &str = r#"
    set -euo pipefail
    as() { setpriv --reuid=postgres --regid=postgres --init-groups -- "$@"; }
    mkdir -p "$PGDATA" /run/postgresql
    chown postgres: "$PGDATA" /run/postgresql
    chmod 700 "$PGDATA"
    if [[ ! -s $PGDATA/PG_VERSION ]]; then
        install -m 600 -o postgres <(printf %s "$POSTGRES_PASSWORD") /run/password
        as initdb --no-sync --username="$POSTGRES_USER" --pwfile=/run/password
        echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
        as pg_ctl -w -o '-c listen_addresses=' start
        [[ $POSTGRES_DB == postgres ]] || as createdb --username="$POSTGRES_USER" -- "$POSTGRES_DB"
        for file in /docker-entrypoint-initdb.d/*.sql; do
            [[ ! -f $file ]] || as psql -X -q -v ON_ERROR_STOP=1 -U "$POSTGRES_USER" -d "$POSTGRES_DB" -f "$file"
        done
        as pg_ctl -m fast -w stop
    fi
    exec setpriv --reuid=postgres --regid=postgres --init-groups -- postgres -c 'listen_addresses=*' "$@"
"#;

/// The engine with these images, for one test at a time: what others have left is gone.
pub(crate) struct Services {
    engine: &'static Engine,
    _turn: MutexGuard<'static, ()>,
}

/// The engine with services; none when the machine lacks something for it, which counts the test as skipped.
#[track_caller]
pub(crate) fn services() -> Option<Services> {
    static TURN: Mutex<()> = Mutex::new(());
    static ENGINE: std::sync::OnceLock<Option<Engine>> = std::sync::OnceLock::new();
    let why = "services in containers take what scripts/service-image makes";
    if !require::part(Path::new(TREE).exists(), why) || !require::compose() {
        return None;
    }
    // A test that failed has left nothing that the next one can't clear away.
    let turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let engine = ENGINE.get_or_init(|| Engine::with_network().inspect(import)).as_ref()?;
    let services = Services { engine, _turn: turn };
    services.clear();
    Some(services)
}

/// Gives the tree the names of the images that are meant.
fn import(engine: &Engine) {
    let docker = |arguments: &[&str]| {
        Ran::of(std::process::Command::new("docker").env("DOCKER_HOST", engine.host()).args(arguments)).ok()
    };
    docker(&["import", TREE, "wtd-services"]);
    let body = json!({ "Image": "wtd-services", "Cmd": ["true"] });
    let made = engine.done("POST", "/containers/create?name=wtd-services", Some(&body)).json();
    let id = made["Id"].as_str().unwrap().to_owned();
    let name = |repo: &str, tag: &str, configuration: Value| {
        let target = format!("/commit?container={id}&repo={repo}&tag={tag}");
        engine.done("POST", &target, Some(&configuration));
    };
    let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    let servers = Ran::of(std::process::Command::new("tar").args([
        "-tf",
        TREE,
        "--wildcards",
        "./usr/lib/postgresql/*/bin/",
    ]));
    let servers = servers.ok();
    let programs = servers.lines().next().unwrap().trim_start_matches('.').trim_end_matches('/');
    let database = json!({
        "Entrypoint": ["bash", "-c", DATABASE, "database"],
        "Cmd": [],
        "Env": [format!("PATH={programs}:{path}"), "PGDATA=/var/lib/postgresql/data"],
        "StopSignal": "SIGINT",
        "Volumes": { "/var/lib/postgresql/data": {} },
    });
    name("timescale/timescaledb", "2.17.2-pg17", database.clone());
    name("postgres", "17", database);
    name("python", "3.13-alpine", json!({ "Cmd": ["python3"], "Env": [format!("PATH={path}")] }));
    let redis = ["redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--dir", "/data"];
    name(
        "redis",
        "7.4-alpine",
        json!({ "Cmd": redis, "Env": [format!("PATH={path}")], "WorkingDir": "/data" }),
    );
    engine.remove(&id);
}

impl std::ops::Deref for Services {
    type Target = Engine;

    fn deref(&self) -> &Engine {
        self.engine
    }
}

impl Services {
    fn clear(&self) {
        for container in self.containers() {
            self.remove(&container);
        }
        for volume in self.volumes() {
            self.remove_volume(&volume);
        }
        self.done("POST", "/networks/prune", None);
    }

    /// A sandbox whose daemon uses this engine, and asks who listens in its network.
    pub(crate) fn sandbox(&self) -> Sandbox {
        Sandbox::with_config(&format!("engine = \"{}\"\n", self.host()))
    }

    /// Starts the daemon in the engine's network, where its containers' ports are.
    #[track_caller]
    pub(crate) fn daemon<'s>(&self, sandbox: &'s Sandbox) -> super::Daemon<'s> {
        super::Daemon::start_command(sandbox, self.inside(sandbox, Sandbox::program("wtd")))
    }

    /// Runs programs at once, each in a directory; all have to succeed.
    #[track_caller]
    pub(crate) fn all(&self, sandbox: &Sandbox, directories: &[&PathBuf], words: &[&str]) {
        let children: Vec<_> = directories
            .iter()
            .map(|directory| {
                let (program, arguments) = words.split_first().unwrap();
                let mut command = self.inside(sandbox, program);
                command.args(arguments).current_dir(directory);
                command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
            })
            .collect();
        for child in children {
            let output = child.wait_with_output().unwrap();
            let (stdout, stderr) =
                (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
            assert!(output.status.success(), "{words:?}: {}\n{stdout}{stderr}", output.status);
        }
    }

    /// What a statement gives in the database of the server that is published on `port`.
    #[track_caller]
    pub(crate) fn sql(&self, sandbox: &Sandbox, port: u16, database: &str, sql: &str) -> String {
        let mut psql = self.inside(sandbox, "psql");
        psql.args(["-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", "agents"]);
        psql.args(["-p", &port.to_string(), "-d", database, "-c", sql]).env("PGPASSWORD", "agents");
        Ran::of(&mut psql).ok().trim_end().to_owned()
    }

    /// What comes back from a published port when this is sent to it.
    #[track_caller]
    pub(crate) fn says(&self, sandbox: &Sandbox, port: u16, bytes: &str) -> String {
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && cat >&3 && cat <&3");
        let mut bash = self.inside(sandbox, "bash");
        let mut child =
            bash.args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(bytes.as_bytes()).unwrap();
        let mut answer = String::new();
        child.stdout.take().unwrap().read_to_string(&mut answer).unwrap();
        assert!(child.wait().unwrap().success(), "port {port} does not answer");
        answer
    }

    /// The host ports that running containers publish, by the working directory of their Compose project.
    #[track_caller]
    pub(crate) fn published(&self) -> BTreeMap<PathBuf, BTreeSet<u16>> {
        let mut published = BTreeMap::<PathBuf, BTreeSet<u16>>::new();
        for container in self.done("GET", "/containers/json", None).json().as_array().unwrap() {
            let directory = container["Labels"]["com.docker.compose.project.working_dir"].as_str().unwrap();
            let ports = container["Ports"].as_array().unwrap().iter();
            let ports = ports.filter_map(|port| u16::try_from(port["PublicPort"].as_u64()?).ok());
            published.entry(directory.into()).or_default().extend(ports);
        }
        published
    }
}
