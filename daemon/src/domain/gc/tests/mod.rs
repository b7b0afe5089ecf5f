//! The contract's rules of gc, one test each, and together by property.

mod properties;
mod rules;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::num::NonZeroU16;
use std::sync::Arc;

use uuid::Uuid;
use wtd_protocol::State;
use wtd_protocol::variable::Variable;

use super::belongings::{COMPOSE_PROJECT_LABEL, COMPOSE_VOLUME_LABEL, COMPOSE_WORKING_DIR_LABEL};
use super::keep::Keep;
use super::made_after::names_to_look_for;
use super::plan::{Action, Options, Plan, Question, plan};
use super::proof::Proof;
use super::{Container, EngineId, EngineView, Look, Looks, Volume};
use crate::domain::allocation::{Allocation, DatabaseVolume, Moment};
use crate::domain::identity::{AllocationId, FileIdentity, RepositoryId};
use crate::domain::ledger::Ledger;
use crate::domain::names;
use crate::domain::offset::Offset;
use crate::domain::ports::{Port, Ports};
use crate::domain::project::DatabaseMode;

/// When allocations are made here; a time with a part of a second.
const MADE: Moment = Moment(1_700_000_000_500);
/// When their worktrees went.
const WENT: Moment = Moment(1_700_000_600_000);
/// When gc looks.
const NOW: Moment = Moment(1_700_001_200_000);

/// What a plan is made from, before it is changed by a test.
#[derive(Debug, Clone)]
struct World {
    ledger: Ledger,
    proofs: HashMap<AllocationId, Proof>,
    looks: Looks,
    engine: EngineView,
    created: HashMap<String, Moment>,
    options: Options,
}

fn engine_id() -> EngineId {
    EngineId::new("docker ID /var/lib/docker")
}

fn allocation(offset: u16, state: State) -> Allocation {
    let id = Uuid::from_u128(u128::from(offset) + 1);
    let port = Port {
        base: NonZeroU16::new(5432).unwrap(),
        port: 5432_u16.wrapping_add(offset).max(1),
        shared: false,
    };
    Allocation {
        id: AllocationId(id),
        repository: RepositoryId(Uuid::nil()),
        worktree_id: Some(format!("w{offset}").into()),
        git_dir: format!("/w/shop/.git/worktrees/w{offset}").into(),
        identity: FileIdentity { device: 1, inode: u64::from(offset) + 2, born_ns: Some(1) },
        path: format!("/w/w{offset}").into(),
        device: 1,
        finished: true,
        offset: Offset(offset),
        ports: Ports::from_iter([(Variable::db_host_port(), port)]),
        project: "shop".into(),
        project_is_configured: false,
        mode: DatabaseMode::Isolated,
        volume: DatabaseVolume::Own(names::volume_name("db_data", offset)),
        volumes: BTreeMap::from([(
            Variable::new("REDIS_VOLUME").unwrap(),
            names::volume_name("redis", offset),
        )]),
        former_volumes: BTreeSet::from([names::volume_name("old", offset)]),
        shared_volumes: BTreeSet::new(),
        compose: None,
        database: names::database_name("shop", offset, true),
        schema: None,
        template: None,
        objects: Vec::new(),
        env: BTreeMap::new(),
        untrusted: false,
        compose_project: Some(names::compose_project("shop", offset)),
        state,
        reason: String::new(),
        since: WENT,
        created: MADE,
        ending: None,
        passed_over: Vec::new(),
        warnings: Vec::new(),
    }
}

fn volume(name: &str) -> Volume {
    Volume { name: name.to_owned(), driver: "local".to_owned(), is_local: true, ..Volume::default() }
}

/// A volume as Compose makes it.
fn compose_volume(project: &str, short: &str, name: &str) -> Volume {
    let labels = [(COMPOSE_PROJECT_LABEL, project), (COMPOSE_VOLUME_LABEL, short)];
    Volume { labels: labels.map(|(k, v)| (k.to_owned(), v.to_owned())).into(), ..volume(name) }
}

fn container(name: &str, state: &str, project: Option<(&str, &str)>, volumes: &[&str]) -> Container {
    let labels = project.map(|(project, directory)| {
        [(COMPOSE_PROJECT_LABEL, project), (COMPOSE_WORKING_DIR_LABEL, directory)]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into()
    });
    Container {
        id: format!("{:0>12}", name.len()),
        name: name.to_owned(),
        state: state.to_owned(),
        labels: labels.unwrap_or_default(),
        volumes: volumes.iter().map(|name| (*name).to_owned()).collect(),
    }
}

impl World {
    /// Allocations that are proven removed where they are stale, on an engine that was there while they lived and had
    /// none of their volumes then.
    fn of(allocations: impl IntoIterator<Item = Allocation>) -> Self {
        let mut ledger = Ledger::default();
        let (mut proofs, mut looks) = (HashMap::new(), Looks::new());
        for allocation in allocations {
            let names = names_to_look_for(&allocation).into_iter().map(|name| (name, false)).collect();
            let look = Look { engine: engine_id(), host: "unix:///x".to_owned(), at: MADE, names };
            looks.insert(allocation.id, vec![look]);
            let proof = match allocation.state {
                State::Missing => Proof::Unproven("its directory is gone".to_owned()),
                _ => Proof::Removed,
            };
            proofs.insert(allocation.id, proof);
            ledger.put(Arc::new(allocation)).unwrap();
        }
        let engine = EngineView {
            id: engine_id(),
            tells_creation: false,
            volumes: Vec::new(),
            containers: Vec::new(),
        };
        Self { ledger, proofs, looks, engine, created: HashMap::new(), options: Options::default() }
    }

    /// The stale allocation at 10000, and its volume.
    fn usual() -> Self {
        Self::of([allocation(10_000, State::Stale)]).with(volume("db_data_10000"))
    }

    fn with(mut self, volume: Volume) -> Self {
        self.engine.volumes.push(volume);
        self
    }

    fn change(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes the one allocation.
    fn allocation(self, change: impl FnOnce(&mut Allocation)) -> Self {
        self.change(|world| {
            let mut allocation = (**world.ledger.allocations().next().unwrap()).clone();
            change(&mut allocation);
            world.ledger.put(Arc::new(allocation)).unwrap();
        })
    }

    fn plan(&self) -> Plan {
        plan(&Question {
            ledger: &self.ledger,
            proofs: &self.proofs,
            looks: &self.looks,
            engine: &self.engine,
            created: &self.created,
            now: NOW,
            options: self.options,
        })
    }

    /// The names of what is dropped.
    fn dropped(&self) -> Vec<String> {
        let items = self.plan().items.into_iter();
        items.filter(|item| matches!(item.action, Action::Drop(_))).map(|item| item.volume.name).collect()
    }

    /// Why the one volume is kept.
    #[track_caller]
    fn kept(&self) -> Keep {
        match self.plan().items.as_slice() {
            [item] => match &item.action {
                Action::Keep(keep) => keep.clone(),
                Action::Drop(name) => panic!("{name} is dropped"),
            },
            items => panic!("{items:#?}"),
        }
    }
}
