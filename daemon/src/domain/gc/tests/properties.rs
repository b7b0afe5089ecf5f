//! Whatever the world is like: nothing is dropped that any rule protects, each rule written down a second time.

use proptest::prelude::*;

use super::*;
use crate::domain::allocation::Ending;
use crate::domain::gc::belongings::ALLOCATION_LABEL;

fn arbitrary_allocation(offset: u16) -> impl Strategy<Value = Allocation> {
    let state = prop_oneof![4 => Just(State::Stale), 2 => Just(State::Missing), 2 => Just(State::Active)];
    let ending =
        prop_oneof![4 => Just(None), 1 => Just(Some(Ending::Forgotten)), 1 => Just(Some(Ending::Reassigned))];
    // Some live allocations have the names of others.
    (state, ending, prop::option::of(prop_oneof![Just(0_u16), Just(10_000), Just(20_000)]), -5000_i64..5000)
        .prop_map(move |(state, ending, borrowed, went)| {
            let mut it = allocation(offset, state);
            it.ending = ending.filter(|_| state == State::Stale);
            it.since = Moment(NOW.0 - 1000 + went);
            if let Some(borrowed) = borrowed.filter(|_| state == State::Active) {
                it.former_volumes.insert(names::volume_name("db_data", borrowed));
            }
            it
        })
}

fn proof() -> impl Strategy<Value = Option<Proof>> {
    prop_oneof![
        6 => Just(Some(Proof::Removed)),
        1 => Just(Some(Proof::Standing)),
        1 => Just(Some(Proof::Locked)),
        1 => Just(Some(Proof::Unproven("why".to_owned()))),
        1 => Just(None),
    ]
}

fn name() -> impl Strategy<Value = String> {
    let offset = prop_oneof![Just(0_u16), Just(10_000), Just(20_000)];
    let stem = prop_oneof![4 => Just("db_data_"), 1 => Just("redis_"), 1 => Just("old_"), 1 => Just("other_"), 1 => Just("../")];
    prop_oneof![
        4 => (stem, offset.clone()).prop_map(|(stem, offset)| format!("{stem}{offset}")),
        1 => offset.prop_map(|offset| format!("shop-{offset}_cache")),
    ]
}

fn project() -> impl Strategy<Value = &'static str> {
    prop_oneof![Just("shop-0"), Just("shop-10000"), Just("shop-20000"), Just("billing"), Just("w10000")]
}

fn arbitrary_volume() -> impl Strategy<Value = Volume> {
    let label = prop_oneof![6 => Just(None), 1 => (0_u128..4).prop_map(|n| Some(Uuid::from_u128(n * 10_000 + 1).to_string()))];
    (name(), label, prop::option::weighted(0.3, project()), 0..12_u8).prop_map(
        |(name, label, project, odd)| {
            let mut it = match project {
                Some(project) => compose_volume(project, "cache", &name),
                None => volume(&name),
            };
            it.labels.extend(label.map(|label| (ALLOCATION_LABEL.to_owned(), label)));
            match odd {
                0 => it.driver = "nfs".to_owned(),
                1 => drop(it.options.insert("o".to_owned(), "bind".to_owned())),
                2 => it.is_local = false,
                _ => {}
            }
            it
        },
    )
}

fn arbitrary_container() -> impl Strategy<Value = Container> {
    let directory = prop_oneof![Just("/w/w10000"), Just("/w/w20000"), Just("/elsewhere")];
    let state = prop_oneof![Just("running"), Just("exited"), Just("created")];
    (state, prop::option::of((project(), directory)), prop::collection::vec(name(), 0..3)).prop_map(
        |(state, project, volumes)| {
            let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
            container("c", state, project, &volumes)
        },
    )
}

prop_compose! {
    fn world()(
        allocations in (arbitrary_allocation(0), arbitrary_allocation(10_000), arbitrary_allocation(20_000)),
        proofs in prop::array::uniform3(proof()),
        engines in prop::array::uniform3(prop_oneof![6 => Just(Some(true)), 1 => Just(Some(false)), 1 => Just(None)]),
        was_there in prop::collection::hash_set(name(), 0..2),
        mut volumes in prop::collection::vec(arbitrary_volume(), 0..8),
        containers in prop::collection::vec(arbitrary_container(), 0..3),
        created in -5000_i64..5000,
        tells_creation: bool, missing: bool, down: bool, project_was_there: bool,
        older_than_ms in prop_oneof![Just(0), 0_i64..3000],
    ) -> World {
        let mut met = std::collections::HashSet::new();
        volumes.retain(|volume| met.insert(volume.name.clone()));
        let all = [allocations.0, allocations.1, allocations.2];
        let ids = all.each_ref().map(|allocation| allocation.id);
        let mut world = World::of(all);
        for ((id, proof), engine) in ids.into_iter().zip(proofs).zip(engines) {
            match proof {
                Some(proof) => drop(world.proofs.insert(id, proof)),
                None => drop(world.proofs.remove(&id)),
            }
            match engine {
                Some(true) => {}
                Some(false) => world.looks.get_mut(&id).unwrap()[0].engine = EngineId::new("another"),
                None => drop(world.looks.remove(&id)),
            }
        }
        for look in world.looks.values_mut().flatten() {
            for name in was_there.iter().filter(|name| !name.contains('/')) {
                if let Some(known) = look.names.get_mut(name) {
                    *known = true;
                }
            }
            for (_, known) in look.names.iter_mut().filter(|(name, _)| name.starts_with("project ")) {
                *known = project_was_there;
            }
        }
        world.created = volumes.iter().map(|it| (it.name.clone(), Moment(MADE.0 + created))).collect();
        world.engine.volumes = volumes;
        world.engine.containers = containers;
        world.engine.tells_creation = tells_creation;
        world.options = Options { missing, older_than_ms, down, backup: false };
        world
    }
}

/// Why a volume must not be dropped for an allocation, by the contract's own words.
fn protection(world: &World, owner: &Allocation, volume: &Volume) -> Option<&'static str> {
    let label = |name: &str| volume.labels.get(name).map(String::as_str);
    let owners_id = owner.id.to_string();
    let labelled = label(ALLOCATION_LABEL) == Some(owners_id.as_str());
    let proof = world.proofs.get(&owner.id);
    let looks = world.looks.get(&owner.id);
    let look = looks.and_then(|looks| looks.iter().find(|look| look.engine == world.engine.id));
    let others = || world.ledger.allocations().filter(|other| other.id != owner.id && other.is_live());
    let uses = || world.engine.containers.iter().filter(|container| container.volumes.contains(&volume.name));
    let own_container = |container: &Container| {
        let label = |name: &str| container.labels.get(name).map(String::as_str);
        label(COMPOSE_PROJECT_LABEL) == Some(&*format!("shop-{}", owner.offset.0))
            && label(COMPOSE_WORKING_DIR_LABEL) == Some(&*format!("/w/w{}", owner.offset.0))
    };
    let absent_before = look.is_some_and(|look| {
        look.names.get(&volume.name) == Some(&false)
            || look
                .names
                .iter()
                .any(|(name, there)| name.ends_with('_') && !there && volume.name.starts_with(name.as_str()))
            || label(COMPOSE_PROJECT_LABEL)
                .is_some_and(|project| look.names.get(&format!("project {project}")) == Some(&false))
    });
    let later = world.engine.tells_creation
        && world.created.get(&volume.name).is_some_and(|at| at.0.div_euclid(1000) > MADE.0.div_euclid(1000));
    let afterwards = world.engine.tells_creation
        && world
            .created
            .get(&volume.name)
            .is_some_and(|at| at.0.div_euclid(1000) > owner.since.0.div_euclid(1000));
    let rules = [
        (owner.state == State::Active, "it is a live worktree's"),
        (owner.state == State::Missing && !world.options.missing, "missing"),
        (owner.ending == Some(Ending::Forgotten) && !world.options.missing, "forgotten"),
        (proof == Some(&Proof::Locked), "locked"),
        (proof == Some(&Proof::Standing) && owner.ending.is_none(), "standing"),
        (proof != Some(&Proof::Removed) && !world.options.missing, "not proven removed"),
        (proof.is_none() && owner.ending.is_none(), "git was not asked"),
        (NOW.0 - owner.since.0 < world.options.older_than_ms, "young"),
        (look.is_none() && !(labelled && looks.is_none()), "another engine"),
        (
            others().any(|other| other.own_volumes().any(|name| name.as_str() == volume.name)),
            "a live one names it",
        ),
        (others().any(|other| label(ALLOCATION_LABEL) == Some(&*other.id.to_string())), "a live one's label"),
        (label(ALLOCATION_LABEL).is_some() && !labelled, "another's label"),
        (label(COMPOSE_PROJECT_LABEL) == Some("billing") && !labelled, "another project's"),
        (volume.driver != "local" || !volume.options.is_empty() || !volume.is_local, "no plain local volume"),
        (!labelled && !absent_before && !later, "made before"),
        (
            !labelled
                && afterwards
                && owner.state == State::Stale
                && owner.ending.is_none()
                && proof == Some(&Proof::Removed),
            "made after",
        ),
        (uses().any(|container| !own_container(container)), "in use by others"),
        (uses().count() > 0 && !world.options.down, "in use"),
        (volume.name.contains('/') || volume.name.contains(".."), "no name for an engine"),
    ];
    rules.into_iter().find(|(protects, _)| *protects).map(|(_, rule)| rule)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn nothing_is_dropped_that_any_rule_protects(world in world()) {
        for item in world.plan().items {
            if let Action::Drop(name) = &item.action {
                prop_assert_eq!(name.as_str(), item.volume.name.as_str());
                prop_assert_eq!(protection(&world, &item.allocation, &item.volume), None, "{:#?}", item);
            }
        }
    }

    #[test]
    fn a_live_allocations_names_are_never_dropped(world in world()) {
        let dropped = world.dropped();
        for live in world.ledger.allocations().filter(|it| it.is_live() && !(world.options.missing && it.state == State::Missing)) {
            for name in live.own_volumes() {
                prop_assert!(!dropped.iter().any(|dropped| dropped == name.as_str()), "{name}");
            }
        }
    }

    #[test]
    fn what_no_rule_protects_is_dropped(world in world()) {
        // Else the two properties above would hold for a gc that does nothing.
        for item in world.plan().items {
            if let Action::Keep(keep) = &item.action {
                let projects = item.volume.labels.get(COMPOSE_PROJECT_LABEL);
                let ours = projects.is_none_or(|project| *project == format!("shop-{}", item.allocation.offset.0));
                if ours {
                    prop_assert!(protection(&world, &item.allocation, &item.volume).is_some(), "{keep}: {:#?}", item);
                }
            }
        }
    }
}
