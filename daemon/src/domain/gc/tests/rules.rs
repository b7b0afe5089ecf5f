//! Each rule alone: a volume that would be dropped is kept because of it, and the reason says so.

use super::*;
use crate::domain::allocation::Ending;
use crate::domain::gc::belongings::{ALLOCATION_LABEL, left_overs};
use crate::domain::gc::plan::left_behind;
use crate::domain::gc::release::waits_for;

#[test]
fn the_volumes_of_a_removed_worktree_are_found_by_name_label_and_compose() {
    let labelled = Volume {
        labels: BTreeMap::from([(ALLOCATION_LABEL.to_owned(), Uuid::from_u128(10_001).to_string())]),
        ..volume("anything")
    };
    let world = World::usual()
        .with(volume("redis_10000"))
        .with(volume("old_10000"))
        .with(labelled)
        .with(compose_volume("shop-10000", "cache", "shop-10000_cache"))
        // Names that only look alike, a name that the Compose file gives, another worktree's, anonymous ones.
        .with(volume("xdb_data_10000"))
        .with(volume("db_data_100000"))
        .with(volume("shop-10000_cache2"))
        .with(compose_volume("shop-10000", "shared", "shared_cache"))
        .with(compose_volume("shop-20000", "cache", "shop-20000_cache"))
        .with(volume("0123456789abcdef"));
    let plan = world.plan();
    assert_eq!(
        world.dropped(),
        ["db_data_10000", "redis_10000", "old_10000", "anything", "shop-10000_cache"]
    );
    assert_eq!(plan.items.len(), 5, "what is not the worktree's is not so much as named");
    let allocation = world.ledger.allocations().next().unwrap();
    assert_eq!(left_behind(allocation, &[], &world.engine, &plan), None);
}

#[test]
fn what_a_project_of_an_earlier_configuration_has_is_the_worktrees() {
    let mut world = World::usual();
    world.engine.volumes.clear();
    // The engine was looked at for `shop-10000` as well.
    let world = world
        .allocation(|it| it.compose_project = Some(names::compose_project("store", 10_000)))
        .with(compose_volume("shop-10000", "cache", "shop-10000_cache"))
        .with(compose_volume("else-10000", "cache", "else-10000_cache"));
    let allocation = world.ledger.allocations().next().unwrap();
    let looks = &world.looks[&allocation.id];
    let left = |world: &World| waits_for(allocation, looks, std::slice::from_ref(&world.engine));
    assert_eq!(left(&world).as_deref(), Some("volume shop-10000_cache is left"));
    assert_eq!(world.dropped(), ["shop-10000_cache"]);
    assert_eq!(left_behind(allocation, looks, &world.engine, &world.plan()), None);
    // Its containers as well.
    let mut used = world.clone();
    let database = container("db", "exited", Some(("shop-10000", "/w/w10000")), &["shop-10000_cache"]);
    used.engine.containers.push(database);
    assert!(
        matches!(used.kept(), Keep::InUse { project: Some(project), .. } if project.as_str() == "shop-10000")
    );
    used.options.down = true;
    assert_eq!(used.dropped(), ["shop-10000_cache"]);
    assert!(used.plan().stacks.iter().all(|stack| stack.keep.is_none() && stack.containers.len() == 1));
    // One that was there before the worktree is somebody else's, and holds the offset all the same.
    let before = world.clone().change(|world| {
        let looks = world.looks.values_mut().flatten();
        looks.for_each(|look| look.names.values_mut().for_each(|was_there| *was_there = true));
    });
    assert_eq!(before.kept(), Keep::MadeBefore);
    assert!(left(&before).is_some());
}

#[test]
fn what_compose_made_for_a_live_worktree_by_its_directorys_name_is_kept() {
    let mut live = allocation(20_000, State::Active);
    live.path = "/w/shop-10000".into();
    let of_compose = compose_volume("shop-10000", "cache", "shop-10000_cache");
    let world = World::of([allocation(10_000, State::Stale), live.clone()]).with(of_compose.clone());
    assert_eq!(world.kept(), Keep::Live("/w/shop-10000".into()));
    live.state = State::Missing;
    let world = World::of([allocation(10_000, State::Stale), live.clone()]).with(of_compose);
    assert_eq!(world.plan().items[0].action, Action::Keep(Keep::Live("/w/shop-10000".into())));
    // What has a recorded name or the label is no other's, though Compose made it where a live worktree is now.
    live.state = State::Active;
    let named = compose_volume("shop-10000", "db", "db_data_10000");
    let world = World::of([allocation(10_000, State::Stale), live]).with(named);
    assert_eq!(world.dropped(), ["db_data_10000"]);
}

/// As where a registry was restored from a copy that is older than the worktree which has the offset now.
#[test]
fn what_was_made_after_the_worktree_went_is_kept_where_the_engine_tells() {
    let made_at = |ms: i64| {
        World::usual().change(|world| {
            world.engine.tells_creation = true;
            world.created.insert("db_data_10000".to_owned(), Moment(ms));
        })
    };
    assert_eq!(made_at(WENT.0 + 1000).kept(), Keep::MadeAfter);
    assert_eq!(made_at(WENT.0).dropped(), ["db_data_10000"], "in the same second");
    let untold = made_at(WENT.0 + 1000).change(|world| world.engine.tells_creation = false);
    assert_eq!(untold.dropped(), ["db_data_10000"]);
    let labelled = made_at(WENT.0 + 1000).change(|world| {
        let id = world.ledger.allocations().next().unwrap().id.to_string();
        world.engine.volumes[0].labels.insert(ALLOCATION_LABEL.to_owned(), id);
    });
    assert_eq!(labelled.dropped(), ["db_data_10000"]);
    // A worktree that was forgotten or moved to another offset goes on, and so may its stack.
    let goes_on = made_at(WENT.0 + 1000)
        .allocation(|it| it.ending = Some(Ending::Forgotten))
        .change(|world| world.options.missing = true);
    assert_eq!(goes_on.dropped(), ["db_data_10000"]);
}

#[test]
fn a_live_allocations_volumes_are_not_in_the_plan() {
    let world = World::of([allocation(10_000, State::Active)]).with(volume("db_data_10000"));
    assert!(world.plan().items.is_empty());
}

#[test]
fn a_volume_that_a_live_allocation_names_is_kept() {
    let mut live = allocation(20_000, State::Active);
    live.volumes.insert(Variable::new("OTHER").unwrap(), names::volume_name("db_data", 10_000));
    let world = World::of([allocation(10_000, State::Stale), live.clone()]).with(volume("db_data_10000"));
    assert_eq!(world.kept(), Keep::Live("/w/w20000".into()));
    // Missing is live, and so is a name of an earlier configuration.
    live.volumes.clear();
    live.former_volumes.insert(names::volume_name("db_data", 10_000));
    live.state = State::Missing;
    let world = World::of([allocation(10_000, State::Stale), live.clone()])
        .with(volume("db_data_10000"))
        .change(|world| world.options.missing = true);
    let items = world.plan().items;
    assert!(
        items.iter().any(|item| item.action == Action::Keep(Keep::Live("/w/w20000".into()))),
        "{items:#?}"
    );
    // By label, and by Compose project.
    let label = |name: &str, value: String| BTreeMap::from([(name.to_owned(), value)]);
    for labels in
        [label(ALLOCATION_LABEL, live.id.to_string()), label(COMPOSE_PROJECT_LABEL, "shop-20000".to_owned())]
    {
        let world = World::of([allocation(10_000, State::Stale), allocation(20_000, State::Active)])
            .with(Volume { labels, ..volume("db_data_10000") });
        assert_eq!(world.kept(), Keep::Live("/w/w20000".into()));
    }
}

#[test]
fn the_volume_of_a_server_that_worktrees_share_is_nobodys_to_drop() {
    for state in [State::Active, State::Stale] {
        let mut shares = allocation(20_000, state);
        shares.volume = DatabaseVolume::Shared(names::volume_name("db_data", 10_000));
        let world = World::of([allocation(10_000, State::Stale), shares]).with(volume("db_data_10000"));
        assert_eq!(world.kept(), Keep::Live("/w/w20000".into()));
    }
}

#[test]
fn what_is_missing_is_kept_unless_it_is_included() {
    let world = World::of([allocation(10_000, State::Missing)]).with(volume("db_data_10000"));
    assert!(matches!(world.kept(), Keep::Missing(_)));
    let included = world.change(|world| world.options.missing = true);
    assert_eq!(included.dropped(), ["db_data_10000"]);
    let back = included
        .change(|world| drop(world.proofs.insert(AllocationId(Uuid::from_u128(10_001)), Proof::Standing)));
    assert_eq!(back.kept(), Keep::Standing, "it came back while gc was about to begin");
}

#[test]
fn a_locked_worktree_is_kept_whatever_is_asked_for() {
    for state in [State::Missing, State::Stale] {
        let world = World::of([allocation(10_000, state)]).with(volume("db_data_10000")).change(|world| {
            world.options.missing = true;
            world.proofs.insert(AllocationId(Uuid::from_u128(10_001)), Proof::Locked);
        });
        assert_eq!(world.kept(), Keep::Locked);
    }
}

#[test]
fn git_is_asked_again_and_what_it_can_not_say_is_not_nothing() {
    let id = AllocationId(Uuid::from_u128(10_001));
    let unproven = World::usual()
        .change(|world| drop(world.proofs.insert(id, Proof::Unproven("its repository is gone".into()))));
    assert_eq!(unproven.kept(), Keep::Unproven("its repository is gone".into()));
    assert_eq!(unproven.change(|world| world.options.missing = true).dropped(), ["db_data_10000"]);
    let standing = World::usual().change(|world| drop(world.proofs.insert(id, Proof::Standing)));
    assert_eq!(standing.kept(), Keep::Standing);
    assert_eq!(standing.change(|world| world.options.missing = true).kept(), Keep::Standing);
    let not_asked = World::usual().change(|world| drop(world.proofs.remove(&id)));
    assert!(matches!(not_asked.kept(), Keep::Unproven(_)));
    assert!(matches!(not_asked.change(|world| world.options.missing = true).kept(), Keep::Unproven(_)));
}

#[test]
fn what_a_person_forgot_or_moved_is_kept_unless_it_is_included() {
    let id = AllocationId(Uuid::from_u128(10_001));
    for (ending, keep) in [(Ending::Forgotten, Keep::Forgotten), (Ending::Reassigned, Keep::Reassigned)] {
        let world = World::usual()
            .allocation(|allocation| allocation.ending = Some(ending))
            .change(|world| drop(world.proofs.insert(id, Proof::Standing)));
        assert_eq!(world.kept(), keep);
        assert_eq!(world.change(|world| world.options.missing = true).dropped(), ["db_data_10000"]);
    }
    let removed = World::usual().allocation(|allocation| allocation.ending = Some(Ending::Forgotten));
    assert_eq!(removed.kept(), Keep::Forgotten, "forgotten is forgotten, removed or not");
    let removed = World::usual().allocation(|allocation| allocation.ending = Some(Ending::Reassigned));
    assert_eq!(removed.dropped(), ["db_data_10000"], "the worktree that was moved is gone as well");
}

#[test]
fn what_went_lately_is_kept() {
    let age = NOW.0 - WENT.0;
    let with_age = |older_than_ms| World::usual().change(|world| world.options.older_than_ms = older_than_ms);
    assert_eq!(with_age(age).dropped(), ["db_data_10000"]);
    assert_eq!(with_age(age + 1).kept(), Keep::Young);
    // A clock that was set back is no reason to drop anything.
    let ahead = with_age(1).allocation(|allocation| allocation.since = Moment(NOW.0 + 1_000_000));
    assert_eq!(ahead.kept(), Keep::Young);
}

#[test]
fn another_engine_than_when_the_worktree_was_there_is_let_alone() {
    let other = World::usual().change(|world| world.engine.id = EngineId::new("another"));
    assert_eq!(other.kept(), Keep::OtherEngine);
    let never = World::usual().change(|world| world.looks.clear());
    assert_eq!(never.kept(), Keep::UnknownEngine);
    // A volume with the very allocation's id on it was made while the worktree was there.
    let labels = BTreeMap::from([(ALLOCATION_LABEL.to_owned(), Uuid::from_u128(10_001).to_string())]);
    let labelled = |mut world: World| {
        world.engine.volumes = vec![Volume { labels: labels.clone(), ..volume("db_data_10000") }];
        world
    };
    assert_eq!(labelled(never).dropped(), ["db_data_10000"]);
    assert_eq!(labelled(other).kept(), Keep::OtherEngine);
}

#[test]
fn a_name_that_is_not_wtds_is_kept() {
    let labels = BTreeMap::from([(ALLOCATION_LABEL.to_owned(), Uuid::from_u128(10_001).to_string())]);
    for name in ["../containers/x", "Upper", "a?force=1", "x", "a..b"] {
        let world = World::of([allocation(10_000, State::Stale)])
            .with(Volume { labels: labels.clone(), ..volume(name) });
        assert_eq!(world.kept(), Keep::Name, "{name}");
    }
}

#[test]
fn only_plain_local_volumes_are_dropped() {
    let with = |change: &dyn Fn(&mut Volume)| {
        World::usual().change(|world| world.engine.volumes.iter_mut().for_each(change)).kept()
    };
    assert!(matches!(with(&|volume| volume.driver = "nfs".into()), Keep::Driver(_)));
    assert!(matches!(with(&|volume| volume.is_local = false), Keep::Driver(_)));
    let options = BTreeMap::from([("device".to_owned(), ":/exports".to_owned())]);
    assert!(matches!(with(&|volume| volume.options = options.clone()), Keep::Driver(_)));
}

#[test]
fn what_was_there_before_the_allocation_is_theirs() {
    let was_there = World::usual().change(|world| {
        for look in world.looks.values_mut().flatten() {
            look.names.insert("db_data_10000".to_owned(), true);
        }
    });
    assert_eq!(was_there.kept(), Keep::MadeBefore);
    let not_looked_for = World::usual().change(|world| {
        for look in world.looks.values_mut().flatten() {
            look.names.clear();
        }
    });
    assert_eq!(not_looked_for.kept(), Keep::MadeBefore);
    // An engine that says when it made a volume is believed, one that gives the last change is not.
    let at = |world: &World, created, tells_creation| {
        let mut world = world.clone();
        world.created.insert("db_data_10000".to_owned(), created);
        world.engine.tells_creation = tells_creation;
        world
    };
    let next_second = Moment(1_700_000_001_000);
    assert_eq!(at(&was_there, next_second, true).dropped(), ["db_data_10000"]);
    assert_eq!(at(&was_there, next_second, false).kept(), Keep::MadeBefore);
    assert_eq!(at(&was_there, Moment(1_700_000_000_999), true).kept(), Keep::MadeBefore, "the same second");
    // Our label is on nothing that was there before.
    let labelled = was_there.change(|world| {
        let labels = BTreeMap::from([(ALLOCATION_LABEL.to_owned(), Uuid::from_u128(10_001).to_string())]);
        world.engine.volumes = vec![Volume { labels, ..volume("db_data_10000") }];
    });
    assert_eq!(labelled.dropped(), ["db_data_10000"]);
}

#[test]
fn a_volume_with_anothers_label_is_kept() {
    let with = |volume| World::of([allocation(10_000, State::Stale)]).with(volume);
    let labels = BTreeMap::from([(ALLOCATION_LABEL.to_owned(), "0191-another".to_owned())]);
    assert_eq!(
        with(Volume { labels, ..volume("db_data_10000") }).kept(),
        Keep::OthersLabel("0191-another".into())
    );
    let other = compose_volume("billing", "db", "db_data_10000");
    assert_eq!(with(other).kept(), Keep::OthersProject("billing".into()));
    // Compose gives a stack that was started without wtd's variables the directory's name.
    for project in ["shop-10000", "w10000"] {
        assert_eq!(with(compose_volume(project, "db", "db_data_10000")).dropped(), ["db_data_10000"]);
    }
}

#[test]
fn a_name_with_a_variable_of_wtds_in_it_is_the_worktrees_and_a_fixed_one_is_every_worktrees() {
    let with = |offset: u16, name: &str| {
        let project = format!("shop-{offset}");
        World::of([allocation(offset, State::Stale)]).with(compose_volume(&project, "cache", name))
    };
    for name in ["shop-10000_cache", "cache-shop-10000", "cache-10000", "10000.cache", "pg_15432"] {
        assert_eq!(with(10_000, name).dropped(), [name]);
    }
    // A version, a longer number, another worktree's: what is not even a line of the plan is nobody's here.
    for (offset, name) in
        [(10, "pg-10"), (10_000, "cache-110000"), (10_000, "cache-20000"), (10_000, "cache")]
    {
        assert!(with(offset, name).plan().items.is_empty(), "{name}");
    }
    let of_another = World::of([allocation(10_000, State::Stale)]);
    let of_another = of_another.with(compose_volume("billing", "cache", "cache-10000"));
    assert!(of_another.plan().items.is_empty());
}

#[test]
fn a_volume_in_use_is_kept_and_the_reason_names_who_uses_it() {
    let used_by =
        |container: Container| World::usual().change(|world| world.engine.containers.push(container));
    let own = Some(("shop-10000", "/w/w10000"));
    let stopped = used_by(container("shop-10000-db-1", "exited", own, &["db_data_10000"]));
    let reason = stopped.kept().to_string();
    assert!(reason.contains("shop-10000-db-1 (exited)"), "{reason}");
    assert!(reason.contains("docker compose -p shop-10000 down"), "{reason}");
    assert!(matches!(stopped.kept(), Keep::InUse { running: false, .. }));
    assert_eq!(stopped.change(|world| world.options.down = true).dropped(), ["db_data_10000"]);
    // Somebody else's container is nobody's to remove: by project, by directory, or by having no label at all.
    for project in [None, Some(("shop-10000", "/elsewhere")), Some(("billing", "/w/w10000"))] {
        for state in ["running", "exited", "created", "paused"] {
            let other = used_by(container("other", state, project, &["db_data_10000"]));
            let with_down = other.change(|world| world.options.down = true);
            assert!(matches!(with_down.kept(), Keep::InUse { project: None, .. }), "{project:?} {state}");
        }
    }
    // One of them is enough.
    let both = used_by(container("shop-10000-db-1", "exited", own, &["db_data_10000"])).change(|world| {
        world.engine.containers.push(container("other", "exited", None, &["x", "db_data_10000"]));
        world.options.down = true;
    });
    assert!(matches!(both.kept(), Keep::InUse { .. }));
}

#[test]
fn containers_of_the_worktrees_own_project_are_removed_only_when_that_is_asked_for() {
    let own = container("shop-10000-web-1", "exited", Some(("shop-10000", "/w/w10000/deploy")), &[]);
    let world = World::of([allocation(10_000, State::Stale)]).change(|world| {
        world.engine.containers = vec![
            own,
            container("shop-10000-web-2", "exited", Some(("shop-10000", "/elsewhere")), &[]),
            container("shop-20000-web-1", "exited", Some(("shop-20000", "/w/w20000")), &[]),
        ];
    });
    let stacks = world.plan().stacks;
    assert_eq!(stacks.len(), 1);
    assert!(matches!(stacks[0].keep, Some(Keep::NotAskedFor(_))), "{stacks:#?}");
    let world = world.change(|world| world.options.down = true);
    let plan = world.plan();
    assert!(plan.stacks[0].keep.is_none() && plan.stacks[0].containers.len() == 1);
    let allocation = world.ledger.allocations().next().unwrap();
    assert_eq!(
        left_behind(allocation, &[], &world.engine, &plan).as_deref(),
        Some("container shop-10000-web-2"),
        "another's container of the project's name"
    );
    let young = world.change(|world| world.options.older_than_ms = i64::MAX);
    assert_eq!(young.plan().stacks[0].keep, Some(Keep::Young));
}

#[test]
fn an_offset_is_free_only_when_nothing_is_left_anywhere() {
    let world = World::usual();
    let allocation = world.ledger.allocations().next().unwrap();
    let looks = &world.looks[&allocation.id];
    let waits =
        |engine: &EngineView, looks: &[Look]| waits_for(allocation, looks, std::slice::from_ref(engine));
    assert!(waits(&world.engine, looks).is_some_and(|why| why.contains("db_data_10000")));
    let empty = EngineView { volumes: Vec::new(), ..world.engine.clone() };
    assert_eq!(waits(&empty, looks), None);
    assert_eq!(waits(&empty, &[]), None);
    let other = EngineView { id: EngineId::new("another"), ..empty.clone() };
    assert!(waits(&other, looks).is_some(), "the engine of before may have everything still");
    assert_eq!(waits_for(allocation, looks, &[other.clone(), empty.clone()]), None);
    assert!(waits_for(allocation, looks, &[other, world.engine.clone()]).is_some());
    assert!(waits_for(allocation, looks, &[]).is_some(), "nobody answers");
    let stack = container("shop-10000-db-1", "exited", Some(("shop-10000", "/elsewhere")), &[]);
    let with_container = EngineView { containers: vec![stack], ..empty };
    assert!(!left_overs(allocation, &[], &with_container).is_empty());
}
