//! The plan: each volume of each allocation that is gone, dropped or kept, with the reason.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use wtd_protocol::State;

use super::belongings::{
    ALLOCATION_LABEL, COMPOSE_PROJECT_LABEL, is_container_of, is_labelled, is_volume_of, left_overs, versions,
};
use super::made_after::{is_made_after, is_made_too_late};
use super::proof::Proof;
use super::{Container, EngineView, Look, Looks, Volume};
use crate::domain::allocation::{Allocation, DatabaseVolume, Ending, Moment};
use crate::domain::database_objects::KeepObject;
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::domain::names::{ComposeProject, VolumeName};
use crate::domain::project::DatabaseMode;

/// What the person who asks for gc wants.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Allocations that are missing, forgotten or reassigned are included, and stale ones that git can't be asked about.
    pub missing: bool,
    /// Only allocations that have been in their state for so long, in milliseconds.
    pub older_than_ms: i64,
    /// Containers of the worktrees' own Compose projects are removed first.
    pub down: bool,
    /// What is dropped is to be kept in files.
    pub backup: bool,
}

/// What the plan is made from.
#[derive(Debug)]
pub struct Question<'a> {
    /// Every allocation.
    pub ledger: &'a Ledger,
    /// A fresh look for each allocation that is stale or missing.
    pub proofs: &'a HashMap<AllocationId, Proof>,
    /// What was found when engines were first looked at for these allocations.
    pub looks: &'a Looks,
    /// What the engine has.
    pub engine: &'a EngineView,
    /// When volumes were created, by name, where the engine's text could be read.
    pub created: &'a HashMap<String, Moment>,
    /// The time.
    pub now: Moment,
    /// What is wanted.
    pub options: Options,
}

/// What becomes of the volumes, and of the allocations that have any left-overs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// A line for each volume, by allocation, oldest first.
    pub items: Vec<Item>,
    /// The containers of each allocation's own Compose project.
    pub stacks: Vec<Stack>,
}

/// A volume, and what becomes of it.
#[derive(Debug, Clone)]
pub struct Item {
    /// The allocation that it is found for.
    pub allocation: Arc<Allocation>,
    /// The volume.
    pub volume: Volume,
    /// What becomes of it.
    pub action: Action,
}

/// What becomes of a volume.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// It is dropped. Only a name of wtd's own alphabet ever goes to an engine.
    Drop(VolumeName),
    /// It stays.
    Keep(Keep),
}

/// Containers of an allocation's own Compose project.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The allocation, as it was under that project.
    pub allocation: Arc<Allocation>,
    /// Its containers.
    pub containers: Vec<Container>,
    /// Why they stay; none when they are removed.
    pub keep: Option<Keep>,
}

/// Why something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The worktree is missing, and not proven removed.
    Missing(String),
    /// A person forgot it.
    Forgotten,
    /// A person moved the worktree to another offset.
    Reassigned,
    /// git has it locked.
    Locked,
    /// The worktree is there.
    Standing,
    /// A fresh look does not prove it removed.
    Unproven(String),
    /// Gone for less than was asked for.
    Young,
    /// The engine was not seen while the worktree was there, and others were.
    OtherEngine,
    /// No engine was seen while the worktree was there.
    UnknownEngine,
    /// Its name is not one that goes to an engine.
    Name,
    /// It is not a plain local volume; what it is.
    Driver(String),
    /// It carries another allocation's label.
    OthersLabel(String),
    /// Another Compose project made it.
    OthersProject(String),
    /// A live allocation names it.
    Live(String),
    /// It may have been there before the allocation.
    MadeBefore,
    /// It was made after the worktree went.
    MadeAfter,
    /// Containers use it.
    InUse {
        /// By name and state.
        containers: Vec<String>,
        /// The worktree's own project, when they all are of it.
        project: Option<ComposeProject>,
        /// Whether a process may be running in one of them.
        running: bool,
    },
    /// Nobody asked for the containers to be removed.
    NotAskedFor(ComposeProject),
    /// A database server can't be asked.
    Server(String),
    /// It is to be kept in a file, and only volumes are.
    NoBackup(&'static str),
    /// What a database server says speaks against it.
    Object(KeepObject),
    /// It is the volume of a server that other worktrees share.
    SharedServer(String),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => write!(f, "its worktree is missing: {why}; --missing includes it"),
            Self::Forgotten => f.write_str("its worktree was forgotten by a person; --missing includes it"),
            Self::Reassigned => {
                f.write_str("its worktree was moved to another offset by a person; --missing includes it")
            }
            Self::Locked => f.write_str("git has its worktree locked; `git worktree unlock` lets go of it"),
            Self::Standing => f.write_str("its worktree is there"),
            Self::Unproven(why) => {
                write!(f, "its worktree is not proven removed: {why}; --missing includes it")
            }
            Self::Young => f.write_str("its worktree has not been gone for as long as --older-than says"),
            Self::OtherEngine => f.write_str("this is another engine than when its worktree was there"),
            Self::UnknownEngine => f.write_str(
                "wtd did not see this engine while its worktree was there; `docker volume rm` drops it",
            ),
            Self::Name => f.write_str("wtd passes no such name to an engine; `docker volume rm` drops it"),
            Self::Driver(what) => {
                write!(f, "it is not a plain local volume: {what}; `docker volume rm` drops it")
            }
            Self::OthersLabel(id) => write!(f, "its label says that it belongs to allocation {id}"),
            Self::OthersProject(project) => write!(f, "it belongs to the Compose project {project}"),
            Self::Live(path) => write!(f, "the worktree {path} has it"),
            Self::MadeBefore => f.write_str(
                "it may have been there before its worktree; `docker volume rm` drops it if nobody needs it",
            ),
            Self::MadeAfter => f.write_str(
                "it was made after its worktree went; `docker volume rm` drops it if nobody needs it",
            ),
            Self::InUse { containers, project, running } => {
                let users = containers.join(", ");
                let verb = if containers.len() == 1 { "uses" } else { "use" };
                let state = if *running { "" } else { "stopped " };
                write!(f, "{state}container {users} {verb} it")?;
                match project {
                    Some(project) => {
                        write!(f, "; `docker compose -p {project} down` or --down removes what uses it")
                    }
                    None => Ok(()),
                }
            }
            Self::NotAskedFor(project) => {
                write!(f, "`docker compose -p {project} down` or --down removes them")
            }
            Self::Server(why) => f.write_str(why),
            Self::NoBackup(program) => {
                write!(
                    f,
                    "--backup keeps volumes only; write it to a file with {program}, then run gc without --backup"
                )
            }
            Self::Object(keep) => keep.fmt(f),
            Self::SharedServer(path) => {
                write!(f, "it may be the volume of the server that the worktree {path} shares")
            }
        }
    }
}

/// Decides what becomes of each volume of each allocation that is gone.
pub fn plan(question: &Question<'_>) -> Plan {
    let live = Live::of(question.ledger);
    let gone = question
        .ledger
        .allocations()
        .filter(|allocation| matches!(allocation.state, State::Stale | State::Missing));
    let mut plan = Plan::default();
    for allocation in gone {
        let refusal = refusal(allocation, question);
        let looks = question.looks.get(&allocation.id).map_or(&[][..], Vec::as_slice);
        let versions = versions(allocation, looks);
        for volume in &question.engine.volumes {
            let Some(version) = versions.iter().find(|it| is_volume_of(it, volume)) else { continue };
            let keep = refusal.clone().or_else(|| keep(version, volume, &live, question));
            let action = match (keep, VolumeName::new(&volume.name)) {
                (Some(keep), _) => Action::Keep(keep),
                (None, Err(_)) => Action::Keep(Keep::Name),
                (None, Ok(name)) => Action::Drop(name),
            };
            plan.items.push(Item { allocation: Arc::clone(allocation), volume: volume.clone(), action });
        }
        let stacks = versions.iter().filter_map(|version| stack(version, refusal.as_ref(), &live, question));
        plan.stacks.extend(stacks);
    }
    plan
}

/// The containers of the Compose project of an allocation that is gone.
fn stack(
    allocation: &Arc<Allocation>,
    refusal: Option<&Keep>,
    live: &Live<'_>,
    question: &Question<'_>,
) -> Option<Stack> {
    let own = question.engine.containers.iter().filter(|it| is_container_of(allocation, it));
    let containers: Vec<Container> = own.cloned().collect();
    let project = allocation.compose_project.clone().filter(|_| !containers.is_empty())?;
    let keep = refusal
        .cloned()
        .or_else(|| engine_refusal(&looks(allocation, question), question.engine, false))
        .or_else(|| live.has_project(&project).map(Keep::Live))
        .or_else(|| (!question.options.down).then_some(Keep::NotAskedFor(project)));
    Some(Stack { allocation: Arc::clone(allocation), containers, keep })
}

/// Why a volume of an allocation that is gone stays.
fn keep(allocation: &Allocation, volume: &Volume, live: &Live<'_>, question: &Question<'_>) -> Option<Keep> {
    let looks = looks(allocation, question);
    live.claims(allocation, volume)
        .or_else(|| live.shares_server(allocation, volume))
        .or_else(|| others(allocation, volume))
        .or_else(|| engine_refusal(&looks, question.engine, is_labelled(allocation, volume)))
        .or_else(|| unfit(allocation, volume, &looks, question))
        .or_else(|| in_use(allocation, volume, question))
}

/// What the plan leaves of an allocation, the first thing of it; its offset is free afterwards only if that is nothing.
pub fn left_behind(
    allocation: &Arc<Allocation>,
    looks: &[Look],
    engine: &EngineView,
    plan: &Plan,
) -> Option<String> {
    let volumes = plan.items.iter().filter(|item| matches!(item.action, Action::Drop(_)));
    let volumes = volumes.map(|item| (item.allocation.id, format!("volume {}", item.volume.name)));
    let stacks = plan.stacks.iter().filter(|stack| stack.keep.is_none());
    let containers = stacks.flat_map(|stack| {
        stack.containers.iter().map(|it| (stack.allocation.id, format!("container {}", it.name)))
    });
    let dropped: BTreeSet<String> =
        volumes.chain(containers).filter(|(id, _)| *id == allocation.id).map(|(_, name)| name).collect();
    left_overs(allocation, looks, engine).into_iter().find(|left| !dropped.contains(left))
}

/// The looks at engines that were made while the allocation's worktree was there. What was found on one later says nothing of
/// whose it is.
fn looks<'a>(allocation: &Allocation, question: &Question<'a>) -> Vec<&'a Look> {
    let all = question.looks.get(&allocation.id).into_iter().flatten();
    all.filter(|look| allocation.state != State::Stale || look.at <= allocation.since).collect()
}

/// Why nothing of an allocation may be dropped, whatever the volume.
pub fn refusal(allocation: &Allocation, question: &Question<'_>) -> Option<Keep> {
    let options = &question.options;
    let proof = question.proofs.get(&allocation.id);
    let unproven = |why: &str| {
        if options.missing { None } else { Some(Keep::Unproven(why.to_owned())) }
    };
    let state = match (allocation.ending, allocation.state, proof) {
        (_, _, Some(Proof::Locked)) => Some(Keep::Locked),
        (Some(Ending::Forgotten), ..) => (!options.missing).then_some(Keep::Forgotten),
        (Some(Ending::Reassigned), _, Some(Proof::Removed)) => None,
        (Some(Ending::Reassigned), ..) => (!options.missing).then_some(Keep::Reassigned),
        (None, _, Some(Proof::Standing)) => Some(Keep::Standing),
        (None, State::Missing, _) if !options.missing => Some(Keep::Missing(allocation.reason.clone())),
        (None, _, Some(Proof::Removed)) => None,
        (None, _, Some(Proof::Unproven(why))) => unproven(why),
        // A question that was not put has no answer, whatever is wanted.
        (None, _, None) => Some(Keep::Unproven("git was not asked".to_owned())),
    };
    state.or_else(|| {
        let age = question.now.0.saturating_sub(allocation.since.0);
        (age < options.older_than_ms).then_some(Keep::Young)
    })
}

/// What live allocations have.
struct Live<'a> {
    /// By volume name; the registry allows one claim, and this does not count on it.
    names: HashMap<&'a str, Vec<(AllocationId, &'a Path)>>,
    /// Volumes of servers that worktrees share, each with a worktree that uses it.
    shared: HashMap<&'a str, &'a Path>,
    /// Ports of servers that live worktrees share, each with one of them.
    servers: HashMap<u16, &'a Path>,
    ids: HashMap<String, (AllocationId, &'a Path)>,
    projects: HashMap<&'a str, &'a Path>,
    /// By the name that Compose gives the project of whoever starts a stack there without the worktree's variables, or in
    /// a main worktree, which has no other.
    directories: HashMap<String, &'a Path>,
}

impl<'a> Live<'a> {
    fn of(ledger: &'a Ledger) -> Self {
        let mut live = Self {
            names: HashMap::new(),
            shared: HashMap::new(),
            servers: HashMap::new(),
            ids: HashMap::new(),
            projects: HashMap::new(),
            directories: HashMap::new(),
        };
        for allocation in ledger.allocations() {
            // The volume of a server that worktrees share is nobody's own, whatever becomes of them.
            if let DatabaseVolume::Shared(name) = &allocation.volume {
                live.shared.insert(name.as_str(), &allocation.path);
            }
            if !allocation.is_live() {
                continue;
            }
            if let Some(port) =
                allocation.database_port().filter(|_| allocation.mode != DatabaseMode::Isolated)
            {
                live.servers.insert(port, &allocation.path);
            }
            let entry = (allocation.id, allocation.path.as_path());
            for name in allocation.own_volumes() {
                live.names.entry(name.as_str()).or_default().push(entry);
            }
            live.ids.insert(allocation.id.to_string(), entry);
            live.directories.insert(compose_default(&allocation.path), &allocation.path);
            if let Some(project) =
                allocation.compose_project.as_ref().filter(|_| allocation.state == State::Active)
            {
                live.projects.insert(project.as_str(), &allocation.path);
            }
        }
        live
    }

    /// Whether a live allocation other than this one has the volume, by name, by label or by Compose project.
    fn claims(&self, allocation: &Allocation, volume: &Volume) -> Option<Keep> {
        let label = |name| volume.labels.get(name).map(String::as_str);
        let named = self.names.get(volume.name.as_str()).into_iter().flatten();
        let labelled = label(ALLOCATION_LABEL).and_then(|id| self.ids.get(id));
        let other = named.chain(labelled).find(|(id, _)| *id != allocation.id);
        let path = other.map(|(_, path)| *path);
        let project = label(COMPOSE_PROJECT_LABEL);
        let by_project = project.and_then(|name| self.projects.get(name).copied());
        // Its project is all that speaks for it then, and the same would be said of the live worktree's own.
        let is_found_by_project = !is_labelled(allocation, volume)
            && !allocation.own_volumes().any(|name| name.as_str() == volume.name);
        let by_directory =
            project.filter(|_| is_found_by_project).and_then(|name| self.directories.get(name).copied());
        let shared = self.shared.get(volume.name.as_str()).copied();
        let path = path.or(by_project).or(by_directory).or(shared);
        path.map(|path| Keep::Live(path.display().to_string()))
    }

    /// Whether live allocations share a server on the port that this one's own server had: one that was made in mode
    /// `isolated`, before the project's mode was changed. Their databases are in its volume then.
    fn shares_server(&self, allocation: &Allocation, volume: &Volume) -> Option<Keep> {
        let DatabaseVolume::Own(own) = &allocation.volume else { return None };
        let path = self.servers.get(&allocation.database_port()?).filter(|_| own.as_str() == volume.name)?;
        Some(Keep::SharedServer(path.display().to_string()))
    }

    fn has_project(&self, project: &ComposeProject) -> Option<String> {
        self.projects.get(project.as_str()).map(|path| path.display().to_string())
    }
}

/// Whether labels say that the volume is somebody else's.
fn others(allocation: &Allocation, volume: &Volume) -> Option<Keep> {
    if let Some(id) = volume.labels.get(ALLOCATION_LABEL)
        && !is_labelled(allocation, volume)
    {
        return Some(Keep::OthersLabel(id.clone()));
    }
    let project = volume.labels.get(COMPOSE_PROJECT_LABEL)?;
    let own = allocation.compose_project.as_ref().is_some_and(|own| own.as_str() == project.as_str());
    let is_own = own || is_labelled(allocation, volume) || compose_default(&allocation.path) == *project;
    (!is_own).then(|| Keep::OthersProject(project.clone()))
}

/// The project's name that Compose makes from a directory's (Compose specification, "Name top-level element"; in
/// compose-go `NormalizeProjectName`): lower case, without the characters that a name can't have.
fn compose_default(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let kept =
        name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    kept.collect::<String>().trim_start_matches(['_', '-']).to_owned()
}

/// Why the volume can't be the worktree's own plain volume on this engine.
fn unfit(allocation: &Allocation, volume: &Volume, looks: &[&Look], question: &Question<'_>) -> Option<Keep> {
    if volume.driver != "local" {
        return Some(Keep::Driver(format!("its driver is {}", volume.driver)));
    }
    if !volume.options.is_empty() {
        let names: Vec<&str> = volume.options.keys().map(String::as_str).collect();
        return Some(Keep::Driver(format!("it has driver options ({})", names.join(", "))));
    }
    if !volume.is_local {
        return Some(Keep::Driver("it is of a whole cluster".to_owned()));
    }
    let engine = question.engine;
    let look = looks.iter().copied().find(|look| look.engine == engine.id);
    let created = question.created.get(&volume.name).copied();
    if !is_made_after(allocation, volume, look, engine.tells_creation, created) {
        return Some(Keep::MadeBefore);
    }
    // One that a person gave up may have gone on for long, out of sight.
    let is_proven = question.proofs.get(&allocation.id) == Some(&Proof::Removed);
    let is_too_late = engine.tells_creation && is_proven && is_made_too_late(allocation, volume, created);
    is_too_late.then_some(Keep::MadeAfter)
}

/// Containers that use the volume, unless they all are removed first.
fn in_use(allocation: &Allocation, volume: &Volume, question: &Question<'_>) -> Option<Keep> {
    let users: Vec<&Container> = question
        .engine
        .containers
        .iter()
        .filter(|container| container.volumes.contains(&volume.name))
        .collect();
    if users.is_empty() {
        return None;
    }
    let all_own = users.iter().all(|container| is_container_of(allocation, container));
    if all_own && question.options.down {
        return None;
    }
    Some(Keep::InUse {
        containers: users.iter().map(|it| format!("{} ({})", it.name, it.state)).collect(),
        project: allocation.compose_project.clone().filter(|_| all_own),
        running: users.iter().any(|container| container.is_running()),
    })
}

/// Why the engine does not answer for the allocation's data, if it doesn't.
fn engine_refusal(looks: &[&Look], engine: &EngineView, is_labelled: bool) -> Option<Keep> {
    if looks.iter().any(|look| look.engine == engine.id) {
        None
    } else if !looks.is_empty() {
        Some(Keep::OtherEngine)
    } else if is_labelled {
        // Nobody but a stack of this very allocation puts its id on a volume.
        None
    } else {
        Some(Keep::UnknownEngine)
    }
}
