use super::*;
use crate::domain::compose_override::tests::allocation;
use crate::domain::gc::{Container, EngineId};
use crate::domain::names;
use crate::domain::project::DatabaseMode;

fn volume(name: &str) -> Volume {
    Volume { name: name.into(), driver: "local".into(), is_local: true, ..Volume::default() }
}

fn engine(volumes: &[Volume], containers: &[Container]) -> EngineView {
    EngineView {
        id: EngineId::new("e"),
        tells_creation: true,
        volumes: volumes.to_vec(),
        containers: containers.to_vec(),
    }
}

/// A server with its data directory in `db_data_0`.
fn server() -> User {
    let env = [("PGDATA", "/var/lib/postgresql/data"), ("POSTGRES_USER", "me"), ("POSTGRES_PASSWORD", "p")];
    User {
        id: "a".repeat(64),
        name: "app-db-1".into(),
        image: "sha256:1".into(),
        is_running: true,
        env: env.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        mounts: vec![("db_data_0".into(), "/var/lib/postgresql/data".into())],
        ..User::default()
    }
}

/// The plan for these volumes, with these users of `db_data_0`.
fn planned(
    engine: &EngineView,
    users: &[User],
    change: impl FnOnce(&mut Question<'_>),
) -> Result<Vec<Copy>, Refusal> {
    planned_for(&allocation(2, 10_000), engine, users, change)
}

fn planned_for(
    target: &Allocation,
    engine: &EngineView,
    users: &[User],
    change: impl FnOnce(&mut Question<'_>),
) -> Result<Vec<Copy>, Refusal> {
    let source = main();
    let users = HashMap::from([("db_data_0".to_owned(), users.to_vec())]);
    let mut question =
        Question { source: &source, target, engine, users: &users, all: false, may_pause: true };
    change(&mut question);
    plan(&question)
}

fn main() -> Allocation {
    Allocation { worktree_id: None, compose_project: None, ..allocation(1, 0) }
}

fn names_of(copies: &[Copy]) -> Vec<(&str, &str)> {
    copies.iter().map(|copy| (copy.source.as_str(), copy.volume.as_str())).collect()
}

#[test]
fn a_running_server_is_copied_without_a_pause_and_its_database_renamed() {
    let engine = engine(&[volume("db_data_0")], &[]);
    let copies = planned(&engine, &[server()], |_| {}).unwrap();
    assert_eq!(names_of(&copies), [("db_data_0", "db_data_10000")]);
    let Method::BaseBackup(backup) = &copies[0].method else { panic!("{copies:#?}") };
    assert_eq!(
        (backup.user.as_str(), backup.password.as_deref(), backup.port.as_str()),
        ("me", Some("p"), "5432")
    );
    assert_eq!(backup.users, [("a".repeat(64), "app-db-1".to_owned())]);
    let rename = copies[0].rename.as_ref().unwrap();
    assert_eq!((rename.from.to_string(), rename.to.to_string()), ("app-0".into(), "app-10000".into()));
    assert_eq!(copies[0].existing, None);
}

#[test]
fn what_does_not_run_is_copied_file_by_file() {
    let engine = engine(&[volume("db_data_0")], &[]);
    for users in
        [vec![], vec![User { is_running: false, ..server() }], vec![User { is_paused: true, ..server() }]]
    {
        let copies = planned(&engine, &users, |question| question.may_pause = false).unwrap();
        assert_eq!(copies[0].method, Method::Files(Vec::new()), "nothing writes, so nothing is paused");
    }
}

#[test]
fn what_runs_and_is_no_server_is_paused_or_refused() {
    let engine = engine(&[volume("db_data_0")], &[]);
    for data in [
        None,
        Some("/elsewhere"),
        Some("/var/lib/postgresql/data/../x"),
        Some("/var/lib/postgresql/database"),
    ] {
        let mut user = server();
        user.env.remove("PGDATA");
        user.env.extend(data.map(|data| ("PGDATA".to_owned(), data.to_owned())));
        let copies = planned(&engine, &[user.clone()], |_| {}).unwrap();
        assert_eq!(copies[0].method, Method::Files(vec![(user.id.clone(), user.name.clone())]), "{data:?}");
        assert_eq!(copies[0].rename, None);
        let refused = planned(&engine, &[user], |question| question.may_pause = false).unwrap_err();
        assert!(matches!(refused, Refusal::Running { .. }), "{refused}");
    }
}

#[test]
fn a_volume_in_use_or_of_another_kind_is_never_filled() {
    let user = Container {
        name: "x".into(),
        volumes: vec!["db_data_10000".into()],
        state: "exited".into(),
        ..Container::default()
    };
    let both = [volume("db_data_0"), volume("db_data_10000")];
    let refused = planned(&engine(&both, &[user]), &[server()], |_| {}).unwrap_err();
    assert!(matches!(refused, Refusal::InUse { .. }), "{refused}");
    let options = BTreeMap::from([("type".to_owned(), "nfs".to_owned())]);
    for odd in [
        Volume { driver: "x".into(), ..volume("db_data_10000") },
        Volume { options, ..volume("db_data_10000") },
    ] {
        let refused = planned(&engine(&[volume("db_data_0"), odd], &[]), &[server()], |_| {}).unwrap_err();
        assert!(matches!(refused, Refusal::Foreign(_)), "{refused}");
    }
    let copies = planned(&engine(&both, &[]), &[server()], |_| {}).unwrap();
    assert_eq!(
        copies[0].existing,
        Some(volume("db_data_10000")),
        "whether it is empty the engine has to say"
    );
}

#[test]
fn nothing_is_copied_that_only_one_worktree_has() {
    let refused = planned(&engine(&[], &[]), &[], |_| {}).unwrap_err();
    assert_eq!(refused, Refusal::Nothing(false));
    let shared = Allocation {
        mode: DatabaseMode::Shared,
        volume: DatabaseVolume::Shared(names::volume_name("db_data", 0)),
        ..allocation(2, 10_000)
    };
    let there = engine(&[volume("db_data_0")], &[]);
    let refused = planned_for(&shared, &there, &[server()], |_| {}).unwrap_err();
    assert_eq!(refused, Refusal::Nothing(false), "what worktrees share is nobody's to fill");
    let itself = main();
    let refused = planned_for(&itself, &there, &[server()], |_| {}).unwrap_err();
    assert_eq!(refused, Refusal::Itself);
}

#[test]
fn with_all_come_the_further_volumes_and_those_of_the_compose_project() {
    let variable = wtd_protocol::variable::Variable::new("REDIS_VOLUME").unwrap();
    let redis = |offset| BTreeMap::from([(variable.clone(), names::volume_name("redis", offset))]);
    let source =
        Allocation { volumes: redis(0), former_volumes: [names::volume_name("kept", 0)].into(), ..main() };
    let target = Allocation {
        volumes: redis(10_000),
        former_volumes: [names::volume_name("kept", 10_000)].into(),
        ..allocation(2, 10_000)
    };
    let label = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let of_compose = Volume {
        labels: [label(COMPOSE_PROJECT_LABEL, "shop"), label(COMPOSE_VOLUME_LABEL, "cache")].into(),
        ..volume("shop_cache")
    };
    // Another project's, which only looks alike.
    let other = Volume {
        labels: [label(COMPOSE_PROJECT_LABEL, "shop"), label(COMPOSE_VOLUME_LABEL, "cache")].into(),
        ..volume("shop_other")
    };
    let container = Container {
        labels: [label(COMPOSE_PROJECT_LABEL, "shop"), label(COMPOSE_WORKING_DIR_LABEL, "/w/0")].into(),
        ..Container::default()
    };
    let engine = engine(
        &[volume("db_data_0"), volume("redis_0"), volume("kept_0"), of_compose, other, volume("alien_0")],
        &[container],
    );
    let change = |question: &mut Question<'_>| question.all = true;
    let users = HashMap::new();
    let mut question = Question {
        source: &source,
        target: &target,
        engine: &engine,
        users: &users,
        all: false,
        may_pause: true,
    };
    assert_eq!(names_of(&plan(&question).unwrap()), [("db_data_0", "db_data_10000")]);
    change(&mut question);
    let copies = plan(&question).unwrap();
    let expected = [
        ("db_data_0", "db_data_10000"),
        ("kept_0", "kept_10000"),
        ("redis_0", "redis_10000"),
        ("shop_cache", "app-10000_cache"),
    ];
    assert_eq!(names_of(&copies), expected);
    let labels = &copies[3].labels;
    assert_eq!(
        labels.get(COMPOSE_PROJECT_LABEL).map(String::as_str),
        Some("app-10000"),
        "Compose takes it for its own"
    );
}
