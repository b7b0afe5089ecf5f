//! A step in the making: the ledger as it will be, and the records that take the database there.

mod overrides;

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;
use std::path::Path;
use std::sync::Arc;

use wtd_protocol::variable::{Variable, WTD_WORKTREE};
use wtd_protocol::{ChangeKind, State};

use super::allocation::{Allocation, DatabaseVolume, Ending, Moment, Repository, is_mistake};
use super::allocator::{self, Exhausted, Rules, Taken};
use super::content_hash::ContentHash;
use super::gc::Look;
use super::gc::removal::Removal;
use super::identity::{AllocationId, RepositoryId};
use super::ledger::{Ledger, Overlap};
use super::names;
use super::observation::ObservedWorktree;
use super::offset::Offset;
use super::ports::Port;
use super::project::{DatabaseMode, Project};
use super::restoring::Restoring;
use super::seed::Seeding;
use super::template;
use super::variables;

/// What a step needs from outside.
pub trait Surroundings {
    /// The time.
    fn now(&self) -> Moment;
    /// An id that no allocation has had.
    fn new_allocation_id(&mut self) -> AllocationId;
    /// An id that no repository has had.
    fn new_repository_id(&mut self) -> RepositoryId;
    /// Who listens on `port` now, other than the worktree at `root` itself.
    fn listener(&mut self, port: u16, root: &Path) -> Option<String>;
    /// The rules of the machine.
    fn rules(&self) -> &Rules;
}

/// One record to be written.
#[derive(Debug, Clone)]
pub enum Record {
    /// A repository, new or changed.
    Repository(Arc<Repository>),
    /// An allocation, new or changed.
    Allocation {
        /// The allocation afterwards.
        allocation: Arc<Allocation>,
        /// What happened, where it is worth telling.
        kind: Option<ChangeKind>,
    },
    /// A person trusted a content.
    Trusted {
        /// The repository that it is trusted in.
        repository: RepositoryId,
        /// The content.
        content: ContentHash,
        /// When.
        at: Moment,
    },
    /// A person took back what they had trusted in a repository.
    Revoked(RepositoryId),
    /// A first look at an engine, for an allocation that lives.
    Look {
        /// The allocation.
        allocation: AllocationId,
        /// What was found.
        look: Arc<Look>,
    },
    /// Something that gc is about to remove.
    Removal(Arc<Removal>),
    /// What came of it, in a word or a sentence.
    Removed {
        /// What was to be removed.
        removal: Arc<Removal>,
        /// What came of it.
        outcome: String,
    },
    /// A volume that is about to be restored.
    Restoring(Arc<Restoring>),
    /// What came of it, in a word or a sentence.
    Restored {
        /// The restoring's id.
        id: String,
        /// What came of it.
        outcome: String,
    },
    /// A restored volume is not there any more: that of the restoring with this id.
    RestoredGone(String),
    /// A volume that is about to be filled, or that is filled in another way than was begun.
    Seeding(Arc<Seeding>),
    /// What came of it, in a word or a sentence.
    Seeded {
        /// The copy's id.
        id: String,
        /// What came of it.
        outcome: String,
    },
    /// The oldest of the past goes, as far as nothing but readers of the past could miss it.
    Pruned {
        /// How many changes are kept, the latest.
        kept: u32,
        /// How many go at most.
        at_most: u32,
    },
}

/// The ledger with the step's records applied, and the records themselves.
#[derive(Debug, Clone)]
pub struct Draft {
    /// The ledger as it will be.
    pub ledger: Ledger,
    /// What is to be written, in order.
    pub records: Vec<Record>,
}

impl Draft {
    /// A step that begins from `ledger`.
    pub fn new(ledger: &Ledger) -> Self {
        Self { ledger: ledger.clone(), records: Vec::new() }
    }

    /// Records a repository, if that says anything new.
    pub fn put_repository(&mut self, repository: Repository) {
        if self.ledger.repository(repository.id).is_some_and(|before| **before == repository) {
            return;
        }
        let repository = Arc::new(repository);
        self.ledger.put_repository(Arc::clone(&repository));
        self.records.push(Record::Repository(repository));
    }

    /// Records an allocation, if that says anything new.
    pub fn put(&mut self, after: Allocation) -> Result<Arc<Allocation>, Overlap> {
        let before = self.ledger.allocation(after.id).cloned();
        if let Some(before) = &before
            && **before == after
        {
            return Ok(Arc::clone(before));
        }
        let kind = what_happened(before.as_deref(), &after);
        let allocation = Arc::new(after);
        self.ledger.put(Arc::clone(&allocation))?;
        self.records.push(Record::Allocation { allocation: Arc::clone(&allocation), kind });
        Ok(allocation)
    }

    /// Gives a worktree that has none an allocation.
    pub fn allocate(
        &mut self,
        repository: RepositoryId,
        worktree: &ObservedWorktree,
        device: u64,
        finished: bool,
        preferred: Option<Offset>,
        surroundings: &mut impl Surroundings,
    ) -> Result<Result<Arc<Allocation>, Exhausted>, Overlap> {
        let project = &self.named_as_siblings(repository, &worktree.project);
        let moved: BTreeMap<Variable, NonZeroU16> = project
            .base_ports
            .iter()
            .filter(|(name, _)| project.database_mode.moves(name))
            .map(|(n, b)| (n.clone(), *b))
            .collect();
        let rules = surroundings.rules().clone();
        let listener = |port| surroundings.listener(port, &worktree.path);
        let granted = match allocator::allocate(&moved, preferred, &self.ledger, &rules, listener) {
            Ok(granted) => granted,
            Err(exhausted) => return Ok(Err(exhausted)),
        };
        let port_of = |(name, base): (&Variable, &NonZeroU16)| {
            let moved = granted.ports.get(name);
            let port =
                Port { base: *base, port: moved.copied().unwrap_or(base.get()), shared: moved.is_none() };
            (name.clone(), port)
        };
        let now = surroundings.now();
        let names = Names::of(project, granted.offset, worktree.id.is_none());
        let mut allocation = Allocation {
            id: surroundings.new_allocation_id(),
            repository,
            worktree_id: worktree.id.clone(),
            git_dir: worktree.git_dir.clone(),
            identity: worktree.identity,
            path: worktree.path.clone(),
            device,
            finished,
            offset: granted.offset,
            ports: project.base_ports.iter().map(port_of).collect(),
            project: project.name.clone(),
            project_is_configured: project.name_is_configured,
            mode: project.database_mode,
            volume: names.volume,
            volumes: names.volumes,
            former_volumes: BTreeSet::new(),
            shared_volumes: project.shared_volumes.clone(),
            compose: None,
            database: names.database,
            schema: names.schema,
            template: project.database_template.clone(),
            objects: Vec::new(),
            compose_project: names.compose_project,
            env: BTreeMap::new(),
            untrusted: false,
            state: State::Active,
            reason: String::new(),
            since: now,
            created: now,
            ending: None,
            passed_over: granted.passed_over,
            warnings: project.warnings.clone(),
        };
        self.apply_templates(&mut allocation, project);
        self.put(allocation).map(Ok)
    }

    /// The project under the name that worktrees of its repository share a server by: a directory that was renamed since
    /// does not rename what they share.
    fn named_as_siblings(&self, repository: RepositoryId, project: &Project) -> Project {
        let mut project = project.clone();
        if !project.name_is_configured && project.database_mode != DatabaseMode::Isolated {
            let is_sibling = |other: &&Arc<Allocation>| {
                other.is_live() && other.mode == project.database_mode && !other.project_is_configured
            };
            if let Some(sibling) = self.ledger.of_repository(repository).find(is_sibling) {
                project.rename(&sibling.project);
            }
        }
        project
    }

    /// Brings an allocation's ports and names in line with its project's configuration. The offset and the mode stay;
    /// a port that can't be had at this offset is left out with a warning.
    pub fn configure(&self, allocation: &mut Allocation, project: &Project, rules: &Rules) {
        let mut warnings = project.warnings.clone();
        if project.is_unknown {
            allocation.warnings = warnings;
            return;
        }
        let is_other_mode = project.database_mode != allocation.mode;
        if is_other_mode {
            warnings.push(format!(
                "database.mode is {:?} for new worktrees; this one keeps {:?}, in which it was made; `wtd-client reassign` makes it anew",
                project.database_mode.as_str(),
                allocation.mode.as_str()
            ));
        }
        let mut ports: BTreeMap<Variable, Port> = BTreeMap::new();
        for (name, base) in &project.base_ports {
            let shared = !allocation.mode.moves(name);
            let before = allocation.ports.get(name.as_str());
            if let Some(before) = before.filter(|before| before.base == *base && before.shared == shared) {
                ports.insert(name.clone(), *before);
            } else if shared {
                ports.insert(name.clone(), Port { base: *base, port: base.get(), shared });
            } else {
                match self.port_for(allocation, *base, &ports, rules) {
                    Ok(port) => drop(ports.insert(name.clone(), Port { base: *base, port, shared })),
                    Err(why) => warnings.push(format!(
                        "{name} can't be had at offset {}: {why}; `wtd-client reassign` finds an offset for all ports",
                        allocation.offset
                    )),
                }
            }
        }
        let mut project_named = project.clone();
        // A directory that is renamed does not rename the databases in its volume, and a mistake in the file that is about to
        // be mended doesn't either. A name that was configured goes with its setting.
        let keeps_name =
            !allocation.project_is_configured || warnings.iter().any(|warning| is_mistake(warning));
        if !project.name_is_configured && keeps_name {
            project_named.rename(&allocation.project);
        } else {
            allocation.project_is_configured = project.name_is_configured;
        }
        let mut names = Names::of(&project_named, allocation.offset, allocation.is_main());
        if is_other_mode {
            // What the file says of the database is meant for the other mode.
            names.volume = allocation.volume.clone();
            names.database = allocation.database.clone();
            names.schema.clone_from(&allocation.schema);
        } else {
            allocation.template.clone_from(&project.database_template);
        }
        let before: BTreeSet<_> = allocation.own_volumes().cloned().collect();
        allocation.former_volumes.clear();
        allocation.project = project_named.name;
        allocation.ports = ports.into_iter().collect();
        allocation.volume = names.volume;
        allocation.volumes = names.volumes;
        allocation.former_volumes =
            before.into_iter().filter(|volume| !allocation.names_volume(volume)).collect();
        allocation.shared_volumes.clone_from(&project.shared_volumes);
        allocation.database = names.database;
        allocation.schema = names.schema;
        allocation.compose_project = names.compose_project;
        allocation.warnings = warnings;
        self.apply_templates(allocation, project);
    }

    /// Gives an allocation the variables of its project's templates, if a person has trusted them.
    fn apply_templates(&self, allocation: &mut Allocation, project: &Project) {
        let is_trusted = self.ledger.trusted.allows(allocation.repository, project);
        allocation.untrusted = project.takes_trust() && !is_trusted;
        allocation.env = BTreeMap::new();
        if !is_trusted || project.templates.is_empty() {
            return;
        }
        let mut given = variables::given(allocation);
        if allocation.path.to_str().is_none() {
            given.remove(WTD_WORKTREE);
        }
        let (values, failures) = template::render(&project.templates, &given);
        let warnings = failures.iter().map(|(name, why)| format!("env.{name} is left out: {why}"));
        allocation.warnings.extend(warnings);
        allocation.env = values;
    }

    /// Records a volume that is about to be restored.
    pub fn restore(&mut self, restoring: Restoring) {
        let restoring = Arc::new(restoring);
        self.ledger.put_restoring(Arc::clone(&restoring));
        self.records.push(Record::Restoring(restoring));
    }

    /// Records how restoring a volume ended. `is_there`: the volume is, whatever it holds.
    pub fn end_restoring(&mut self, id: &str, outcome: String, is_there: bool) {
        let Some(before) = self.ledger.restoring(id).cloned() else { return };
        self.ledger.put_restoring(Arc::new(Restoring { has_ended: true, ..(*before).clone() }));
        self.records.push(Record::Restored { id: id.to_owned(), outcome });
        if !is_there {
            self.lose_restored(id);
        }
    }

    /// Records that a restored volume is not there any more.
    pub fn lose_restored(&mut self, id: &str) {
        if self.ledger.remove_restoring(id) {
            self.records.push(Record::RestoredGone(id.to_owned()));
        }
    }

    /// Trusts a content of a repository.
    pub fn trust(&mut self, repository: RepositoryId, content: ContentHash, at: Moment) {
        if !self.ledger.trusted.holds(repository, content) {
            self.ledger.trusted.insert(repository, content);
            self.records.push(Record::Trusted { repository, content, at });
        }
    }

    /// Trusts nothing of a repository any more; gives how many contents were trusted.
    pub fn revoke(&mut self, repository: RepositoryId) -> usize {
        let count = self.ledger.trusted.count(repository);
        if count > 0 {
            self.ledger.trusted.revoke(repository);
            self.records.push(Record::Revoked(repository));
        }
        count
    }

    fn port_for(
        &self,
        allocation: &Allocation,
        base: NonZeroU16,
        given: &BTreeMap<Variable, Port>,
        rules: &Rules,
    ) -> Result<u16, String> {
        let port = allocation.offset.port(base).ok_or_else(|| format!("{base} + offset is beyond 65535"))?;
        if let Some(reason) = rules.bar(port) {
            return Err(reason);
        }
        let own = self.ledger.holder_of_port(port) == Some(allocation.id);
        if given.values().any(|other| other.port == port) || (!own && self.ledger.port(port)) {
            return Err(format!("port {port} is another allocation's"));
        }
        Ok(port)
    }

    /// Ends an allocation on a person's word: it is stale from now on, and never comes back.
    pub fn end(
        &mut self,
        allocation: &Allocation,
        ending: Ending,
        reason: &str,
        now: Moment,
    ) -> Result<(), Overlap> {
        let mut after = allocation.clone();
        after.ending = Some(ending);
        set_state(&mut after, State::Stale, reason, now);
        self.put(after).map(drop)
    }
}

/// Names that follow from a project's configuration and an offset.
struct Names {
    volume: DatabaseVolume,
    volumes: BTreeMap<Variable, names::VolumeName>,
    database: names::DatabaseName,
    schema: Option<names::SchemaName>,
    compose_project: Option<names::ComposeProject>,
}

impl Names {
    fn of(project: &Project, offset: Offset, main: bool) -> Self {
        let volume = |stem: &String| names::volume_name(stem, offset.0);
        Self {
            volume: match project.database_mode {
                DatabaseMode::Isolated => DatabaseVolume::Own(volume(&project.volume_stem)),
                DatabaseMode::Database | DatabaseMode::Schema | DatabaseMode::Shared => {
                    DatabaseVolume::Shared(names::shared_volume_name(
                        &project.name,
                        &project.volume_stem,
                        project.volume_stem_is_configured,
                    ))
                }
            },
            volumes: project.volume_stems.iter().map(|(name, stem)| (name.clone(), volume(stem))).collect(),
            database: names::database_name(
                &project.database_stem,
                offset.0,
                project.database_name_per_worktree,
            ),
            schema: (project.database_mode == DatabaseMode::Schema)
                .then(|| names::schema_name(&project.name, offset.0)),
            compose_project: (!main).then(|| names::compose_project(&project.name, offset.0)),
        }
    }
}

/// Moves an allocation to a state; `since` changes only when the state does.
pub fn set_state(allocation: &mut Allocation, state: State, reason: &str, now: Moment) {
    if allocation.state != state {
        allocation.since = now;
    }
    allocation.state = state;
    reason.clone_into(&mut allocation.reason);
}

/// What a person would call the difference; nothing for details that only the daemon needs.
fn what_happened(before: Option<&Allocation>, after: &Allocation) -> Option<ChangeKind> {
    let Some(before) = before else { return Some(ChangeKind::Allocated) };
    if before.state != after.state {
        return Some(match (after.state, after.ending) {
            (State::Active, _) => ChangeKind::Returned,
            (State::Missing, _) => ChangeKind::Missing,
            (State::Stale, None) => ChangeKind::Stale,
            (State::Stale, Some(Ending::Forgotten)) => ChangeKind::Forgotten,
            (State::Stale, Some(Ending::Reassigned)) => ChangeKind::Reassigned,
            (State::Released, _) => ChangeKind::Released,
        });
    }
    if before.path != after.path || before.git_dir != after.git_dir {
        return Some(ChangeKind::Moved);
    }
    let configured = before.ports != after.ports
        || before.volume != after.volume
        || before.volumes != after.volumes
        || before.shared_volumes != after.shared_volumes
        || before.compose != after.compose
        || before.database != after.database
        || before.schema != after.schema
        || before.has_wanted_object() != after.has_wanted_object()
        || before.compose_project != after.compose_project
        || before.project != after.project
        || before.env != after.env
        || before.untrusted != after.untrusted
        || before.warnings != after.warnings;
    configured.then_some(ChangeKind::Configured)
}
