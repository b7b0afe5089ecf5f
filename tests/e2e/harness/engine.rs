//! A real container engine: Debian's `dockerd`, private to the tests, without a registry or a network.
//!
//! [`shared`] is one for the whole test process. Tests run at once, so each names its volumes and containers after
//! something of its own; worktrees' volumes are named after offsets, so a test of them takes offsets of its own with
//! `step` and base ports, or an engine of its own with [`Engine::start`].
//!
//! Containers run the machine's own programs: [`Engine::run`] mounts `/usr` into an image that holds nothing but links to
//! it. A container's network is `none`, so ports are not published. [`Engine::with_network`] publishes them in a network
//! of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::Instant;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::wait::receive;
use super::{Answer, DEADLINE, Sandbox, http, require};

/// The image of containers that run.
const IMAGE: &str = "wtd-test-host";

/// An engine without a network, whose containers are small.
const ALONE: &str =
    "exec dockerd \"$@\" --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs";

/// An engine in a network namespace of its own, with whatever storage it likes best.
const WITH_NETWORK: &str = "exec unshare --net -- sh -c 'ip link set lo up && exec dockerd \"$@\"' sh \"$@\"";

/// Podman, which answers as Docker does.
const PODMAN: &str = "exec podman --root \"$4\" --runroot \"$6\" --storage-driver vfs --events-backend file \
    --cgroup-manager cgroupfs system service --time=0 \"$2\"";

/// An engine that is running.
pub(crate) struct Engine {
    /// Where it listens.
    socket: PathBuf,
    directory: PathBuf,
    /// A shell that ends dockerd when this process does, however it ends, and clears away what it made.
    _keeper: Child,
    _leash: ChildStdin,
}

/// The engine of this test process; none when the machine has no dockerd, which counts the test as skipped.
#[track_caller]
pub(crate) fn shared() -> Option<&'static Engine> {
    static SHARED: OnceLock<Engine> = OnceLock::new();
    is_possible().then(|| SHARED.get_or_init(|| Engine::begin(ALONE)))
}

/// Whether an engine can be started here.
pub(crate) fn is_possible() -> bool {
    let can = require::find("dockerd").is_some() && rustix::process::geteuid().is_root();
    require::part(can, "a container engine takes root and dockerd (docker.io)")
}

impl Engine {
    /// An engine of the caller's own, for what others must not feel.
    #[track_caller]
    pub(crate) fn start() -> Option<Self> {
        is_possible().then(|| Self::begin(ALONE))
    }

    /// An engine with a network that is neither the machine's nor another engine's: every port of it is free, and what
    /// connects to one has to go in with [`Engine::inside`].
    #[track_caller]
    pub(crate) fn with_network() -> Option<Self> {
        let can = ["unshare", "nsenter", "ip"].iter().all(|program| require::find(program).is_some());
        let can = is_possible() && require::part(can, "a network of its own takes util-linux and iproute2");
        can.then(|| Self::begin(WITH_NETWORK))
    }

    /// Podman, of the caller's own.
    #[track_caller]
    pub(crate) fn podman() -> Option<Self> {
        let can = require::find("podman").is_some() && rustix::process::geteuid().is_root();
        require::part(can, "Podman takes root and podman").then(|| Self::begin(PODMAN))
    }

    fn begin(how: &str) -> Self {
        let directory = TempDir::with_prefix_in("wtd-engine-", "/tmp").unwrap().keep();
        let socket = directory.join("docker.sock");
        let notify = directory.join("notify");
        let ready = UnixDatagram::bind(&notify).unwrap();
        ready.set_read_timeout(Some(DEADLINE)).unwrap();
        // The keeper reads its standard input until that ends, which is when this process does. What dockerd has mounted
        // goes before its files.
        let script = r#"
            cd "$1" || exit 1
            sh -c "$2" sh -H "unix://$1/docker.sock" --data-root "$1/root" --exec-root "$1/exec" --pidfile "$1/pid" \
                >log 2>&1 </dev/null &
            engine=$!
            while read -r _; do :; done
            kill "$engine"; wait "$engine"
            awk -v "below=$1/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | while read -r it; do
                umount -l "$it"
            done
            rm -rf --one-file-system "$1"
        "#;
        let mut keeper = Command::new("sh")
            .args(["-c", script, "engine"])
            .arg(&directory)
            .arg(how)
            .env("NOTIFY_SOCKET", &notify)
            // What ends the tests' process group must not end what clears up after them.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let leash = keeper.stdin.take().unwrap();
        let mut message = [0; 256];
        let end = Instant::now() + DEADLINE;
        // It tells systemd when its API answers (sd_notify(3)).
        loop {
            let length = receive(&ready, &mut message).unwrap_or_else(|error| {
                let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
                panic!("dockerd did not start: {error}\n{log}")
            });
            if message[..length].split(|byte| *byte == b'\n').any(|line| line == b"READY=1") {
                break;
            }
            assert!(Instant::now() < end, "dockerd did not say that it is ready");
        }
        let engine = Self { socket, directory, _keeper: keeper, _leash: leash };
        engine.import_image();
        engine
    }

    /// An image whose `/bin` and `/lib` lead to where `/usr` will be mounted.
    fn import_image(&self) {
        let tree = self.directory.join("image");
        fs::create_dir_all(tree.join("usr")).unwrap();
        for name in ["bin", "lib", "lib64", "sbin"] {
            std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name)).unwrap();
        }
        let tar = Command::new("tar").arg("-C").arg(&tree).args(["-c", "."]).output().unwrap();
        let head = format!(
            "POST /images/create?fromSrc=-&repo={IMAGE} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\
             Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
            tar.stdout.len()
        );
        let answer = http::raw(&self.socket, &[head.as_bytes(), &tar.stdout].concat()).unwrap();
        assert_eq!(http::parse(&answer).unwrap().status, 200, "{}", String::from_utf8_lossy(&answer));
    }

    /// A command that runs in the engine's network, where its containers' ports are published.
    pub(crate) fn inside(&self, sandbox: &Sandbox, program: impl AsRef<OsStr>) -> Command {
        let pid = fs::read_to_string(self.directory.join("pid")).unwrap();
        let mut command = sandbox.command("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", pid.trim())).arg("--").arg(program);
        command.env("DOCKER_HOST", self.host());
        command
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Its address, as `DOCKER_HOST` has it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// One request of the Engine API, and its answer.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        http::exchange(&self.socket, method, target, body)
            .unwrap_or_else(|error| panic!("{method} {target}: {error}"))
    }

    /// As [`Engine::ask`], of what has to succeed.
    #[track_caller]
    pub(crate) fn done(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let answer = self.ask(method, target, body);
        let text = String::from_utf8_lossy(&answer.body).into_owned();
        assert!((200..400).contains(&answer.status), "{method} {target}: {} {text}", answer.status);
        answer
    }

    /// Lets a group use it, as packages do with the group `docker`.
    #[track_caller]
    pub(crate) fn lend_to_group(&self, group: u32) {
        std::os::unix::fs::chown(&self.socket, None, Some(group)).unwrap();
        fs::set_permissions(&self.socket, PermissionsExt::from_mode(0o660)).unwrap();
    }

    /// Makes a volume.
    #[track_caller]
    pub(crate) fn volume(&self, name: &str, labels: &[(&str, &str)]) {
        self.volume_of(
            &json!({ "Name": name, "Labels": labels.iter().copied().collect::<BTreeMap<_, _>>() }),
        );
    }

    /// Makes a volume as the API takes it.
    #[track_caller]
    pub(crate) fn volume_of(&self, body: &Value) {
        self.done("POST", "/volumes/create", Some(body));
    }

    /// A volume as Compose makes it.
    #[track_caller]
    pub(crate) fn compose_volume(&self, project: &str, short: &str, name: &str) {
        self.volume(name, &[("com.docker.compose.project", project), ("com.docker.compose.volume", short)]);
    }

    /// The names of all volumes.
    #[track_caller]
    pub(crate) fn volumes(&self) -> BTreeSet<String> {
        let listed = self.done("GET", "/volumes", None).json();
        let volumes = listed["Volumes"].as_array().cloned().unwrap_or_default();
        volumes.iter().map(|volume| volume["Name"].as_str().unwrap().to_owned()).collect()
    }

    /// A volume as the engine shows it; none when there is none.
    pub(crate) fn inspect(&self, volume: &str) -> Option<Value> {
        let answer = self.ask("GET", &format!("/volumes/{volume}"), None);
        (answer.status == 200).then(|| answer.json())
    }

    /// The directory with a volume's content.
    #[track_caller]
    pub(crate) fn content(&self, volume: &str) -> PathBuf {
        self.inspect(volume).unwrap()["Mountpoint"].as_str().unwrap().into()
    }

    #[track_caller]
    pub(crate) fn remove_volume(&self, name: &str) {
        self.done("DELETE", &format!("/volumes/{name}"), None);
    }

    /// Makes a container that sleeps, with volumes at `/<name>`; it does not run yet. Gives its id.
    #[track_caller]
    pub(crate) fn create(&self, name: &str, volumes: &[&str], labels: &[(&str, &str)]) -> String {
        let binds = volumes.iter().map(|volume| format!("{volume}:/{volume}"));
        // Podman would raise limits that it may not raise everywhere.
        let limits = ["nofile", "nproc"].map(|name| json!({ "Name": name, "Soft": 1024, "Hard": 1024 }));
        let body = json!({
            "Image": IMAGE,
            "Cmd": ["/bin/sleep", "1000000"],
            "Labels": labels.iter().copied().collect::<BTreeMap<_, _>>(),
            "HostConfig": {
                "NetworkMode": "none",
                "Ulimits": limits,
                "Binds": binds.chain(["/usr:/usr:ro".to_owned()]).collect::<Vec<_>>(),
            },
        });
        let answer = self.done("POST", &format!("/containers/create?name={name}"), Some(&body)).json();
        answer["Id"].as_str().unwrap().to_owned()
    }

    /// As [`Engine::create`], and runs it.
    #[track_caller]
    pub(crate) fn run(&self, name: &str, volumes: &[&str], labels: &[(&str, &str)]) -> String {
        let id = self.create(name, volumes, labels);
        self.done("POST", &format!("/containers/{id}/start"), None);
        id
    }

    /// The labels of a container that Compose starts in `directory`.
    pub(crate) fn stack<'a>(project: &'a str, directory: &'a str) -> [(&'a str, &'a str); 3] {
        [
            ("com.docker.compose.project", project),
            ("com.docker.compose.project.working_dir", directory),
            ("com.docker.compose.service", "db"),
        ]
    }

    /// Kills a container's process; the container stays.
    #[track_caller]
    pub(crate) fn kill(&self, container: &str) {
        self.done("POST", &format!("/containers/{container}/stop?t=0"), None);
    }

    /// Removes a container, running or not, with its volumes left.
    #[track_caller]
    pub(crate) fn remove(&self, container: &str) {
        self.done("DELETE", &format!("/containers/{container}?force=1"), None);
    }

    /// The ids of the containers through which daemons of this sandbox do something with volumes.
    #[track_caller]
    pub(crate) fn helpers(&self, sandbox: &Sandbox) -> Vec<String> {
        let owner = wtd::gc::owner_of(&sandbox.registry());
        let listed = self.done("GET", "/containers/json?all=1", None).json();
        let is_ours = |it: &&Value| {
            it["Labels"]["dev.wtd.helper"].as_str().is_some_and(|label| label.starts_with(&owner))
        };
        let ours = listed.as_array().unwrap().iter().filter(is_ours);
        ours.map(|it| it["Id"].as_str().unwrap().to_owned()).collect()
    }

    /// The names of all containers.
    #[track_caller]
    pub(crate) fn containers(&self) -> BTreeSet<String> {
        let listed = self.done("GET", "/containers/json?all=1", None).json();
        let names = listed.as_array().unwrap().iter();
        names.map(|it| it["Names"][0].as_str().unwrap().trim_start_matches('/').to_owned()).collect()
    }
}
