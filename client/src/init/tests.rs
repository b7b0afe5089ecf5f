//! From what Compose says to the text of a `wtd.toml`.

use serde_json::{Value, json};

use super::Declared;
use super::expression::{Expression, RawPort};
use super::found::Found;
use super::text::{Source, wtd_toml};

/// The lines of the file that say something.
fn lines(project: &Value) -> Vec<String> {
    let found = Found::parse(project.to_string().as_bytes()).unwrap();
    let text = wtd_toml(&Declared::of(&found, "shop"), "shop", &Source::Files("compose.yaml"));
    let said = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    said.map(|line| line.split(" # ").next().unwrap_or_default().trim().to_owned()).collect()
}

/// What is said of the ports of a service `web`.
fn ports(ports: &Value) -> Vec<String> {
    let lines = lines(&json!({ "name": "shop", "services": { "web": { "image": "x", "ports": ports } } }));
    lines.into_iter().filter(|line| line.contains('=')).collect()
}

#[test]
fn expressions_are_a_value_or_one_variable() {
    let variable = |name: &str, default: Option<&str>| Expression::Variable {
        name: name.to_owned(),
        default: default.map(str::to_owned),
    };
    for (text, expected) in [
        ("5432", Expression::Text("5432".to_owned())),
        ("$A", variable("A", None)),
        ("${A}", variable("A", None)),
        ("${A:-5432}", variable("A", Some("5432"))),
        ("${A-5432}", variable("A", Some("5432"))),
        ("${A:?say: it}", variable("A", None)),
        ("${A:-${B:-80}}", variable("A", Some("80"))),
        ("${A:-${B}}", variable("A", None)),
        ("${A:+x}", Expression::Mixed),
        ("1${A}", Expression::Mixed),
        ("${A}${B}", Expression::Mixed),
        ("$", Expression::Mixed),
        ("${}", Expression::Mixed),
    ] {
        assert_eq!(Expression::of(text), expected, "{text}");
    }
}

#[test]
fn every_form_of_a_published_port_is_read() {
    let port = |entry: Value| RawPort::of(&entry).map(|port| (port.bases(), port.container));
    for (entry, expected) in [
        (json!("5432:5433"), Some((Some((5432, 5432)), Some(5433)))),
        (json!("127.0.0.1:5432:5433/tcp"), Some((Some((5432, 5432)), Some(5433)))),
        (json!("[::1]:${A:-80}:8080/udp"), Some((Some((80, 80)), Some(8080)))),
        (json!("${IP:-127.0.0.1}:${A:-80}:${B:-8080}"), Some((Some((80, 80)), Some(8080)))),
        (json!("8000-8005:80"), Some((Some((8000, 8005)), Some(80)))),
        (json!("9000-9003:9000-9003"), Some((Some((9000, 9003)), None))),
        (json!({ "target": 80, "published": "8080" }), Some((Some((8080, 8080)), Some(80)))),
        (json!({ "target": "80", "published": "${A:-8080}" }), Some((Some((8080, 8080)), Some(80)))),
        (json!({ "target": 80, "published": 8080 }), Some((Some((8080, 8080)), Some(80)))),
        (json!("${A}:80"), Some((None, Some(80)))),
        (json!("80"), None),
        (json!(80), None),
        (json!({ "target": 80 }), None),
        (json!("127.0.0.1::80"), None),
    ] {
        assert_eq!(port(entry.clone()), expected, "{entry}");
    }
}

#[test]
fn ports_are_called_as_the_file_calls_them_else_after_their_service() {
    assert_eq!(
        ports(&json!(["${UI_PORT:-3000}:3000", "8080:80", "9229:9229"])),
        ["UI_PORT = 3000", "WEB_PORT = 8080", "WEB_PORT_9229 = 9229"]
    );
    assert_eq!(
        ports(&json!(["8080:80/tcp", "8080:80/udp", "127.0.0.1:8080:81"])),
        ["WEB_PORT = 8080"],
        "one port is one"
    );
    assert_eq!(ports(&json!(["8000-8005:80"])), ["WEB_PORT = 8000", "WEB_PORT_8005 = 8005"]);
    assert_eq!(ports(&json!(["80:80", "${LOW:-443}:443"])), [""; 0], "offset 0 would be nobody's");
    assert_eq!(
        ports(&json!(["${ui_port:-3000}:1", "${DOCKER_PORT:-3001}:2"])),
        ["WEB_PORT = 3000", "WEB_PORT_2 = 3001"]
    );
    assert_eq!(
        ports(&json!(["${A:-3000}:1", "${B:-3000}:2"])),
        ["A = 3000", "B = \"{A}\""],
        "one port has one variable"
    );
    assert_eq!(
        ports(&json!(["5432:80"])),
        ["DB_HOST_PORT = 5432"],
        "which is that port's unless it has another"
    );
    assert_eq!(
        ports(&json!(["${API_PORT}:8003"])),
        ["API_PORT = 8003"],
        "the container's, for want of another"
    );
    assert_eq!(ports(&json!(["${X}0:80", "${PORTS}", "x:80", "99999:80"])), [""; 0]);
}

#[test]
fn services_that_are_called_as_tools_are_give_no_variable_that_those_obey() {
    let project = json!({ "services": { "node": { "ports": ["3000:1"] }, "git": { "ports": ["3001:1"] }, "2b": { "ports": ["3002:1"] } } });
    assert_eq!(lines(&project)[1..4], ["APP_2B_PORT = 3002", "APP_GIT_PORT = 3001", "APP_NODE_PORT = 3000"]);
}

/// As Compose prints the mount of a named volume.
fn mount(source: &str) -> Value {
    json!({ "type": "volume", "source": source, "target": "/x" })
}

#[test]
fn the_database_has_db_host_port_its_volume_and_its_name() {
    let service = |ports: Value, environment: Value| {
        json!({ "name": "shop", "services": {
            "api": { "image": "x", "ports": ["8003:8003"] },
            "store": { "image": "docker.io/timescale/timescaledb:2", "ports": ports, "environment": environment,
                "volumes": [{ "type": "volume", "source": "pgdata", "target": "/var/lib/postgresql/data" }] },
            "exporter": { "image": "example/postgres-exporter", "ports": ["9187:9187"],
                "volumes": [mount("redis_data"), mount("Upper"), mount("outside")] },
        }, "volumes": { "unused": null, "pgdata": null, "redis_data": { "name": "x" }, "Upper": {}, "outside": { "external": true } } })
    };
    assert_eq!(
        lines(&service(json!(["9000:9000", "5433:5432"]), json!({ "POSTGRES_DB": "app" }))),
        [
            "[ports]",
            "DB_HOST_PORT = 5433",
            "STORE_PORT = 9000",
            "API_PORT = 8003",
            "EXPORTER_PORT = 9187",
            "[database]",
            "name = \"app\"",
            "name_per_worktree = false",
            "volume = \"pgdata\"",
            "[volumes]",
            "REDIS_VOLUME = \"redis_data\"",
        ]
    );
    let lines =
        lines(&service(json!(["${POSTGRES_PORT:-5432}:5432"]), json!(["POSTGRES_DB=${POSTGRES_DB:-app}"])));
    assert_eq!(lines[1], "DB_HOST_PORT = 5432");
    assert_eq!(lines[4..7], ["[database]", "name = \"app\"", "volume = \"pgdata\""]);
    assert_eq!(lines.last().map(String::as_str), Some("POSTGRES_PORT = \"{DB_HOST_PORT}\""));
}

#[test]
fn volumes_are_called_as_the_file_calls_them_else_after_their_key() {
    let mounts: Vec<Value> = ["db_data", "one", "cache", "a-b.c", "redis_data"].map(mount).into();
    let project = json!({ "services": { "web": { "ports": ["${CACHE_VOLUME:-3000}:1"], "volumes": mounts } }, "volumes": {
        "db_data": { "name": "${DB_VOLUME:-x}" },
        "one": { "name": "${REDIS_VOLUME:-redis_data}" },
        "cache": null,
        "a-b.c": {},
        "redis_data": {},
    }});
    let lines = lines(&project);
    let volumes: Vec<_> = lines.iter().skip_while(|line| *line != "[volumes]").skip(1).collect();
    assert_eq!(volumes, ["A_B_C_VOLUME = \"a-b.c\"", "REDIS_VOLUME = \"redis_data\""], "{lines:?}");
}

#[test]
fn a_project_of_another_name_than_its_directory_keeps_it() {
    assert!(lines(&json!({ "name": "shop" })).iter().all(|line| !line.starts_with("project")));
    assert_eq!(lines(&json!({ "name": "my_shop" }))[0], "project = \"my_shop\"");
}

#[test]
fn text_of_strangers_ends_no_comment_and_no_string() {
    let source = "a\nevil = 1 # \u{1b}[31m";
    let text = wtd_toml(&Declared::default(), "x\"\n[evil]\\", &Source::Files(source));
    assert!(text.lines().all(|line| line.is_empty() || line.starts_with(['#', '['])), "{text}");
    let declared: Vec<_> = text.lines().filter(|line| line.starts_with('[')).collect();
    assert_eq!(declared, ["[ports]", "[database]", "[volumes]"]);
}
