//! `wtd-client compose`: a project that reads no variables, isolated without a change to its files. What comes out is
//! read by the real `docker compose config`; that needs no container engine.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::harness::{Daemon, Ran, Repo, Sandbox, require, until};

/// A project as Compose reads it.
struct Project(Value);

impl Project {
    /// With the variables that the worktree has now, every profile included.
    #[track_caller]
    fn of(sandbox: &Sandbox, worktree: &Path) -> Self {
        let words = ["exec", "--", "docker", "compose", "--profile", "*", "config", "--format", "json"];
        Self(serde_json::from_str(&sandbox.client_in(worktree, words).ok()).unwrap())
    }

    fn at(&self, section: &str) -> BTreeMap<String, Value> {
        let section = self.0[section].as_object().cloned().unwrap_or_default();
        section.into_iter().collect()
    }

    fn name(&self) -> &str {
        self.0["name"].as_str().unwrap()
    }

    /// Every published port: service, container port, protocol, address, and the first and last host port.
    fn ports(&self) -> Vec<(String, String, u32, u32)> {
        let mut ports = Vec::new();
        for (service, configured) in self.at("services") {
            for port in configured["ports"].as_array().into_iter().flatten() {
                let Some(published) = port["published"].as_str().filter(|text| !text.is_empty()) else {
                    continue;
                };
                let (first, last) = published.split_once('-').unwrap_or((published, published));
                let what = format!("{service} {} {} {}", port["target"], port["protocol"], port["host_ip"]);
                ports.push((what, service.clone(), first.parse().unwrap(), last.parse().unwrap()));
            }
        }
        ports
    }

    fn host_ports(&self) -> BTreeSet<u32> {
        self.ports().iter().flat_map(|(_, _, first, last)| *first..=*last).collect()
    }

    /// Names of volumes that Compose would make.
    fn volumes(&self) -> BTreeSet<String> {
        let own = self.at("volumes").into_values().filter(|volume| volume["external"] != true);
        own.map(|volume| volume["name"].as_str().unwrap().to_owned()).collect()
    }

    fn containers(&self) -> BTreeSet<String> {
        let name = |(service, configured): (String, Value)| {
            let fixed = configured["container_name"].as_str().map(str::to_owned);
            fixed.unwrap_or_else(|| format!("{}-{service}-1", self.name()))
        };
        self.at("services").into_iter().map(name).collect()
    }

    fn networks(&self) -> BTreeSet<String> {
        let own = self.at("networks").into_values().filter(|network| network["external"] != true);
        own.map(|network| network["name"].as_str().unwrap().to_owned()).collect()
    }

    fn subnets(&self) -> BTreeSet<String> {
        let networks = self.at("networks").into_values().filter(|network| network["driver"] != "macvlan");
        let configs =
            networks.flat_map(|network| network["ipam"]["config"].as_array().cloned().unwrap_or_default());
        configs.map(|config| config["subnet"].to_string()).collect()
    }
}

/// A repository that holds one of the projects in `compose_files`, with a linked worktree at offset 10000.
struct Case<'s> {
    sandbox: &'s Sandbox,
    main: PathBuf,
    linked: PathBuf,
}

impl<'s> Case<'s> {
    fn new(sandbox: &'s Sandbox, daemon: &Daemon<'s>, kind: &str) -> Self {
        let repo = repo_of(sandbox, kind);
        let linked = with_linked(daemon, &repo);
        Self { sandbox, main: repo.path, linked }
    }

    /// Has the override written; gives what was said beside it.
    #[track_caller]
    fn write(&self, worktree: &Path) -> String {
        let ran = self.sandbox.client_in(worktree, ["compose", "--write"]);
        ran.ok();
        assert!(ran.stderr.lines().all(|line| line.starts_with("wtd-client: compose: ")), "{ran:#?}");
        ran.stderr
    }
}

/// A repository that holds one of the projects in `compose_files`.
pub(crate) fn repo_of<'s>(sandbox: &'s Sandbox, kind: &str) -> Repo<'s> {
    let repo = sandbox.repo("shop");
    let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/compose_files").join(kind);
    Ran::of(sandbox.command("cp").arg("-r").arg(format!("{}/.", files.display())).arg(&repo.path)).ok();
    repo
}

/// Commits what is there, and adds a linked worktree.
pub(crate) fn with_linked(daemon: &Daemon<'_>, repo: &Repo<'_>) -> PathBuf {
    repo.git(["add", "--all", "--force"]);
    repo.git(["commit", "-q", "-m", "second"]);
    daemon.put(&repo.path);
    let linked = repo.add("linked");
    assert_eq!(daemon.put(&linked)["offset"], 10_000);
    linked
}

/// A sandbox with one Compose file in a repository; gives the worktrees and what `work` needs.
fn with_file(text: &str, work: impl FnOnce(&Sandbox, &Daemon<'_>, &Repo<'_>, &Path)) {
    with_files(text, &[], work);
}

/// The same with further files, by their paths in the repository.
pub(crate) fn with_files(
    text: &str,
    further: &[(&str, &str)],
    work: impl FnOnce(&Sandbox, &Daemon<'_>, &Repo<'_>, &Path),
) {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("shop");
    for (name, text) in further.iter().chain([&("compose.yaml", text)]) {
        let file = repo.path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, text).unwrap();
    }
    let linked = with_linked(&daemon, &repo);
    work(&sandbox, &daemon, &repo, &linked);
}

/// No two worktrees share a host port, a volume, a container's name, a network or a subnet; and nothing else of the
/// project is another.
fn isolates(kind: &str) {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let case = Case::new(&sandbox, &daemon, kind);
    let plain = Project::of(&sandbox, &case.main);
    let printed = case.sandbox.client_in(&case.linked, ["compose"]).ok();
    assert_eq!(printed, case.sandbox.client_in(&case.linked, ["compose"]).ok(), "the same each time");
    let notes = case.write(&case.main) + &case.write(&case.linked);
    let git_dir = Repo::at(&sandbox, &case.main).git_dir(&case.linked);
    assert_eq!(fs::read_to_string(git_dir.join("wtd.compose.yaml")).unwrap(), printed);

    let (main, linked) = (Project::of(&sandbox, &case.main), Project::of(&sandbox, &case.linked));
    let disjoint = |what: &str, one: BTreeSet<String>, other: BTreeSet<String>| {
        assert!(one.is_disjoint(&other), "{what}: {one:?} {other:?}\n{printed}");
    };
    let own = |project: &Project| {
        project.volumes().into_iter().filter(|name| !SHARED.contains(&name.as_str())).collect::<BTreeSet<_>>()
    };
    disjoint("volumes", own(&main), own(&linked));
    disjoint("containers", main.containers(), linked.containers());
    disjoint("networks", main.networks(), linked.networks());
    disjoint("subnets", main.subnets(), linked.subnets());
    assert!(main.host_ports().is_disjoint(&linked.host_ports()), "{printed}");
    assert!(plain.host_ports().is_disjoint(&linked.host_ports()), "{printed}");

    // Every port is there still, moved by the offset; and a main worktree's stack keeps its own.
    assert_eq!(main.ports(), plain.ports());
    let moved: Vec<_> = plain
        .ports()
        .into_iter()
        .map(|(what, service, a, b)| (what, service, a + 10_000, b + 10_000))
        .collect();
    assert_eq!(linked.ports(), moved, "{printed}");
    assert_eq!(main.name(), plain.name());
    assert_eq!(linked.name(), "shop-10000");
    for (section, keys) in [("services", true), ("volumes", true), ("networks", true), ("configs", false)] {
        let names = |project: &Project| project.at(section).into_keys().collect::<Vec<_>>();
        assert_eq!(names(&main), names(&linked));
        assert!(!keys || names(&plain) == names(&main), "{section}");
    }
    // What is a worktree's own says whose it is, or is named by the worktree's own variables.
    let answer = daemon.put(&case.linked);
    let is_variable = |name: &str| {
        name.starts_with("shop-10000-")
            || answer["variables"].as_object().unwrap().values().any(|value| value == name)
    };
    for (key, volume) in linked.at("volumes").iter().filter(|(_, volume)| volume["external"] != true) {
        let name = volume["name"].as_str().unwrap();
        let is_named = name.ends_with("_10000") && volume["labels"]["dev.wtd.allocation"] == answer["id"];
        assert!(is_named || is_variable(name) || SHARED.contains(&name), "{key}: {volume} {notes}");
    }
}

/// Volumes that `wtd.toml` declares to be shared, by the names that they have.
const SHARED: [&str; 3] = ["all-models", "shop_redis_data", "shop_pip_cache"];

macro_rules! isolated {
    ($($kind:ident)*) => {$(
        mod $kind {
            #[test]
            fn is_isolated_without_a_change_to_its_files() {
                super::isolates(stringify!($kind));
            }

            #[test]
            fn is_declared_so_that_the_daemon_has_nothing_to_complain_of() {
                crate::init::declares(stringify!($kind));
            }
        }
    )*

    #[test]
    fn every_project_is_tested() {
        let listed = BTreeSet::from([$(stringify!($kind).to_owned()),*]);
        let files = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/compose_files");
        let found = fs::read_dir(files).unwrap();
        let found: BTreeSet<_> = found.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        assert_eq!(listed, found);
        assert!(listed.len() >= 30);
    }
    };
}

// Projects of different kinds, in the shape that public ones have.
isolated! {
    backend_as_a_service content_management development_container development_override document_database
    error_tracker file_transfer game_server home_automation identity_provider inventory
    language_model_platform lan_resolver ledger_testnet mail_server message_broker microservices monitoring
    monorepo network_storage notebooks object_storage photo_library required_variables reverse_proxy
    ruby_application scaled_workers search_cluster shop_with_shared_cache swarm_application task_scheduler
    turn_server variables_of_its_own variables_of_wtd video_conference vpn_gateway web_database workflow_engine
}

#[test]
fn what_an_override_cannot_isolate_is_told() {
    if !require::compose() {
        return;
    }
    for (kind, expected) in [
        ("home_automation", &["service hub can't be isolated", "network_mode host"][..]),
        ("reverse_proxy", &["network proxy is external"]),
        ("lan_resolver", &["network lan can't be isolated: its driver is macvlan"]),
        ("ledger_testnet", &["192.167.10.0/16", "node0 (192.167.10.2), node1 (192.167.10.3)"]),
        (
            "network_storage",
            &["volume media can't be isolated", "/srv/cache", "service app can write to /srv/shared"],
        ),
        ("microservices", &["images of services basket-api, identity-api"]),
        ("web_database", &["shop-10000_db_data (now db_data_10000)"]),
        ("shop_with_shared_cache", &["volume redis_data is shared: it is shop_redis_data"]),
    ] {
        let sandbox = Sandbox::new();
        let daemon = sandbox.daemon();
        let case = Case::new(&sandbox, &daemon, kind);
        let notes = case.write(&case.linked);
        for words in expected {
            assert!(notes.contains(words), "{kind}: {words}: {notes}");
        }
        let again = case.write(&case.linked);
        assert!(!again.contains("stays there"), "data that is left behind is told of once: {again}");
    }
}

#[test]
fn a_main_worktrees_volumes_are_named_and_labelled_and_the_ones_before_are_told() {
    with_file(
        "services: {db: {image: x, container_name: db, ports: ['5432:5432'], volumes: ['db_data:/d']}}\nvolumes: {db_data: }\n",
        |sandbox, daemon, repo, _| {
            let ran = sandbox.client_in(&repo.path, ["compose", "--write"]);
            ran.ok();
            assert!(ran.stderr.contains("shop_db_data (now db_data_0)"), "{}", ran.stderr);
            let project = Project::of(sandbox, &repo.path);
            let volume = &project.0["volumes"]["db_data"];
            assert_eq!(volume["name"], daemon.put(&repo.path)["variables"]["DB_VOLUME"]);
            assert_eq!(volume["labels"]["dev.wtd.allocation"], daemon.put(&repo.path)["id"]);
            assert_eq!(project.name(), "shop", "the stack keeps the name that Compose gives it");
            assert_eq!(project.0["services"]["db"]["container_name"], "db");
            assert_eq!(project.host_ports(), BTreeSet::from([5432]));
        },
    );
}

#[test]
fn shared_volumes_are_the_main_worktrees() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("My.Shop");
    let text = "services: {x: {image: x, volumes: ['cache:/c', 'fixed:/f']}}\nvolumes: {cache: , fixed: {name: all}}\n";
    fs::write(repo.path.join("compose.yaml"), text).unwrap();
    fs::write(repo.path.join("wtd.toml"), "shared = [\"cache\", \"fixed\", \"typo\"]\n").unwrap();
    let linked = with_linked(&daemon, &repo);
    let main = sandbox.client_in(&repo.path, ["compose"]);
    assert!(!main.ok().contains("cache"), "left alone: {main:#?}");
    assert!(main.stderr.contains("typo"), "{}", main.stderr);
    sandbox.client_in(&linked, ["compose", "--write"]).ok();
    let (main, linked) = (Project::of(&sandbox, &repo.path), Project::of(&sandbox, &linked));
    assert_eq!(main.0["volumes"]["cache"]["name"], "myshop_cache");
    assert_eq!(linked.0["volumes"]["cache"]["name"], "myshop_cache");
    assert_eq!(linked.0["volumes"]["cache"]["external"], true, "so gc takes it for nobody's left-over");
    assert_eq!(linked.0["volumes"]["fixed"]["name"], "all");
}

#[test]
fn a_server_that_worktrees_share_stays_in_the_main_one() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let first = sandbox.repo("first");
    daemon.put(&first.path);
    let repo = sandbox.repo("shop");
    let text = "services: {db: {image: x, ports: ['${DB_HOST_PORT:-5433}:5432', '8080:80'], volumes: ['db_data:/d']}}\nvolumes: {db_data: }\n";
    fs::write(repo.path.join("compose.yaml"), text).unwrap();
    fs::write(repo.path.join("wtd.toml"), "database.mode = \"shared\"\nports.DB_HOST_PORT = 5433\n").unwrap();
    repo.git(["add", "--all"]);
    repo.git(["commit", "-q", "-m", "second"]);
    assert_eq!(daemon.put(&repo.path)["offset"], 10_000);
    let linked = repo.add("linked");
    for path in [&repo.path, &linked] {
        sandbox.client_in(path, ["compose", "--write"]).ok();
    }
    let (main, linked) = (Project::of(&sandbox, &repo.path), Project::of(&sandbox, &linked));
    assert_eq!(main.host_ports(), BTreeSet::from([5433, 18_080]));
    assert_eq!(linked.host_ports(), BTreeSet::from([25_433, 28_080]), "another server beside it");
    assert_eq!(main.volumes(), BTreeSet::from(["shop_db_data".to_owned()]));
    assert_eq!(linked.volumes(), BTreeSet::from(["db_data_20000".to_owned()]), "never on the same data");
}

#[test]
fn a_port_that_cannot_be_had_is_an_error_that_names_service_and_port() {
    let text =
        "services: {turn: {image: x, ports: ['60000-60010:1-11/udp']}, web: {image: x, ports: ['80:80']}}\n";
    with_file(text, |sandbox, _, repo, linked| {
        let line = sandbox.client_in(linked, ["compose"]).fails(1);
        assert!(line.contains("turn") && line.contains("port 60000") && line.contains("65535"), "{line}");
        let line = sandbox.client_in(linked, ["compose", "--write"]).fails(1);
        assert!(line.contains("turn"), "{line}");
        assert!(!repo.git_dir(linked).join("wtd.compose.yaml").exists());
    });
    // Taken by another allocation: declared, published there, or published by the main worktree as it is.
    let text = "services: {web: {image: x, ports: ['8080:80']}, admin: {image: x, ports: ['18080:80']}}\n";
    with_file(text, |sandbox, daemon, repo, linked| {
        let line = sandbox.client_in(linked, ["compose", "--write"]).fails(1);
        assert!(line.contains("service web: port 18080") && line.contains("service admin"), "{line}");
        fs::write(linked.join("compose.yaml"), "services: {web: {image: x, ports: ['8080:80']}}\n").unwrap();
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        let line = sandbox.client_in(&repo.path, ["compose", "--write"]).fails(1);
        assert!(line.contains("service admin: port 18080") && line.contains("10000"), "{line}");

        let other = sandbox.repo("other");
        fs::write(other.path.join("wtd.toml"), "[ports]\nWEB_PORT = 1080\n").unwrap();
        assert_eq!(
            daemon.put(&other.path)["ports"]["WEB_PORT"],
            21_080,
            "18080 is published at offset 10000"
        );
        fs::write(linked.join("compose.yaml"), "services: {web: {image: x, ports: ['11080:80']}}\n").unwrap();
        let line = sandbox.client_in(linked, ["compose"]).fails(1);
        assert!(line.contains("service web: port 21080") && line.contains("WEB_PORT"), "{line}");
    });
}

#[test]
fn ports_that_lie_an_offset_apart_go_together_once_they_are_declared() {
    let text = "services: {queue: {image: x, ports: ['5672:5672', '15672:15672']}}\n";
    with_file(text, |sandbox, _, repo, linked| {
        let line = sandbox.client_in(linked, ["compose"]).fails(1);
        assert!(line.contains("service queue: port 15672") && line.contains("wtd-client init"), "{line}");
        fs::write(repo.path.join("wtd.toml"), "[ports]\nQUEUE_PORT = 5672\nQUEUE_UI_PORT = 15672\n").unwrap();
        let two = repo.add("two");
        sandbox.client_in(linked, ["reassign"]).ok();
        for path in [&two, &linked.to_owned()] {
            let offset = u32::from(sandbox.offset(path));
            sandbox.client_in(path, ["compose", "--write"]).ok();
            let published = Project::of(sandbox, path).host_ports();
            assert_eq!(published, BTreeSet::from([5672 + offset, 15_672 + offset]));
        }
    });
}

#[test]
fn files_are_those_that_compose_would_read() {
    let web = "services: {web: {image: x, ports: ['8080:80']}}\n";
    with_file(web, |sandbox, _, _, linked| {
        let files = |directory: &Path, arguments: &[&str], environment: &[(&str, &str)]| {
            let mut command = sandbox.client_command(["compose", "--write"]);
            command.args(arguments).current_dir(directory).envs(environment.iter().copied());
            Ran::of(&mut command).ok();
            let files = sandbox.get(linked, "COMPOSE_FILE");
            let names = files.split(':').map(|file| file.rsplit('/').next().unwrap().to_owned());
            names.collect::<Vec<_>>().join(" ")
        };
        fs::create_dir_all(linked.join("sub/dir")).unwrap();
        fs::write(linked.join("extra.yaml"), "services: {web: {ports: ['9090:90']}}\n").unwrap();
        fs::write(linked.join("sub/only.yaml"), web).unwrap();
        assert_eq!(files(&linked.join("sub/dir"), &[], &[]), "compose.yaml wtd.compose.yaml", "found above");
        let both = ["--file", "compose.yaml", "-f", "extra.yaml"];
        assert_eq!(files(linked, &both, &[]), "compose.yaml extra.yaml wtd.compose.yaml");
        let ports = Project::of(sandbox, linked).host_ports();
        assert_eq!(ports, BTreeSet::from([18_080, 19_090]));
        assert_eq!(files(linked, &[], &[]), "compose.yaml extra.yaml wtd.compose.yaml", "those of before");
        // A COMPOSE_FILE that wtd has set, for whatever worktree, is nobody's choice of files.
        let ours = format!("/elsewhere/compose.yaml:{}", sandbox.get(linked, "COMPOSE_FILE"));
        assert_eq!(
            files(linked, &[], &[("COMPOSE_FILE", &ours)]),
            "compose.yaml extra.yaml wtd.compose.yaml"
        );
        assert_eq!(files(linked, &[], &[("COMPOSE_FILE", "sub/only.yaml")]), "only.yaml wtd.compose.yaml");
        sandbox.client_in(linked, ["compose", "--remove"]).ok();
        fs::write(linked.join(".env"), "COMPOSE_FILE=compose.yaml:${EXTRA:-extra.yaml}\n").unwrap();
        assert_eq!(files(linked, &[], &[]), "compose.yaml extra.yaml wtd.compose.yaml", "as .env says");
    });
}

#[test]
fn what_wtd_has_written_into_an_env_file_is_nobodys_choice_of_files() {
    with_file("services: {web: {image: x, ports: ['8080:80']}}\n", |sandbox, _, repo, linked| {
        sandbox.client_in(&repo.path, ["compose", "--write"]).ok();
        sandbox.client_in(&repo.path, ["env", "--write", ".env"]).ok();
        // As people do who want their settings in a new worktree too.
        fs::copy(repo.path.join(".env"), linked.join(".env")).unwrap();
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        let files = sandbox.get(linked, "COMPOSE_FILE");
        assert!(files.starts_with(linked.join("compose.yaml:").to_str().unwrap()), "{files}");
        assert!(!files.contains(repo.path.join(".git/wtd.compose.yaml").to_str().unwrap()), "{files}");
        // A person's own choice beside the block still is one.
        sandbox.client_in(linked, ["compose", "--remove"]).ok();
        fs::write(linked.join("extra.yaml"), "services: {web: {ports: ['9090:90']}}\n").unwrap();
        let block = fs::read_to_string(linked.join(".env")).unwrap();
        fs::write(linked.join(".env"), format!("A=b\nCOMPOSE_FILE=compose.yaml:extra.yaml\n{block}"))
            .unwrap();
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        let files = sandbox.get(linked, "COMPOSE_FILE");
        assert!(files.contains(linked.join("extra.yaml").to_str().unwrap()), "{files}");
        // Nor is one that was taken away, and is still named there.
        sandbox.client_in(&repo.path, ["compose", "--remove"]).ok();
        sandbox.client_in(&repo.path, ["compose", "--write"]).ok();
    });
}

#[test]
fn a_path_with_a_colon_gets_another_separator() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("a:b 'c\" $d");
    fs::write(repo.path.join("compose.yaml"), "services: {web: {image: x, ports: ['8080:80']}}\n").unwrap();
    daemon.put(&repo.path);
    let linked = sandbox.path("a;b");
    repo.git(["add", "--all"]);
    repo.git(["commit", "-q", "-m", "second"]);
    repo.add_at(&linked, "linked");
    for path in [&repo.path, &linked] {
        sandbox.client_in(path, ["compose", "--write"]).ok();
        assert!(sandbox.get(path, "COMPOSE_FILE").contains(&sandbox.get(path, "COMPOSE_PATH_SEPARATOR")));
        let port = 8080 + u32::from(sandbox.offset(path));
        assert_eq!(Project::of(&sandbox, path).host_ports(), BTreeSet::from([port]));
    }
    // A person's own separator is kept to.
    let mut command = sandbox.client_command(["compose", "--write"]);
    Ran::of(command.current_dir(&repo.path).env("COMPOSE_PATH_SEPARATOR", "|")).ok();
    assert_eq!(sandbox.get(&repo.path, "COMPOSE_PATH_SEPARATOR"), "|");
}

#[test]
fn another_worktrees_shell_changes_nothing() {
    let text = "services: {web: {image: x, ports: ['${UI_PORT:-3000}:80', '8080:81'], volumes: ['v:/v']}}\nvolumes: {v: }\n";
    with_file(text, |sandbox, _, repo, linked| {
        sandbox.client_in(&repo.path, ["compose", "--write"]).ok();
        let expected = sandbox.client_in(linked, ["compose"]).ok();
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        for other in [&repo.path, &linked.to_owned()] {
            let inside = format!("cd '{}' && exec wtd-client compose", linked.display());
            let ran = sandbox.client_in(other, ["exec", "--", "sh", "-c", &inside]);
            assert_eq!(ran.ok(), expected);
        }
        // Nor does it lead a command astray that is run for another one.
        sandbox.client_in(&repo.path, ["compose", "--remove"]).ok();
        let inside = format!(
            "cd '{}' && exec wtd-client exec -- docker compose config --format json",
            repo.path.display()
        );
        let ran = sandbox.client_in(linked, ["exec", "--", "sh", "-c", &inside]).ok();
        assert_eq!(Project(serde_json::from_str(&ran).unwrap()).host_ports(), BTreeSet::from([3000, 8080]));
    });
}

#[test]
fn a_variable_that_moves_a_port_by_itself_is_not_moved_twice() {
    let text = "services: {api: {image: x, ports: ['${API_PORT:-8003}:8003']}, web: {image: x, ports: ['3000:80']}}\n";
    with_file(text, |sandbox, _, _, linked| {
        let mut command = sandbox.client_command(["compose"]);
        let printed = Ran::of(command.current_dir(linked).env("API_PORT", "18003")).ok();
        assert!(!printed.contains("api") && printed.contains("\"13000\""), "{printed}");
        // In .env, too, which a Makefile or wtd itself keeps.
        fs::write(linked.join(".env"), "API_PORT=18003\nPORT_OFFSET=10000\n").unwrap();
        let printed = sandbox.client_in(linked, ["compose"]).ok();
        assert!(!printed.contains("api"), "{printed}");
        // Another value is a base like any other.
        fs::write(linked.join(".env"), "API_PORT=9003\n").unwrap();
        assert!(sandbox.client_in(linked, ["compose"]).ok().contains("\"19003\""));
    });
}

#[test]
fn it_is_written_by_rename_taken_away_and_told_of_when_it_is_out_of_date() {
    let text = "services: {web: {image: x, ports: ['8080:80']}}\n";
    with_file(text, |sandbox, _, repo, linked| {
        let file = repo.git_dir(linked).join("wtd.compose.yaml");
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        assert!(sandbox.client_in(linked, ["check"]).stderr.contains("no variables"));
        fs::write(linked.join("compose.yaml"), "services: {web: {image: x, ports: ['8081:80']}}\n").unwrap();
        let warning = sandbox.list().at(linked).warnings.join("\n");
        assert!(warning.contains("compose --write"), "{warning}");
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        assert_eq!(sandbox.list().at(linked).warnings, [""; 0]);
        assert_eq!(Project::of(sandbox, linked).host_ports(), BTreeSet::from([18_081]));
        assert!(repo.git(["status", "--porcelain"]).is_empty());
        // Nothing can be done about it while the worktree is away.
        let away = linked.with_extension("away");
        fs::rename(linked, &away).unwrap();
        until("it is missing", || sandbox.list().at(linked).clone(), |row| row.is("missing"));
        assert_eq!(sandbox.list().at(linked).warnings, [""; 0]);
        fs::rename(&away, linked).unwrap();
        until("it is back", || sandbox.list().at(linked).clone(), |row| row.is("active"));

        let moved = sandbox.client_in(linked, ["reassign"]);
        moved.ok();
        assert_eq!(
            Project::of(sandbox, linked).host_ports(),
            BTreeSet::from([28_081]),
            "written anew: {moved:#?}"
        );
        sandbox.client_in(linked, ["compose", "--remove"]).ok();
        assert!(!file.exists());
        assert_eq!(Project::of(sandbox, linked).host_ports(), BTreeSet::from([8081]));
    });
}

#[test]
fn hostile_text_in_compose_files_stays_text() {
    let text = r#"
name: "x"
services:
  "true":
    image: "a: !!python/object:os.system [touch pwned]"
    container_name: "null.-_"
    ports:
      - target: 80
        published: "8080"
        host_ip: "127.0.0.1"
        name: "\": {}\n'#$$(touch pwned)\u2028\x07!reset"
    volumes: ["1e3:/x", "-v-:/y"]
    networks: {"no": {ipv4_address: 172.31.0.9}}
volumes:
  "1e3": {name: "Hostile..name"}
  "-v-":
networks:
  "no": {name: "*anchor &x", ipam: {config: [{subnet: "172.31.0.0/16"}]}}
"#;
    with_file(text, |sandbox, _, _, linked| {
        sandbox.client_in(linked, ["compose", "--write"]).ok();
        let project = Project::of(sandbox, linked);
        let service = &project.0["services"]["true"];
        assert_eq!(service["ports"][0]["published"], "18080");
        assert_eq!(service["ports"][0]["name"], "\": {}\n'#$$(touch pwned)\u{2028}\u{7}!reset");
        assert_eq!(service["container_name"], "null.-_-10000");
        assert_eq!(project.0["networks"]["no"]["name"], "*anchor &x-10000");
        let volumes = project.volumes();
        assert!(volumes.iter().all(|name| name.ends_with("_10000") && !name.contains("..")), "{volumes:?}");
        assert!(volumes.contains("1e3_10000"), "{volumes:?}");
        assert!(!linked.join("pwned").exists());
    });
}

#[test]
fn what_is_missing_or_wrong_is_one_line() {
    if !require::compose() {
        return;
    }
    let sandbox = Sandbox::new();
    let daemon = sandbox.daemon();
    let repo = sandbox.repo("shop");
    daemon.put(&repo.path);
    let line = sandbox.client_in(&repo.path, ["compose"]).fails(1);
    assert!(line.contains("no Compose file") && line.contains("--file"), "{line}");
    let line = sandbox.client_in(&repo.path, ["compose", "--file", "missing.yaml"]).fails(1);
    assert!(line.contains("missing.yaml"), "{line}");
    sandbox.client_in(&repo.path, ["compose", "--file", "."]).fails(1);
    for (text, expected) in [
        ("services: {a: {ports: ['80']}}\n", "image"),
        ("services: {a: {image: '${SECRET:?not set}'}}\n", "SECRET"),
        ("services: [\n", "yaml"),
        ("services: {a: {image: x, ports: ['80000:80']}}\n", "80000"),
    ] {
        fs::write(repo.path.join("compose.yaml"), text).unwrap();
        let line = sandbox.client_in(&repo.path, ["compose"]).fails(1);
        assert!(line.contains(expected), "{expected}: {line}");
    }
    fs::write(repo.path.join("compose.yaml"), "services: {a: {image: x}}\n").unwrap();
    sandbox.client(["compose", "--path", sandbox.root().to_str().unwrap()]).fails(3);
    sandbox.client_in(&repo.path, ["compose", "--remove", "--write"]);
    // Without docker, and without its plugin: nothing but the client is on PATH then.
    let bin = sandbox.path("bin");
    fs::create_dir(&bin).unwrap();
    let mut command = sandbox.client_command(["compose"]);
    let line = Ran::of(command.current_dir(&repo.path).env("PATH", &bin)).fails(1);
    assert!(line.contains("no `docker`"), "{line}");
    std::os::unix::fs::symlink(require::find("docker").unwrap(), bin.join("docker")).unwrap();
    // The repository's own docker is not run.
    fs::write(repo.path.join("docker"), "#!/bin/sh\ntouch pwned\n").unwrap();
    Ran::of(sandbox.command("chmod").arg("+x").arg(repo.path.join("docker"))).ok();
    let mut command = sandbox.client_command(["compose"]);
    Ran::of(command.current_dir(&repo.path).env("PATH", format!(".::{}", bin.display()))).ok();
    assert!(!repo.path.join("pwned").exists());
}
