//! What the registry records.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::PathBuf;

use wtd_protocol::State;
use wtd_protocol::variable::{DB_HOST_PORT, Variable};

use super::allocator::Obstacle;
use super::compose::Compose;
use super::database_objects::{DatabaseObject, ObjectName, Stage};
use super::identity::{AllocationId, FileIdentity, RepositoryId};
use super::names::{ComposeProject, DatabaseName, SchemaName, VolumeName};
use super::offset::Offset;
use super::ports::Ports;
use super::project::DatabaseMode;

/// A moment: milliseconds since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment(pub i64);

/// A repository that the registry knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its id.
    pub id: RepositoryId,
    /// Its common dir, where it was last seen.
    pub common_dir: PathBuf,
    /// The common dir's incarnation.
    pub identity: FileIdentity,
    /// The main worktree's root, where it was last seen; none for a bare repository. Nothing in the common dir
    /// names it for `--separate-git-dir`.
    pub main_root: Option<PathBuf>,
    /// Whether the daemon watches it: not after `forget`, nor when another repository has taken its place.
    pub watched: bool,
}

/// The volume that a worktree's database lives in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DatabaseVolume {
    /// The worktree's own.
    Own(VolumeName),
    /// That of a server that worktrees share: no allocation answers for it, and gc never drops it.
    Shared(VolumeName),
}

impl DatabaseVolume {
    /// Its name.
    pub const fn name(&self) -> &VolumeName {
        match self {
            Self::Own(name) | Self::Shared(name) => name,
        }
    }
}

/// How a person ended an allocation whose worktree still stands. It never comes back to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// `wtd-client forget`.
    Forgotten,
    /// `wtd-client reassign`: the worktree has another allocation now.
    Reassigned,
}

impl Ending {
    /// The word for it in the registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Forgotten => "forgotten",
            Self::Reassigned => "reassigned",
        }
    }

    /// The ending that [`Ending::as_str`] names so.
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Forgotten, Self::Reassigned].into_iter().find(|ending| ending.as_str() == word)
    }
}

/// The record that a worktree holds an offset, with the names that go with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allocation {
    /// Its id.
    pub id: AllocationId,
    /// The worktree's repository.
    pub repository: RepositoryId,
    /// The entry in `worktrees/`; none for the main worktree.
    pub worktree_id: Option<OsString>,
    /// The worktree's git dir.
    pub git_dir: PathBuf,
    /// The git dir's incarnation.
    pub identity: FileIdentity,
    /// The worktree's root directory.
    pub path: PathBuf,
    /// The device that the root directory is on.
    pub device: u64,
    /// Whether `git worktree add` was seen to have finished.
    pub finished: bool,
    /// The offset.
    pub offset: Offset,
    /// The ports by variable.
    pub ports: Ports,
    /// The project's name.
    pub project: String,
    /// Whether the configuration gave that name; else the directory did.
    pub project_is_configured: bool,
    /// How worktrees share the database server. It is what the project declared when the allocation was made.
    pub mode: DatabaseMode,
    /// The database's volume.
    pub volume: DatabaseVolume,
    /// Further volumes by variable.
    pub volumes: BTreeMap<Variable, VolumeName>,
    /// Volumes that the worktree had under an earlier configuration, or that a Compose override named; gc answers
    /// for them too.
    pub former_volumes: BTreeSet<VolumeName>,
    /// Volumes of the project's Compose files that all worktrees share.
    pub shared_volumes: BTreeSet<String>,
    /// The Compose override, once a person had it written.
    pub compose: Option<Box<Compose>>,
    /// The database's name.
    pub database: DatabaseName,
    /// The schema in it, in mode `schema`.
    pub schema: Option<SchemaName>,
    /// The database that this one is to be a copy of, in mode `database`.
    pub template: Option<DatabaseName>,
    /// What was made on a server for this worktree alone, under earlier names too; gc answers for it.
    pub objects: Vec<DatabaseObject>,
    /// The Compose project; none for a main worktree, whose stack keeps the name that Compose gives it.
    pub compose_project: Option<ComposeProject>,
    /// Further variables, made from the templates of a trusted configuration.
    pub env: BTreeMap<Variable, String>,
    /// Whether the configuration declares what takes trust, and is not trusted.
    pub untrusted: bool,
    /// The state.
    pub state: State,
    /// Why it is in this state; empty for `active`.
    pub reason: String,
    /// Since when it is in this state.
    pub since: Moment,
    /// When it was made.
    pub created: Moment,
    /// How a person ended it, if so.
    pub ending: Option<Ending>,
    /// The candidates that failed before this offset.
    pub passed_over: Vec<Obstacle>,
    /// What the configuration asks for and can't have.
    pub warnings: Vec<String>,
}

/// Whether a warning is about a mistake in the configuration's file. It then begins with the file's absolute path, and
/// no other does; the registry has nothing but the text.
pub fn is_mistake(warning: &str) -> bool {
    warning.starts_with('/')
}

impl Allocation {
    /// Those of the warnings that are about a mistake in the configuration's file.
    pub fn mistakes(&self) -> impl Iterator<Item = &String> {
        self.warnings.iter().filter(|warning| is_mistake(warning))
    }

    /// Whether this is the main worktree's.
    pub fn is_main(&self) -> bool {
        self.worktree_id.is_none()
    }

    /// The volumes that are this allocation's alone, those of earlier configurations too: what gc answers for.
    pub fn own_volumes(&self) -> impl Iterator<Item = &VolumeName> {
        let of_database = match &self.volume {
            DatabaseVolume::Own(name) => Some(name),
            DatabaseVolume::Shared(_) => None,
        };
        of_database.into_iter().chain(self.volumes.values()).chain(&self.former_volumes)
    }

    /// Whether the worktree uses a volume of this name, its own or one that worktrees share.
    pub fn names_volume(&self, name: &VolumeName) -> bool {
        self.volume.name() == name || self.own_volumes().any(|own| own == name)
    }

    /// The ports that no other allocation can have: those that move with the offset, and those that are published
    /// under the Compose override.
    pub fn claimed_ports(&self) -> impl Iterator<Item = u16> {
        let moved = |port: &u16| self.ports.values().any(|own| !own.shared && own.port == *port);
        let published = self.compose.iter().flat_map(|compose| &compose.ports).copied();
        let declared = self.ports.values().filter(|port| !port.shared).map(|port| port.port);
        declared.chain(published.filter(move |port| !moved(port)))
    }

    /// Whether the worktree holds it: not proven removed, and not ended by a person.
    pub fn is_live(&self) -> bool {
        matches!(self.state, State::Active | State::Missing)
    }

    /// What there is to be on a database server for this worktree alone.
    pub fn wanted_object(&self) -> Option<ObjectName> {
        let database = self.database.clone();
        match self.mode {
            DatabaseMode::Database => Some(ObjectName { database, schema: None }),
            DatabaseMode::Schema => Some(ObjectName { database, schema: Some(self.schema.clone()?) }),
            DatabaseMode::Isolated | DatabaseMode::Shared => None,
        }
    }

    /// The port of the server that the worktree's database is on.
    pub fn database_port(&self) -> Option<u16> {
        self.ports.get(DB_HOST_PORT).map(|port| port.port)
    }

    /// Whether what is to be there is recorded as made, on whichever server.
    pub fn has_wanted_object(&self) -> bool {
        let Some(wanted) = self.wanted_object() else { return true };
        self.objects.iter().any(|object| object.stage == Stage::Made && object.name == wanted)
    }
}
