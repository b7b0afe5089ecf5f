//! A project's configuration, as far as it bears on allocations: what `wtd.toml` declares, or the built-in values.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU16;

use wtd_env_file::EnvFilePath;
pub use wtd_protocol::contract::{POSTGRESQL_PORT, VOLUME_STEM};
use wtd_protocol::variable::{DB_HOST_PORT, Variable};

use super::content_hash::ContentHash;
use super::database_url::DatabaseUrl;
use super::names::{DatabaseName, project_name};
use super::template::Template;

/// The database's base port unless a project declares another.
const DATABASE_PORT: NonZeroU16 = NonZeroU16::new(POSTGRESQL_PORT).unwrap();

/// How a project's worktrees share a database server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatabaseMode {
    /// Own port, own volume, own name.
    Isolated,
    /// One server, a database for each worktree.
    Database,
    /// One server, a schema for each worktree.
    Schema,
    /// One server, one database.
    Shared,
}

impl DatabaseMode {
    /// Every mode.
    pub const ALL: [Self; 4] = [Self::Isolated, Self::Database, Self::Schema, Self::Shared];

    /// The word for this mode in `wtd.toml`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "isolated",
            Self::Database => "database",
            Self::Schema => "schema",
            Self::Shared => "shared",
        }
    }

    /// The mode that [`DatabaseMode::as_str`] names so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == word)
    }

    /// Whether each worktree has a database of its own name unless the project says otherwise: not where all
    /// worktrees use one database.
    pub const fn names_per_worktree(self) -> bool {
        matches!(self, Self::Isolated | Self::Database)
    }

    /// Whether a port moves with the offset: the database's does not where all worktrees use one server.
    pub fn moves(self, variable: &Variable) -> bool {
        self == Self::Isolated || variable.as_str() != DB_HOST_PORT
    }
}

/// What a project declares. Without a `wtd.toml`, [`Project::named`] gives the built-in values.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each says something of its own, and any of them can go together"
)]
pub struct Project {
    /// The project's name in the alphabet that Compose takes: `[a-z0-9][a-z0-9_-]*`.
    pub name: String,
    /// Whether the name is a configured one, not a directory's.
    pub name_is_configured: bool,
    /// Variables and their base ports; `DB_HOST_PORT` is always among them.
    pub base_ports: BTreeMap<Variable, NonZeroU16>,
    /// How the database is shared.
    pub database_mode: DatabaseMode,
    /// Stem of the database's name.
    pub database_stem: String,
    /// Whether that stem is a configured one, not the project's name.
    pub database_stem_is_configured: bool,
    /// Whether each worktree's database has a name of its own.
    pub database_name_per_worktree: bool,
    /// The database that each worktree's is to be a copy of, in mode `database`.
    pub database_template: Option<DatabaseName>,
    /// Where its server is and as whom the daemon comes to it; it takes trust.
    pub database_url: Option<DatabaseUrl>,
    /// Stem of the database's volume.
    pub volume_stem: String,
    /// Whether that stem is a configured one.
    pub volume_stem_is_configured: bool,
    /// Whether a new worktree's database is a copy of the main worktree's; it takes trust.
    pub seeds_from_main: bool,
    /// Further volumes: variable and stem.
    pub volume_stems: BTreeMap<Variable, String>,
    /// Volumes of the project's Compose files that all worktrees share.
    pub shared_volumes: BTreeSet<String>,
    /// Further variables, from templates; they take trust.
    pub templates: BTreeMap<Variable, Template>,
    /// Files that are kept with the worktree's variables; they take trust.
    pub env_files: Vec<EnvFilePath>,
    /// The content that declares this, where it declares something that takes trust.
    pub content: Option<ContentHash>,
    /// The configuration is there and could not be read: what it declares is unknown, and not nothing.
    pub is_unknown: bool,
    /// What is wrong with the configuration, one line each, with file and line.
    pub warnings: Vec<String>,
}

impl Project {
    /// The built-in values for a project that declares nothing: PostgreSQL's port, everything isolated, the
    /// database named after the project. `name` is a configured name or a directory's.
    pub fn named(name: &str) -> Self {
        let name = project_name(name);
        Self {
            base_ports: BTreeMap::from([(Variable::db_host_port(), DATABASE_PORT)]),
            database_mode: DatabaseMode::Isolated,
            name_is_configured: false,
            database_stem: name.clone(),
            database_stem_is_configured: false,
            database_name_per_worktree: true,
            database_template: None,
            database_url: None,
            volume_stem: VOLUME_STEM.to_owned(),
            volume_stem_is_configured: false,
            seeds_from_main: false,
            volume_stems: BTreeMap::new(),
            shared_volumes: BTreeSet::new(),
            templates: BTreeMap::new(),
            env_files: Vec::new(),
            content: None,
            is_unknown: false,
            warnings: Vec::new(),
            name,
        }
    }

    /// Gives the project another name, and its database too unless that has a name of its own.
    pub fn rename(&mut self, name: &str) {
        self.name = project_name(name);
        if !self.database_stem_is_configured {
            self.database_stem.clone_from(&self.name);
        }
    }

    /// Whether it declares anything that does nothing until a person has trusted it.
    pub fn takes_trust(&self) -> bool {
        !self.templates.is_empty()
            || !self.env_files.is_empty()
            || self.database_url.is_some()
            || self.seeds_from_main
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_built_in_values_are_the_contracts() {
        let project = Project::named("Inventiv Agents");
        assert_eq!(project.name, "inventiv-agents");
        assert_eq!(project.database_stem, "inventiv-agents");
        assert_eq!(project.volume_stem, "db_data");
        assert_eq!(project.base_ports.get("DB_HOST_PORT").map(|port| port.get()), Some(5432));
        assert_eq!(project.base_ports.len(), 1);
    }

    #[test]
    fn a_database_with_a_name_of_its_own_is_not_renamed_with_its_project() {
        let mut project = Project::named("one");
        project.rename("two");
        assert_eq!((project.name.as_str(), project.database_stem.as_str()), ("two", "two"));
        project.database_stem_is_configured = true;
        project.rename("three");
        assert_eq!((project.name.as_str(), project.database_stem.as_str()), ("three", "two"));
    }

    #[test]
    fn only_a_database_of_ones_own_moves_its_port() {
        let ui = Variable::new("UI_PORT").unwrap();
        for mode in DatabaseMode::ALL {
            assert_eq!(mode.moves(&Variable::db_host_port()), mode == DatabaseMode::Isolated);
            assert!(mode.moves(&ui));
        }
    }

    #[test]
    fn modes_are_called_as_in_wtd_toml() {
        for mode in DatabaseMode::ALL {
            assert_eq!(DatabaseMode::from_word(mode.as_str()), Some(mode));
        }
        assert_eq!(DatabaseMode::from_word("Isolated"), None);
    }
}
