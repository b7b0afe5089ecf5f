//! Names that are made from a project's name and an offset, and the alphabets that they have to keep to.
//!
//! Two worktrees never have the same offset, and every name made here ends in its offset: so no two worktrees
//! have the same name, whatever their projects are called.

use std::fmt;
use std::path::Path;

use wtd_protocol::names::{MAX_VOLUME_BYTES, cut, is_lower_alphanumeric, is_volume_name};

pub use wtd_protocol::names::project_name;

/// The longest identifier that PostgreSQL does not cut, in bytes (`NAMEDATALEN` - 1; PostgreSQL manual, 4.1.1).
pub const MAX_DATABASE_BYTES: usize = 63;

/// The longest name of a Compose project that is made here, in bytes: container engines take longer ones, and wtd names
/// nothing on one that is longer.
const MAX_COMPOSE_PROJECT_BYTES: usize = MAX_VOLUME_BYTES;

/// Why a text can't be a name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NameError {
    /// Not the name of a volume.
    #[error(
        "{0:?} is not a volume name: use 2 to 63 of a-z, 0-9, _, . and -, begin with a letter or digit, no .."
    )]
    Volume(String),
    /// Not the name of a database.
    #[error("{0:?} is not a database name: use letters, digits, _ and -, and don't begin with -")]
    Database(String),
    /// Not the name of a schema.
    #[error(
        "{0:?} is not a name for a worktree's schema: use a-z, 0-9 and _, don't begin with a digit or pg_"
    )]
    Schema(String),
    /// Not the name of a Compose project.
    #[error("{0:?} is not a project name: use a-z, 0-9, _ and -, and begin with a letter or digit")]
    Project(String),
}

/// The first characters of a refused name: enough to recognise it, too few to flood a terminal.
fn excerpt(text: &str) -> String {
    text.chars().take(64).collect()
}

/// The name of a volume on a container engine: `[a-z0-9][a-z0-9_.-]{1,62}` without `..`.
///
/// The alphabet is narrower than Docker's, and the type is the only one that goes to an engine, since the
/// engine's client library puts names into a URL's path as they are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct VolumeName(String);

impl VolumeName {
    /// The volume of this name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if is_volume_name(name) { Ok(Self(name.to_owned())) } else { Err(NameError::Volume(excerpt(name))) }
    }
}

/// The name of a PostgreSQL database: letters, digits, `_` and `-`, at most 63 bytes, since the server cuts a
/// longer one without an error and so takes one database for another.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatabaseName(String);

impl DatabaseName {
    /// The database of this name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        if name.len() <= MAX_DATABASE_BYTES && is_database_stem(name) {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Database(excerpt(name)))
        }
    }
}

/// Whether a text can be the stem of a database's name. It may be of any length: names are cut.
pub fn is_database_stem(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// The name of a worktree's schema: `[a-z_][a-z0-9_]{0,62}`, which needs no quotes in SQL, in a `search_path` or in a
/// URL. Names that are PostgreSQL's own (`pg_…`; PostgreSQL manual, 5.9.6) or everybody's (`public`) are none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SchemaName(String);

impl SchemaName {
    /// The schema of this name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let in_alphabet = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
            && name.chars().all(|c| is_lower_alphanumeric(c) || c == '_');
        let is_taken = name.starts_with("pg_") || matches!(name, "public" | "information_schema");
        if in_alphabet && !is_taken && name.len() <= MAX_DATABASE_BYTES {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Schema(excerpt(name)))
        }
    }
}

/// The name of a Compose project: `[a-z0-9][a-z0-9_-]*` (Compose specification, "Name top-level element").
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ComposeProject(String);

impl ComposeProject {
    /// The project of this name.
    pub fn new(name: &str) -> Result<Self, NameError> {
        let in_alphabet = name.starts_with(is_lower_alphanumeric)
            && name.chars().all(|c| is_lower_alphanumeric(c) || matches!(c, '_' | '-'));
        if in_alphabet && name.len() <= MAX_VOLUME_BYTES {
            Ok(Self(name.to_owned()))
        } else {
            Err(NameError::Project(excerpt(name)))
        }
    }
}

macro_rules! text {
    ($($name:ident),*) => {$(
        impl $name {
            /// The name.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }
    )*};
}

text!(VolumeName, DatabaseName, SchemaName, ComposeProject);

/// The directory's name that a repository's project goes by: the main worktree's, or for a bare repository
/// that of the repository less `.git`; a repository kept as `x/.bare` or `x/.git` goes by `x`.
pub fn directory_name(common_dir: &Path, main_root: Option<&Path>) -> String {
    let name_of = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    if let Some(root) = main_root {
        return name_of(root).unwrap_or_default();
    }
    let name = name_of(common_dir).unwrap_or_default();
    if matches!(name.as_str(), ".git" | ".bare") {
        return common_dir.parent().and_then(name_of).unwrap_or_default();
    }
    name.strip_suffix(".git").map_or(name.clone(), str::to_owned)
}

/// `<stem>_<offset>`: the volume of a worktree, cut as in [`wtd_protocol::names::volume_name`].
pub fn volume_name(stem: &str, offset: u16) -> VolumeName {
    VolumeName(wtd_protocol::names::volume_name(stem, offset))
}

/// `<stem>-<offset>`, or the stem alone where every worktree has the same: the database of a worktree. Cut as
/// a volume's.
pub fn database_name(stem: &str, offset: u16, per_worktree: bool) -> DatabaseName {
    let suffix = if per_worktree { format!("-{offset}") } else { String::new() };
    DatabaseName::new(&format!("{stem}{suffix}"))
        .unwrap_or_else(|_| DatabaseName(cut(stem, '-', &suffix, MAX_DATABASE_BYTES)))
}

/// The volume of a server that worktrees share: as it is configured, else `<project>_<stem>`, which Compose too
/// calls a project's volume of that name (Compose specification, "volumes", `name`).
pub fn shared_volume_name(project: &str, stem: &str, is_configured: bool) -> VolumeName {
    let name = if is_configured { stem.to_owned() } else { format!("{}_{stem}", project_name(project)) };
    VolumeName::new(&name).unwrap_or_else(|_| VolumeName(cut(&name, '_', "", MAX_VOLUME_BYTES)))
}

/// `<project>_<offset>`: the schema of a worktree, with `-` as `_`, and `s_` before what can't begin the name of one.
pub fn schema_name(project: &str, offset: u16) -> SchemaName {
    let stem = project_name(project).replace('-', "_");
    let suffix = format!("_{offset}");
    let name = format!("{stem}{suffix}");
    SchemaName::new(&name)
        .or_else(|_| SchemaName::new(&format!("s_{name}")))
        .unwrap_or_else(|_| SchemaName(cut(&format!("s_{stem}"), '_', &suffix, MAX_DATABASE_BYTES)))
}

/// `<project>-<offset>`: the Compose project of a linked worktree.
pub fn compose_project(project: &str, offset: u16) -> ComposeProject {
    let (stem, suffix) = (project_name(project), format!("-{offset}"));
    let name = format!("{stem}{suffix}");
    ComposeProject(if name.len() <= MAX_COMPOSE_PROJECT_BYTES {
        name
    } else {
        cut(&stem, '-', &suffix, MAX_COMPOSE_PROJECT_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;
    use wtd_protocol::names::MAX_PROJECT_BYTES;

    use super::*;

    #[test]
    fn a_directory_becomes_a_project_name() {
        for (directory, project) in [
            ("inventiv-agents", "inventiv-agents"),
            ("Inventiv Agents", "inventiv-agents"),
            ("my_App.v2", "my_app-v2"),
            ("__.-x", "x"),
            ("héllo", "h-llo"),
            ("9lives", "9lives"),
            ("a\nb;touch x", "a-b-touch-x"),
            ("../..", "project"),
            ("日本", "project"),
            ("", "project"),
        ] {
            assert_eq!(project_name(directory), project, "{directory:?}");
        }
        assert_eq!(project_name(&"x".repeat(300)).len(), MAX_PROJECT_BYTES);
    }

    #[test]
    fn a_repository_goes_by_its_main_worktrees_directory() {
        for (common_dir, main_root, name) in [
            ("/w/app/.git", Some("/w/app"), "app"),
            ("/elsewhere/app-git", Some("/w/app"), "app"),
            ("/w/super/.git/modules/sub", Some("/w/super/lib/sub"), "sub"),
            ("/srv/app.git", None, "app"),
            ("/srv/app", None, "app"),
            ("/w/app/.bare", None, "app"),
            ("/w/app/.git", None, "app"),
            ("/", None, ""),
            ("/.git", None, ""),
        ] {
            assert_eq!(
                directory_name(Path::new(common_dir), main_root.map(Path::new)),
                name,
                "{common_dir} {main_root:?}"
            );
        }
    }

    #[test]
    fn names_are_the_contracts() {
        assert_eq!(volume_name("db_data", 10000).as_str(), "db_data_10000");
        assert_eq!(database_name("inventiv-agents", 0, true).as_str(), "inventiv-agents-0");
        assert_eq!(database_name("MyApp", 20000, false).as_str(), "MyApp");
        assert_eq!(compose_project("inventiv-agents", 10000).as_str(), "inventiv-agents-10000");
    }

    #[test]
    fn a_schema_needs_no_quotes() {
        for (project, schema) in [
            ("inventiv-agents", "inventiv_agents_10000"),
            ("9lives", "s_9lives_10000"),
            ("pg-tools", "s_pg_tools_10000"),
            ("pgtools", "pgtools_10000"),
            ("Robert'); DROP SCHEMA public;--", "robert____drop_schema_public____10000"),
        ] {
            assert_eq!(schema_name(project, 10_000).as_str(), schema, "{project:?}");
        }
        for name in [
            "",
            "public",
            "pg_x",
            "information_schema",
            "a-b",
            "A",
            "a b",
            "a\"b",
            "1a",
            "é",
            &"a".repeat(64),
        ] {
            assert!(SchemaName::new(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_shared_volume_is_the_configured_one_or_the_projects() {
        assert_eq!(shared_volume_name("shop", "db_data", false).as_str(), "shop_db_data");
        assert_eq!(shared_volume_name("shop", "db_data", true).as_str(), "db_data");
        assert!(shared_volume_name(&"x".repeat(255), &"s".repeat(63), false).as_str().len() <= 63);
    }

    #[test]
    fn a_name_that_just_fits_is_not_cut() {
        let stem = "s".repeat(63 - "_10000".len());
        assert_eq!(volume_name(&stem, 10000).as_str(), format!("{stem}_10000"));
        assert_eq!(database_name(&stem, 10000, true).as_str(), format!("{stem}-10000"));
    }

    #[test]
    fn a_long_project_is_cut_only_where_its_names_would_be_too_long() {
        let project = "q".repeat(57);
        assert_eq!(database_name(&project, 20000, true).as_str(), format!("{project}-20000"));
        assert_eq!(compose_project(&project, 20000).as_str(), format!("{project}-20000"));
        let (one, two) = (format!("{}-one", "q".repeat(90)), format!("{}-two", "q".repeat(90)));
        assert_eq!(project_name(&one), one);
        assert!(
            compose_project(&one, 20000).as_str().len() <= 63
                && schema_name(&one, 20000).as_str().len() <= 63
        );
        assert_ne!(compose_project(&one, 20000), compose_project(&two, 20000));
        assert_ne!(schema_name(&one, 20000), schema_name(&two, 20000));
    }

    #[test]
    fn stems_that_differ_only_behind_the_cut_stay_apart() {
        let (one, two) = (format!("{}-one", "s".repeat(80)), format!("{}-two", "s".repeat(80)));
        for per_worktree in [true, false] {
            assert_ne!(database_name(&one, 0, per_worktree), database_name(&two, 0, per_worktree));
            assert!(database_name(&one, 0, per_worktree).as_str().len() <= 63);
        }
        assert_ne!(volume_name(&one, 0), volume_name(&two, 0));
    }

    #[test]
    fn what_would_reach_another_object_of_the_engine_is_no_volume_name() {
        for name in [
            "",
            "a",
            "..",
            "a..b",
            "../containers/x",
            "%2e%2e/containers/y",
            "a?force=1",
            "a#b",
            "a/b",
            "A_upper",
            "_x",
            "-x",
            ".x",
            "a\n",
            "é1",
            &"a".repeat(64),
        ] {
            assert!(VolumeName::new(name).is_err(), "{name:?}");
        }
        assert!(VolumeName::new(&"a".repeat(63)).is_ok());
        assert!(DatabaseName::new(&"a".repeat(64)).is_err());
        assert!(ComposeProject::new("Upper").is_err());
    }

    /// Whatever a stem consists of; mostly what configuration lets through, often too long.
    fn stem() -> impl Strategy<Value = String> {
        prop_oneof![4 => "[a-z0-9][a-z0-9_.-]{0,90}", 1 => "\\PC{0,40}", 1 => "s{50,64}[a-z]"]
    }

    proptest! {
        #[test]
        fn every_name_made_is_valid(stem in stem(), offset in 0..=u16::MAX, per_worktree: bool) {
            let volume = volume_name(&stem, offset);
            prop_assert_eq!(VolumeName::new(volume.as_str()), Ok(volume));
            let database = database_name(&stem, offset, per_worktree);
            prop_assert_eq!(DatabaseName::new(database.as_str()), Ok(database));
            let schema = schema_name(&stem, offset);
            prop_assert_eq!(SchemaName::new(schema.as_str()), Ok(schema));
            let shared = shared_volume_name(&stem, &stem, per_worktree);
            prop_assert_eq!(VolumeName::new(shared.as_str()), Ok(shared));
            let compose = compose_project(&stem, offset);
            prop_assert_eq!(ComposeProject::new(compose.as_str()), Ok(compose));
            let project = project_name(&stem);
            prop_assert!(project.starts_with(is_lower_alphanumeric) && project.len() <= MAX_PROJECT_BYTES);
            prop_assert!(project.chars().all(|c| is_lower_alphanumeric(c) || "_-".contains(c)));
            prop_assert_eq!(project_name(&project), project);
        }

        #[test]
        fn distinct_stems_or_offsets_give_distinct_names(
            pairs in prop::collection::hash_set((stem(), prop_oneof![Just(0), Just(10), Just(10000), 0..=u16::MAX]), 2..40)
        ) {
            let mut volumes = HashMap::new();
            let mut databases = HashMap::new();
            for pair in &pairs {
                let (stem, offset) = pair;
                prop_assert_eq!(volumes.insert(volume_name(stem, *offset), pair), None);
                prop_assert_eq!(databases.insert(database_name(stem, *offset, true), pair), None);
            }
        }

        #[test]
        fn distinct_offsets_give_distinct_compose_projects_and_schemas(one in stem(), other in stem(), a: u16, b: u16) {
            prop_assume!(a != b);
            prop_assert_ne!(schema_name(&one, a), schema_name(&other, b));
            prop_assert_ne!(compose_project(&one, a), compose_project(&other, b));
        }
    }
}
