//! The override as a pure function of what Compose says.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Value, json};

use super::model::{Model, compose_name};
use super::plan::{Plan, Worktree, plan, unmoved};

fn worktree(offset: u16) -> Worktree<'static> {
    Worktree {
        id: "01890f5e-7b3c-7cc0-98c4-dc0c0c07398f",
        offset,
        is_main: offset == 0,
        root: Path::new("/w"),
        project: (offset != 0).then_some("shop-10000"),
        volumes: BTreeSet::from(["db_data_10000"]),
        shared_volumes: BTreeSet::new(),
        main_project: "shop",
        staying: BTreeSet::new(),
    }
}

fn model(value: &Value) -> Model {
    Model::parse(value.to_string().as_bytes()).unwrap()
}

/// The override at offset 10000 of a project that reads no variables.
fn of(project: &Value) -> Plan {
    plan(&worktree(10_000), &model(project), &model(project)).unwrap()
}

/// The lines of an override below its comment, without indentation.
fn lines(plan: &Plan) -> Vec<&str> {
    plan.text.lines().filter(|line| !line.starts_with('#')).map(str::trim).collect()
}

fn service(key: &str, value: impl Into<Value>) -> Value {
    json!({ "name": "shop-10000", "services": { "x": { key: value.into() } } })
}

#[test]
fn published_ports_move_and_keep_what_else_they_say() {
    let project = service(
        "ports",
        json!([
            { "mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp" },
            { "mode": "ingress", "target": 80, "published": "8080", "protocol": "udp", "host_ip": "::1" },
            { "mode": "host", "target": 53, "published": 1053, "protocol": "tcp", "name": "dns", "x-y": [1] },
            { "mode": "ingress", "target": 90, "published": "9000-9003", "protocol": "tcp" },
            { "mode": "ingress", "target": 91, "protocol": "tcp" },
            { "mode": "ingress", "target": 92, "published": "", "protocol": "tcp" },
            { "mode": "ingress", "target": 93, "published": "0", "protocol": "tcp" },
        ]),
    );
    let plan = of(&project);
    assert_eq!(
        lines(&plan),
        [
            r#""name": "shop-10000""#,
            r#""services":"#,
            r#""x":"#,
            r#""ports": !override"#,
            r#"- {"mode": "ingress", "protocol": "tcp", "published": "18080", "target": 80}"#,
            r#"- {"host_ip": "::1", "mode": "ingress", "protocol": "udp", "published": "18080", "target": 80}"#,
            r#"- {"mode": "host", "name": "dns", "protocol": "tcp", "published": "11053", "target": 53, "x-y": [1]}"#,
            r#"- {"mode": "ingress", "protocol": "tcp", "published": "19000-19003", "target": 90}"#,
            r#"- {"mode": "ingress", "protocol": "tcp", "target": 91}"#,
            r#"- {"mode": "ingress", "protocol": "tcp", "published": "", "target": 92}"#,
            r#"- {"mode": "ingress", "protocol": "tcp", "published": "0", "target": 93}"#,
        ]
    );
    let published: Vec<_> = plan.published.keys().copied().collect();
    assert_eq!(published, [11_053, 18_080, 19_000, 19_001, 19_002, 19_003]);
    assert_eq!(plan.published[&18_080], "x");
}

#[test]
fn a_port_that_moves_by_itself_is_left_alone_unless_another_of_the_service_does_not() {
    let ports = |first: &str, second: &str| {
        model(&service(
            "ports",
            json!([{ "target": 1, "published": first }, { "target": 2, "published": second }]),
        ))
    };
    let moved = plan(&worktree(10_000), &ports("15432", "13000"), &ports("5432", "3000")).unwrap();
    assert_eq!(lines(&moved), [r#""name": "shop-10000""#]);
    assert_eq!(
        moved.published.keys().copied().collect::<Vec<_>>(),
        [13_000, 15_432],
        "and is the worktree's"
    );
    let mixed = plan(&worktree(10_000), &ports("15432", "3000"), &ports("5432", "3000")).unwrap();
    assert!(mixed.text.contains("\"15432\"") && mixed.text.contains("\"13000\""), "{}", mixed.text);
    // At the port of another service's base it is a base all the same.
    let literal = plan(&worktree(10_000), &ports("5432", "15432"), &ports("5432", "15432")).unwrap();
    assert_eq!(literal.published.keys().copied().collect::<Vec<_>>(), [15_432, 25_432]);
    // Another number of ports can't be compared.
    let other = service("ports", json!([{ "target": 1, "published": "1" }]));
    assert!(plan(&worktree(10_000), &ports("1", "2"), &model(&other)).is_err());
}

#[test]
fn what_cannot_be_moved_is_an_error_that_names_service_and_port() {
    for published in ["55536", "55530-55540", "65535"] {
        let project = model(&service("ports", json!([{ "target": 1, "published": published }])));
        let error = plan(&worktree(10_000), &project, &project).unwrap_err().to_string();
        assert!(error.contains("service x") && error.contains(published), "{error}");
    }
    for published in ["x", "70000", "2-1"] {
        let project = model(&service("ports", json!([{ "target": 1, "published": published }])));
        assert!(plan(&worktree(10_000), &project, &project).unwrap_err().to_string().contains(published));
    }
}

#[test]
fn a_server_that_worktrees_share_stays_where_it_is_run() {
    let project = model(&service(
        "ports",
        json!([{ "target": 5432, "published": "5432" }, { "target": 1, "published": "80" }]),
    ));
    let sharing = Worktree { staying: BTreeSet::from([5432]), ..worktree(10_000) };
    let plan = plan(&sharing, &project, &project).unwrap();
    assert_eq!(plan.published.keys().copied().collect::<Vec<_>>(), [5432, 10_080]);
}

#[test]
fn volumes_are_named_after_their_keys_and_labelled() {
    let project = json!({ "name": "shop-10000", "services": {}, "volumes": {
        "db_data": { "name": "shop-10000_db_data" },
        "Upper.Case": { "name": "shop-10000_Upper.Case" },
        "fixed": { "name": "in_production" },
        "own": { "name": "db_data_10000" },
        "outside": { "name": "outside", "external": true },
    }});
    let named = of(&project);
    assert!(
        named.volumes.contains("db_data_10000") && named.volumes.contains("fixed_10000"),
        "{:?}",
        named.volumes
    );
    assert_eq!(named.volumes.len(), 3);
    assert!(
        named.volumes.iter().all(|name| wtd_protocol::names::is_volume_name(name)),
        "{:?}",
        named.volumes
    );
    assert_eq!(named.text.matches("dev.wtd.allocation").count(), 3);
    assert!(!named.text.contains("outside") && !named.text.contains("\"own\""), "{}", named.text);
    assert!(named.left_behind.contains(&"in_production (now fixed_10000)".to_owned()));
    // A name that has one of wtd's variables in it is another at another offset.
    let mut elsewhere = project.clone();
    elsewhere["volumes"]["fixed"]["name"] = "in_production_0".into();
    let kept = plan(&worktree(10_000), &model(&project), &model(&elsewhere)).unwrap();
    assert!(!kept.text.contains("fixed"), "{}", kept.text);
    // Two keys that would come to one name.
    let digest = named.volumes.iter().find(|name| name.starts_with("upper-case_")).unwrap();
    let digest = digest.strip_suffix("_10000").unwrap();
    let clash = json!({ "name": "s", "volumes": { "Upper.Case": { "name": "a" }, digest: { "name": "b" } } });
    assert!(plan(&worktree(10_000), &model(&clash), &model(&clash)).is_err());
}

#[test]
fn containers_are_renamed_with_what_refers_to_them() {
    let project = json!({ "name": "shop-10000", "services": {
        "a": { "container_name": "a" },
        "b": { "network_mode": "container:a", "pid": "container:a", "ipc": "host", "volumes_from": ["container:a:ro", "a"] },
        "c": { "network_mode": "container:other", "volumes_from": ["container:other"] },
    }});
    let renamed = of(&project);
    assert_eq!(
        lines(&renamed)[1..],
        [
            r#""services":"#,
            r#""a":"#,
            r#""container_name": "a-10000""#,
            r#""b":"#,
            r#""network_mode": "container:a-10000""#,
            r#""pid": "container:a-10000""#,
            r#""volumes_from": !override"#,
            r#"- "container:a-10000:ro""#,
            r#"- "a""#,
        ]
    );
    let at_0 = plan(&worktree(0), &model(&project), &model(&project)).unwrap();
    assert_eq!(lines(&at_0), ["services: {}"], "the name that scripts know");
}

#[test]
fn networks_get_names_and_addresses_of_their_own() {
    let project = json!({ "name": "shop-10000",
        "services": { "x": { "networks": { "fixed": { "ipv4_address": "10.0.0.2", "aliases": ["y"] }, "default": null } } },
        "networks": {
            "default": { "name": "shop-10000_default", "ipam": {} },
            "fixed": { "name": "fixed", "driver_opts": { "com.docker.network.bridge.name": "br0" },
                       "ipam": { "config": [{ "subnet": "10.0.0.0/24" }] } },
            "proxy": { "name": "proxy", "external": true },
        },
    });
    let plan = of(&project);
    assert_eq!(
        lines(&plan)[1..],
        [
            r#""networks":"#,
            r#""fixed":"#,
            r#""driver_opts":"#,
            r#""com.docker.network.bridge.name": !reset null"#,
            r#""ipam": !reset null"#,
            r#""name": "fixed-10000""#,
            r#""services":"#,
            r#""x":"#,
            r#""networks":"#,
            r#""fixed":"#,
            r#""ipv4_address": !reset null"#,
        ]
    );
    assert!(plan.notes.iter().any(|note| note.contains("x (10.0.0.2)")), "{:?}", plan.notes);
}

#[test]
fn only_what_worktrees_share_for_good_is_told() {
    let mount = |source: &str| json!([{ "type": "bind", "source": source, "target": "/x" }]);
    let notes = |value: Value| of(&service("volumes", value)).notes;
    for source in
        ["/w/data", "/w/../w/data", "/var/run/docker.sock", "/tmp/x.sock", "/etc/localtime", "/dev/x"]
    {
        assert!(notes(mount(source)).is_empty(), "{source}");
    }
    for source in ["/srv/data", "/w/../elsewhere", "/w2", "/home/me"] {
        assert_eq!(notes(mount(source)).len(), 1, "{source}");
    }
    let read_only = json!([{ "type": "bind", "source": "/srv", "target": "/x", "read_only": true }]);
    assert!(notes(read_only).is_empty());
    assert_eq!(of(&service("network_mode", "host")).notes.len(), 1);
}

#[test]
fn what_compose_makes_of_it_has_to_be_what_was_planned() {
    let project = service("ports", json!([{ "target": 80, "published": "8080", "protocol": "tcp" }]));
    let plan = of(&project);
    assert!(plan.check(&model(&project)).is_err(), "a Compose that knows no !override adds or leaves ports");
    let made = |published: &str| {
        service("ports", json!([{ "target": 80, "published": published, "protocol": "tcp" }]))
    };
    assert_eq!(plan.check(&model(&made("18080"))), Ok(()));
    let mut other = made("18080");
    other["name"] = "another".into();
    assert!(plan.check(&model(&other)).is_err());
}

#[test]
fn the_main_worktree_publishes_what_its_files_say() {
    let ports = |first: &str| {
        model(&service(
            "ports",
            json!([{ "target": 1, "published": first }, { "target": 2, "published": "80" }]),
        ))
    };
    let published =
        |is_at_0| unmoved(&ports("15432"), &ports("5432"), is_at_0).into_keys().collect::<Vec<_>>();
    assert_eq!(published(true), [80, 5432]);
    assert_eq!(published(false), [80], "what moves by itself is elsewhere, wherever the main worktree is");
}

#[test]
fn what_compose_leaves_empty_is_nothing() {
    let project = json!({ "name": "s", "services": { "x": { "ports": null, "volumes": null, "networks": null } },
        "volumes": null, "networks": null });
    assert_eq!(lines(&plan(&worktree(0), &model(&project), &model(&project)).unwrap()), ["services: {}"]);
    assert!(Model::parse(b"no JSON").is_err());
}

#[test]
fn a_directory_is_called_as_compose_calls_it() {
    for (directory, name) in [("My App", "myapp"), ("_x.y", "xy"), ("shop-2", "shop-2"), ("Ünï", "n")] {
        assert_eq!(compose_name(directory), name, "{directory}");
    }
}
