//! Every statement of the store against the migrated schema, and the database's own rules.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use sqlx::Executor;
use uuid::Uuid;
use wtd_protocol::variable::Variable;
use wtd_protocol::{ChangeKind, State};

use super::{Registry, StoreError, open};
use crate::domain::allocation::{Allocation, DatabaseVolume, Ending, Moment, Repository};
use crate::domain::allocator::Obstacle;
use crate::domain::compose::Compose;
use crate::domain::content_hash::ContentHash;
use crate::domain::database_objects::{DatabaseObject, ObjectName, ServerAddress, Stage, SystemIdentifier};
use crate::domain::draft::Record;
use crate::domain::gc::EngineId;
use crate::domain::identity::{AllocationId, FileIdentity, RepositoryId};
use crate::domain::ledger::Ledger;
use crate::domain::names;
use crate::domain::offset::Offset;
use crate::domain::ports::{Port, Ports};
use crate::domain::project::DatabaseMode;
use crate::domain::restoring::Restoring;

const IDENTITY: FileIdentity = FileIdentity { device: u64::MAX, inode: 1 << 63, born_ns: Some(-1) };

fn repository() -> Repository {
    Repository {
        id: RepositoryId(Uuid::now_v7()),
        common_dir: "/w/main/.git".into(),
        identity: IDENTITY,
        main_root: Some("/w/main".into()),
        watched: true,
    }
}

fn allocation(repository: RepositoryId, offset: u16) -> Allocation {
    let port = |base: u16| Port { base: NonZeroU16::new(base).unwrap(), port: base + offset, shared: false };
    Allocation {
        id: AllocationId(Uuid::now_v7()),
        repository,
        worktree_id: Some("feat\n".into()),
        git_dir: "/w/main/.git/worktrees/feat".into(),
        identity: IDENTITY,
        path: "/w/fe'at".into(),
        device: u64::MAX,
        finished: true,
        offset: Offset(offset),
        ports: Ports::from_iter([
            (Variable::db_host_port(), port(5432)),
            (Variable::new("UI_PORT").unwrap(), port(3000)),
        ]),
        project: "main".into(),
        project_is_configured: false,
        mode: DatabaseMode::Isolated,
        volume: DatabaseVolume::Own(names::volume_name("db_data", offset)),
        volumes: BTreeMap::from([(
            Variable::new("REDIS_VOLUME").unwrap(),
            names::volume_name("redis", offset),
        )]),
        former_volumes: BTreeSet::from([names::volume_name("old", offset)]),
        shared_volumes: BTreeSet::from(["pip.cache".to_owned()]),
        compose: Some(Box::new(Compose {
            files: vec!["compose.yaml".into(), "/elsewhere/a \"b\".yaml".into()],
            files_digest: "ab".repeat(32),
            further: BTreeMap::from([("base.yaml".into(), "cd".repeat(32))]),
            separator: ';',
            digest: [1; 32],
            inputs: [2; 32],
            ports: BTreeSet::from([8080 + offset]),
        })),
        database: names::database_name("main", offset, true),
        schema: None,
        template: Some(names::database_name("template", 0, false)),
        objects: vec![DatabaseObject {
            name: ObjectName {
                database: names::database_name("main", offset, true),
                schema: offset.is_multiple_of(20).then(|| names::schema_name("main", offset)),
            },
            server: SystemIdentifier(i64::MIN),
            address: ServerAddress { host: "localhost".into(), port: 5432 },
            stage: if offset == 0 { Stage::Made } else { Stage::Foreign },
        }],
        compose_project: Some(names::compose_project("main", offset)),
        env: BTreeMap::from([(Variable::new("DATABASE_URL").unwrap(), "postgresql://\"x\"".to_owned())]),
        untrusted: true,
        state: State::Active,
        reason: String::new(),
        since: Moment(1_700_000_000_000),
        created: Moment(1_700_000_000_000),
        ending: None,
        passed_over: vec![Obstacle {
            offset: Offset(0),
            variable: "UI_PORT".into(),
            port: 3000,
            reason: "who".into(),
        }],
        warnings: vec!["a \"warning\"".into()],
    }
}

async fn write(registry: &mut Registry, records: &[Record]) -> Result<Vec<wtd_protocol::Change>, StoreError> {
    let mut ledger = Ledger::default();
    for record in records {
        if let Record::Repository(repository) = record {
            ledger.put_repository(Arc::clone(repository));
        }
    }
    registry.write(records, &ledger, Moment(1_700_000_000_000)).await
}

fn record(allocation: &Allocation, kind: ChangeKind) -> Record {
    Record::Allocation { allocation: Arc::new(allocation.clone()), kind: Some(kind) }
}

async fn fresh(dir: &Path) -> Registry {
    open(dir, "a test").await.unwrap()
}

#[tokio::test]
async fn what_is_written_is_loaded_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository();
    let mut ended = allocation(repository.id, 10_000);
    ended.state = State::Stale;
    ended.ending = Some(Ending::Forgotten);
    ended.worktree_id = None;
    ended.compose_project = None;
    let live = allocation(repository.id, 0);
    let mut registry = fresh(dir.path()).await;
    let records = [
        Record::Repository(repository.clone().into()),
        record(&ended, ChangeKind::Forgotten),
        record(&live, ChangeKind::Allocated),
    ];
    let changes = write(&mut registry, &records).await.unwrap();
    assert_eq!(changes.iter().map(|change| change.sequence).collect::<Vec<_>>(), [1, 2]);
    registry.close().await.unwrap();

    let ledger = fresh(dir.path()).await.load().await.unwrap();
    assert_eq!(**ledger.repository(repository.id).unwrap(), repository);
    assert_eq!(**ledger.allocation(ended.id).unwrap(), ended);
    assert_eq!(**ledger.allocation(live.id).unwrap(), live);
}

#[tokio::test]
async fn what_is_trusted_is_trusted_after_a_restart_and_what_is_taken_back_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let (one, other) = (repository(), Repository { common_dir: "/w/other/.git".into(), ..repository() });
    let trusted = |repository: &Repository, bytes: &[u8]| Record::Trusted {
        repository: repository.id,
        content: ContentHash::of(bytes),
        at: Moment(1),
    };
    let records = [
        Record::Repository(one.clone().into()),
        Record::Repository(other.clone().into()),
        trusted(&one, b"a"),
        trusted(&one, b"b"),
        trusted(&one, b"a"),
        trusted(&other, b"a"),
    ];
    let mut registry = fresh(dir.path()).await;
    write(&mut registry, &records).await.unwrap();
    registry.close().await.unwrap();
    let mut registry = fresh(dir.path()).await;
    let loaded = registry.load().await.unwrap().trusted;
    assert_eq!((loaded.count(one.id), loaded.count(other.id)), (2, 1));
    assert!(loaded.holds(one.id, ContentHash::of(b"b")) && !loaded.holds(other.id, ContentHash::of(b"b")));
    write(&mut registry, &[Record::Revoked(one.id)]).await.unwrap();
    let loaded = registry.load().await.unwrap().trusted;
    assert_eq!((loaded.count(one.id), loaded.count(other.id)), (0, 1));
}

#[tokio::test]
async fn a_restored_volume_holds_its_offset_after_a_restart_until_it_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let restoring = Restoring {
        id: "1".to_owned(),
        engine: EngineId::new("docker x"),
        host: "unix:///x".to_owned(),
        volume: names::volume_name("db_data", 10_000),
        offset: Some(Offset(10_000)),
        has_ended: false,
    };
    let other = Restoring { id: "2".to_owned(), offset: None, ..restoring.clone() };
    let mut registry = fresh(dir.path()).await;
    let begun = [&restoring, &other].map(|it| Record::Restoring(Arc::new(it.clone())));
    write(&mut registry, &begun).await.unwrap();
    let loaded = registry.load().await.unwrap();
    assert_eq!(loaded.restorings().map(|it| (**it).clone()).collect::<Vec<_>>(), [restoring.clone(), other]);
    let ended = Record::Restored { id: "1".to_owned(), outcome: "restored".to_owned() };
    write(&mut registry, &[ended, Record::RestoredGone("2".to_owned())]).await.unwrap();
    registry.close().await.unwrap();
    let mut registry = fresh(dir.path()).await;
    let loaded = registry.load().await.unwrap();
    let ended = Restoring { has_ended: true, ..restoring };
    assert_eq!(loaded.restorings().map(|it| (**it).clone()).collect::<Vec<_>>(), [ended]);
    assert_eq!(loaded.held().map(|(offset, _)| offset).collect::<Vec<_>>(), [Offset(10_000)]);
    write(&mut registry, &[Record::RestoredGone("1".to_owned())]).await.unwrap();
    assert_eq!(registry.load().await.unwrap().restorings().count(), 0);
}

#[tokio::test]
async fn history_tells_who_had_which_offset() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository();
    let mut allocation = allocation(repository.id, 0);
    let mut registry = fresh(dir.path()).await;
    let first = [Record::Repository(repository.into()), record(&allocation, ChangeKind::Allocated)];
    write(&mut registry, &first).await.unwrap();
    allocation.state = State::Released;
    write(&mut registry, &[record(&allocation, ChangeKind::Released)]).await.unwrap();
    let history = registry.history();
    assert_eq!(history.latest().await.unwrap(), 2);
    let kinds: Vec<_> = history.after(0, 10).await.unwrap().into_iter().map(|change| change.kind).collect();
    assert_eq!(kinds, [ChangeKind::Allocated, ChangeKind::Released]);
    assert_eq!(history.after(1, 10).await.unwrap().len(), 1);
    assert_eq!(history.released(10).await.unwrap()[0].id, allocation.id.to_string());
    assert_eq!(registry.load().await.unwrap().allocations().count(), 0);
}

#[tokio::test]
async fn the_database_itself_keeps_two_allocations_apart() {
    let dir = tempfile::tempdir().unwrap();
    let repository = repository();
    let first = allocation(repository.id, 0);
    let mut registry = fresh(dir.path()).await;
    write(
        &mut registry,
        &[Record::Repository(repository.clone().into()), record(&first, ChangeKind::Allocated)],
    )
    .await
    .unwrap();

    let same_offset = Allocation { ports: Ports::default(), ..allocation(repository.id, 0) };
    assert!(
        write(&mut registry, &[record(&same_offset, ChangeKind::Allocated)]).await.is_err(),
        "one offset twice"
    );
    let mut same_port = allocation(repository.id, 10);
    same_port.ports.clone_from(&first.ports);
    assert!(
        write(&mut registry, &[record(&same_port, ChangeKind::Allocated)]).await.is_err(),
        "one port twice"
    );
    let mut same_volume = allocation(repository.id, 20);
    same_volume.volume = first.volume.clone();
    assert!(
        write(&mut registry, &[record(&same_volume, ChangeKind::Allocated)]).await.is_err(),
        "one volume twice"
    );
    let same_object = Allocation { objects: first.objects.clone(), ..allocation(repository.id, 30) };
    assert!(
        write(&mut registry, &[record(&same_object, ChangeKind::Allocated)]).await.is_err(),
        "one database twice"
    );
    assert_eq!(
        registry.load().await.unwrap().allocations().count(),
        1,
        "a refused step leaves nothing behind"
    );

    let released = Allocation { state: State::Released, ..first };
    let successor = allocation(repository.id, 0);
    write(
        &mut registry,
        &[record(&released, ChangeKind::Released), record(&successor, ChangeKind::Allocated)],
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn one_daemon_holds_a_registry() {
    let dir = tempfile::tempdir().unwrap();
    let first = fresh(dir.path()).await;
    let second = open(dir.path(), "another test").await;
    assert!(matches!(second, Err(StoreError::Held { holder, .. }) if holder == "a test"));
    first.close().await.unwrap();
    fresh(dir.path()).await;
}

#[tokio::test]
async fn what_is_no_registry_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    fresh(dir.path()).await.close().await.unwrap();
    let good = std::fs::read(&path).unwrap();
    let mut torn = good.clone();
    torn[4096..6000].fill(0xa5);
    for bad in [&b""[..], b"SQLite", &[0; 4096], &torn, b"not a database, but longer than a header"] {
        std::fs::write(&path, bad).unwrap();
        let opened = open(dir.path(), "a test").await;
        assert!(matches!(opened, Err(StoreError::Corrupt { .. })), "{opened:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bad);
    }
    std::fs::write(&path, &good).unwrap();
    fresh(dir.path()).await;
}

#[tokio::test]
async fn a_later_versions_registry_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    let mut registry = fresh(dir.path()).await;
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (29990101000000, 'later', 1, x'00', 0)";
    registry.connection.execute(later).await.unwrap();
    registry.close().await.unwrap();
    let before = std::fs::read(dir.path().join("registry.db")).unwrap();
    assert!(matches!(
        open(dir.path(), "a test").await,
        Err(StoreError::Newer { version: 29_990_101_000_000, .. })
    ));
    assert_eq!(std::fs::read(dir.path().join("registry.db")).unwrap(), before);
}

#[tokio::test]
async fn a_registry_that_was_unlinked_or_replaced_is_not_written() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("registry.db");
    let mut registry = fresh(dir.path()).await;
    let record = Record::Repository(repository().into());
    std::fs::copy(&path, dir.path().join("copy")).unwrap();
    std::fs::rename(dir.path().join("copy"), &path).unwrap();
    assert!(matches!(
        write(&mut registry, std::slice::from_ref(&record)).await,
        Err(StoreError::Replaced(_))
    ));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(write(&mut registry, &[record]).await, Err(StoreError::Replaced(_))));
}
