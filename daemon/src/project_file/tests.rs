use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode};
use tempfile::TempDir;
use wtd_env_file::EnvFilePath;
use wtd_protocol::variable::Variable;

use super::*;
use crate::domain::content_hash::ContentHash;
use crate::domain::project::DatabaseMode;

/// A repository `app` with one linked worktree `linked`.
struct Repository {
    home: TempDir,
}

impl Repository {
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        for directory in ["app/.git", "linked"] {
            fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        Self { home }
    }

    /// One whose main worktree has this `wtd.toml`.
    fn with(text: impl AsRef<[u8]>) -> Self {
        let repository = Self::new();
        fs::write(repository.path("app/wtd.toml"), text).unwrap();
        repository
    }

    fn path(&self, below: &str) -> PathBuf {
        self.home.path().join(below)
    }

    fn main(&self) -> Project {
        load(&self.path("app"), Some(&self.path("app")), &self.path("app/.git"))
    }

    fn linked(&self) -> Project {
        load(&self.path("linked"), Some(&self.path("app")), &self.path("app/.git"))
    }
}

/// The project that a text makes, with its warnings less the path before them.
fn project(text: impl AsRef<[u8]>) -> Project {
    let repository = Repository::with(text);
    let mut project = repository.main();
    let file = repository.path("app/wtd.toml").display().to_string();
    for warning in &mut project.warnings {
        *warning = warning.strip_prefix(&file).unwrap_or(warning).to_owned();
    }
    project
}

fn variable(name: &str) -> Variable {
    Variable::new(name).unwrap()
}

fn ports(project: &Project) -> Vec<(&str, u16)> {
    project.base_ports.iter().map(|(name, port)| (name.as_str(), port.get())).collect()
}

fn volumes(project: &Project) -> Vec<(&str, &str)> {
    project.volume_stems.iter().map(|(name, stem)| (name.as_str(), stem.as_str())).collect()
}

fn files(project: &Project) -> Vec<&Path> {
    project.env_files.iter().map(EnvFilePath::as_path).collect()
}

#[test]
fn no_file_and_an_empty_file_give_the_built_in_values() {
    assert_eq!(Repository::new().main(), Project::named("app"));
    assert_eq!(project(""), Project::named("app"));
    assert_eq!(project("\u{feff}# nothing\r\n"), Project::named("app"));
}

#[test]
fn the_contracts_example_is_understood() {
    let project = project(
        r#"project = "inventiv-agents"
[ports]                      # variable = base port
DB_HOST_PORT = 5433
UI_PORT = 3000
API_PORT = 8_003
[database]
mode = "database"
name = "Agents_DB"
volume = "pg"
[volumes]
REDIS_VOLUME = "redis_data"
[env]
DATABASE_URL = "postgresql://postgres:password@localhost:{DB_HOST_PORT}/{POSTGRES_DB}"
[files]
env = ["env/wtd.env"]
"#,
    );
    assert_eq!(project.name, "inventiv-agents");
    assert!(project.name_is_configured);
    assert_eq!(ports(&project), [("API_PORT", 8003), ("DB_HOST_PORT", 5433), ("UI_PORT", 3000)]);
    assert_eq!(project.database_mode, DatabaseMode::Database);
    assert_eq!((project.database_stem.as_str(), project.database_name_per_worktree), ("Agents_DB", true));
    assert_eq!(project.volume_stem, "pg");
    assert_eq!(volumes(&project), [("REDIS_VOLUME", "redis_data")]);
    let templates: Vec<_> =
        project.templates.iter().map(|(name, template)| (name.as_str(), template.text())).collect();
    let url = "postgresql://postgres:password@localhost:{DB_HOST_PORT}/{POSTGRES_DB}";
    assert_eq!(templates, [("DATABASE_URL", url)]);
    assert_eq!(files(&project), ["env/wtd.env"]);
    assert_eq!(project.warnings, [""; 0]);
}

#[test]
fn a_configured_project_names_the_database_too() {
    assert_eq!(project("project = \"shop\"").database_stem, "shop");
    let with_database = project("project = \"shop\"\ndatabase.name = \"store\"");
    assert_eq!((with_database.name.as_str(), with_database.database_stem.as_str()), ("shop", "store"));
    let changed = project("project = \"My Shop\"");
    assert_eq!(changed.name, "my-shop");
    assert_eq!(
        changed.warnings,
        ["project \"My Shop\" in wtd.toml is taken as \"my-shop\", which Compose allows"]
    );
}

#[test]
fn a_worktrees_own_file_goes_before_the_main_worktrees() {
    let repository = Repository::with("ports.UI_PORT = 1\nports.bad = 1");
    assert_eq!(ports(&repository.linked()), ports(&repository.main()));
    assert_eq!(repository.linked().warnings, repository.main().warnings);
    fs::write(repository.path("linked/wtd.toml"), "ports.API_PORT = 2").unwrap();
    assert_eq!(ports(&repository.linked()), [("API_PORT", 2), ("DB_HOST_PORT", 5432)]);
    assert_eq!(repository.linked().name, "app");
}

#[test]
fn a_bare_repository_keeps_its_file_in_the_common_dir() {
    let repository = Repository::new();
    let common_dir = repository.path("shop.git");
    fs::create_dir(&common_dir).unwrap();
    fs::write(common_dir.join("wtd.toml"), "ports.UI_PORT = 3000").unwrap();
    let project = load(&repository.path("linked"), None, &common_dir);
    assert_eq!(project.name, "shop");
    assert_eq!(ports(&project), [("DB_HOST_PORT", 5432), ("UI_PORT", 3000)]);
    let beside_a_main_worktree = load(&repository.path("linked"), Some(&repository.path("app")), &common_dir);
    assert_eq!(ports(&beside_a_main_worktree), [("DB_HOST_PORT", 5432)]);
}

#[test]
fn a_worktree_whose_directory_is_gone_uses_the_main_worktrees_file() {
    let repository = Repository::with("ports.UI_PORT = 3000");
    fs::remove_dir(repository.path("linked")).unwrap();
    assert_eq!(repository.linked(), repository.main());
    fs::write(repository.path("linked"), "a file now").unwrap();
    assert_eq!(repository.linked(), repository.main());
}

/// Files of which nothing is used: the text and where its one warning begins.
#[test]
fn what_is_no_toml_is_refused_whole() {
    for (text, expected) in [
        (b"project = \"x\"\nports = {".as_slice(), ":2: "),
        (b"[ports]\nUI_PORT = 1\nUI_PORT = 2", ":3: duplicate key"),
        (b"[ports]\nUI_PORT = 1\n[ports]", ":3: duplicate key"),
        (b"project = \"x\"\n\n\xff = 1", ":3: this is not UTF-8"),
        (b"a = \"\n\"", ":1: "),
        (b"\0\0\0\0", ":1: "),
        (format!("project = \"x\"\na = {}", "[".repeat(10_000)).as_bytes(), ":2: "),
        (format!("project = \"x\"\na = {}", "{a=".repeat(10_000)).as_bytes(), ":2: "),
        (format!("project = \"x\"\n{}a = 1", "a.".repeat(30_000)).as_bytes(), ":1: recursion limit"),
        (format!("project = \"x\"\n[{}a]", "a.".repeat(30_000)).as_bytes(), ":1: recursion limit"),
    ] {
        let mut project = project(text);
        assert_eq!(project.warnings.len(), 1, "{:?}", project.warnings);
        let warning = project.warnings.remove(0);
        assert!(warning.starts_with(expected), "{warning}");
        assert!(
            warning.ends_with(", so nothing in the file is used") && !warning.contains('\n'),
            "{warning}"
        );
        assert_eq!(project, Project::named("app"));
    }
}

/// Single bad values: the text and its one warning. What else the file says is used.
#[test]
fn a_bad_value_is_named_with_its_line_and_the_rest_is_used() {
    let well_formed = "use A-Z, 0-9 and _, and begin with a letter";
    let obeyed = "may not be set from a repository: shells, loaders or tools obey it";
    let port = "is not a port: ports go from 1 to 65535";
    let volume =
        "is not a volume name: use 2 to 63 of a-z, 0-9, _, . and -, begin with a letter or digit, no ..";
    for (text, expected) in [
        ("ports.ui_port = 1", format!("ports.ui_port: \"ui_port\" is not a variable name: {well_formed}")),
        ("ports.\"A;touch x\" = 1", format!("ports.A;touch x: \"A;touch x\" is not a variable name: {well_formed}")),
        ("ports.\"A\\nB\" = 1", format!("ports.A\\nB: \"A\\nB\" is not a variable name: {well_formed}")),
        ("ports.PATH = 1", format!("ports.PATH: PATH {obeyed}")),
        ("ports.LD_PRELOAD = 1", format!("ports.LD_PRELOAD: LD_PRELOAD {obeyed}")),
        ("ports.PORT_OFFSET = 1", "ports.PORT_OFFSET: PORT_OFFSET is set by wtd itself".into()),
        ("ports.X = 0", format!("ports.X: 0 {port}")),
        ("ports.X = 70000", format!("ports.X: 70000 {port}")),
        ("ports.X = -1", format!("ports.X: -1 {port}")),
        ("ports.X = 99999999999999999999999999", format!("ports.X: 99999999999999999999999999 {port}")),
        ("ports.X = \"80\"", "ports.X: wanted a port number, found a string".into()),
        ("ports.X = 80.0", "ports.X: wanted a port number, found a float".into()),
        ("ports.X = 5432", "ports.X: 5432 is the port of DB_HOST_PORT already".into()),
        ("ports.DB_HOST_PORT = true", "ports.DB_HOST_PORT: wanted a port number, found a boolean".into()),
        ("ports.X.Y = 1", "ports.X: wanted a port number, found a table".into()),
        ("database = 1", "database: wanted a table, found an integer".into()),
        ("[[database]]", "database: wanted a table, found an array".into()),
        ("project = 1", "project: wanted a string, found an integer".into()),
        ("project = \"-._\"", "project: \"-._\" has no letter or digit".into()),
        ("database.mode = \"own\"", "database.mode: \"own\" is not one of isolated, database, schema, shared".into()),
        ("database.name = \"a b\"", "database.name: \"a b\": use letters, digits, _ and -, and don't begin with -".into()),
        ("database.name = \"\"", "database.name: \"\": use letters, digits, _ and -, and don't begin with -".into()),
        ("database.volume = \"../containers/x\"", format!("database.volume: \"../containers/x\" {volume}")),
        ("database.volume = \"DB\"", format!("database.volume: \"DB\" {volume}")),
        ("database.name_per_worktree = 1", "database.name_per_worktree: wanted true or false, found an integer".into()),
        ("database.color = 1", "database.color: there is no such key; the keys are mode, name, name_per_worktree, volume, template, url, seed".into()),
        ("database.seed = \"s.sql\"", "database.seed: \"s.sql\" is not \"main\", which is all that can be written here".into()),
        ("database.seed = 1", "database.seed: wanted a string, found an integer".into()),
        ("volumes.X = \"db_data\"", "volumes.X: \"db_data\" is another volume's name already".into()),
        ("volumes.DB_HOST_PORT = \"xx\"", "volumes.DB_HOST_PORT: a port has that variable already".into()),
        ("volumes.X = 1", "volumes.X: wanted a string, found an integer".into()),
        ("volumes.X = \"a/b\"", format!("volumes.X: \"a/b\" {volume}")),
        ("port = 1", "port: there is no such key; the keys are project, ports, database, volumes, env, files, shared".into()),
        ("\"\\u001b[31m\" = 1", "\\u{1b}[31m: there is no such key; the keys are project, ports, database, volumes, env, files, shared".into()),
        ("shared = [[]]", "shared: wanted a string, found an array".into()),
        ("shared = \"redis_data\"", "shared: wanted an array of strings, found a string".into()),
        ("shared = [\"a b\"]", "shared: \"a b\" is not a volume of a Compose file: use letters, digits, _ . and -".into()),
    ] {
        let mut project = project(format!("ports.UI_PORT = 3000\nvolumes.REDIS_VOLUME = \"redis_data\"\n{text}"));
        assert_eq!(project.warnings, [format!(":3: {expected}")], "{text}");
        project.warnings.clear();
        let mut rest = Project::named("app");
        rest.base_ports.insert(variable("UI_PORT"), 3000.try_into().unwrap());
        rest.volume_stems.insert(variable("REDIS_VOLUME"), "redis_data".into());
        assert_eq!(project, rest, "{text}");
    }
}

/// What is wrong with a template or a file is told in one line, and leaves nothing that takes trust.
#[test]
fn a_bad_template_or_file_is_told_with_its_line_and_changes_nothing() {
    let obeyed = "may not be set from a repository: shells, loaders or tools obey it";
    for (text, expected) in [
        ("env.PATH = \"x\"", format!("env.PATH: PATH {obeyed}")),
        ("env.LD_PRELOAD = \"x\"", format!("env.LD_PRELOAD: LD_PRELOAD {obeyed}")),
        ("env.POSTGRES_DB = \"x\"", "env.POSTGRES_DB: POSTGRES_DB is set by wtd itself".into()),
        ("env.DB_HOST_PORT = \"1\"", "env.DB_HOST_PORT: a port or a volume has that variable already".into()),
        ("env.X = 1", "env.X: wanted a string, found an integer".into()),
        ("env.X = \"{\"", "env.X: a { is not closed; write {{ for the brace itself".into()),
        (
            "env.X = \"{HOME}\"",
            "env.X: \"HOME\" is not a variable of a worktree that a template could use".into(),
        ),
        (
            "env = { X = \"{Y}\", Y = \"{\" }",
            "env.X: \"Y\" is not a variable of a worktree that a template could use".into(),
        ),
        ("env.X = \"a\\nb\"", "env.X: a value has no newline and no other control character".into()),
        ("env = []", "env: wanted a table, found an array".into()),
        ("files.env = \"x\"", "files.env: wanted an array of strings, found a string".into()),
        ("files.env = [1]", "files.env: wanted a string, found an integer".into()),
        ("files.run = []", "files.run: there is no such key; the keys are env".into()),
        ("files.env = [\"../x\"]", "files.env: \"../x\": it leads out of the worktree".into()),
        ("files.env = [\"/etc/x\"]", "files.env: \"/etc/x\": it leads out of the worktree".into()),
        ("files.env = [\".git/config\"]", "files.env: \".git/config\": it is git's own".into()),
        ("files.env = [\"wtd.toml\"]", "files.env: \"wtd.toml\": it is wtd's own configuration".into()),
        ("files.env = [\"\"]", "files.env: \"\": it names no file".into()),
    ] {
        let mut project = project(text);
        assert!(project.warnings.contains(&format!(":1: {expected}")), "{text}: {:?}", project.warnings);
        project.warnings.clear();
        assert_eq!(project, Project::named("app"), "{text}");
    }
}

#[test]
fn templates_use_ports_volumes_and_names() {
    let project = project(
        "ports.UI_PORT = 3000\nvolumes.REDIS_VOLUME = \"redis\"\n[env]\n\
         A = \"{UI_PORT} {REDIS_VOLUME} {PORT_OFFSET} {DB_VOLUME} {POSTGRES_DB} {COMPOSE_PROJECT_NAME} {WTD_WORKTREE}\"",
    );
    assert_eq!(project.warnings, [""; 0]);
    assert_eq!(project.templates.len(), 1);
}

#[test]
fn what_takes_trust_is_known_by_the_files_very_bytes() {
    let text = "env.X = \"1\"\nports.UI_PORT = 3000\n";
    assert_eq!(project(text).content, Some(ContentHash::of(text.as_bytes())));
    assert_eq!(project("files.env = [\".env\", \"./.env\"]").env_files.len(), 1);
    assert!(project("files.env = [\".env\"]").content.is_some());
    assert_eq!(project("ports.UI_PORT = 3000").content, None, "numbers and names take none");
    assert_eq!(project("[env]\n[files]\nenv = []").content, None);
}

#[test]
fn shared_volumes_are_called_as_in_compose_files() {
    let project = project("shared = [\"redis_data\", \"pip.Cache\", \"redis_data\"]");
    assert_eq!(project.warnings, [""; 0]);
    assert_eq!(project.shared_volumes.into_iter().collect::<Vec<_>>(), ["pip.Cache", "redis_data"]);
}

#[test]
fn of_two_variables_with_one_port_the_first_in_the_file_has_it() {
    let project = project("[ports]\nZ_PORT = 80\nA_PORT = 80\nPG_PORT = 5432\nDB_HOST_PORT = 5433\n");
    assert_eq!(ports(&project), [("DB_HOST_PORT", 5433), ("PG_PORT", 5432), ("Z_PORT", 80)]);
    assert_eq!(project.warnings, [":3: ports.A_PORT: 80 is the port of Z_PORT already"]);
}

#[test]
fn of_two_volumes_with_one_name_the_databases_and_then_the_first_has_it() {
    let project = project("[volumes]\nB = \"one\"\nA = \"one\"\nC = \"pg\"\n[database]\nvolume = \"pg\"");
    assert_eq!(volumes(&project), [("B", "one")]);
    assert_eq!(project.warnings.len(), 2);
}

#[test]
fn a_connection_url_takes_trust_and_no_complaint_repeats_it() {
    let of = |url: &str| project(format!("database.mode = \"schema\"\ndatabase.url = {url}"));
    let with_url = of("\"postgresql://me:hunter2@localhost/\"");
    assert!(with_url.takes_trust() && with_url.content.is_some() && with_url.warnings.is_empty());
    for wrong in ["\"postgresql://me:hunter2@localhost/?hunter2=1\"", "\"hunter2\"", "[\"hunter2\"]"] {
        let project = of(wrong);
        assert_eq!((project.database_url.is_none(), project.warnings.len()), (true, 1), "{wrong}");
        assert!(!format!("{project:?}").contains("hunter2"), "{project:?}");
    }
    let shared = project("database.url = \"postgresql://me:hunter2@localhost/\"");
    assert!(shared.database_url.is_none() && !shared.takes_trust());
}

#[test]
fn a_template_is_a_name_and_only_for_databases_that_are_made() {
    let template = |text: &str| project(text).database_template.map(|name| name.to_string());
    let database = "database.mode = \"database\"\n";
    assert_eq!(template(&format!("{database}database.template = \"Shop-1\"")).as_deref(), Some("Shop-1"));
    for wrong in ["\"a b\"", "\"\\\" TEMPLATE x\"", "\"postgresql://host/x\"", "1"] {
        let project = project(format!("{database}database.template = {wrong}"));
        assert_eq!((project.database_template, project.warnings.len()), (None, 1), "{wrong}");
    }
    let isolated = project("database.template = \"shop\"");
    assert_eq!((isolated.database_template, isolated.warnings.len()), (None, 1));
}

#[test]
fn the_mode_says_whether_worktrees_share_a_database() {
    for (mode, choice, per_worktree, warnings) in [
        ("isolated", "", true, 0),
        ("isolated", "false", false, 0),
        ("database", "", true, 0),
        ("database", "false", true, 1),
        ("schema", "", false, 0),
        ("schema", "true", false, 1),
        ("shared", "true", false, 1),
        ("shared", "false", false, 0),
    ] {
        let choice = if choice.is_empty() { String::new() } else { format!("name_per_worktree = {choice}") };
        let project = project(format!("[database]\nmode = \"{mode}\"\n{choice}"));
        assert_eq!(project.database_name_per_worktree, per_worktree, "{mode} {choice}");
        assert_eq!(project.warnings.len(), warnings, "{:?}", project.warnings);
    }
}

#[test]
fn ports_volumes_and_warnings_are_bounded() {
    let lines = |name: &str, value: &dyn Fn(usize) -> String| -> String {
        (0..100).map(|index| format!("{name}{index} = {}", value(index))).collect::<Vec<_>>().join("\n")
            + "\n"
    };
    let ports = lines("P", &|index| (1000 + index).to_string());
    let volumes = lines("V", &|index| format!("\"volume-{index}\""));
    let project = project(format!("[ports]\n{ports}[volumes]\n{volumes}"));
    assert_eq!((project.base_ports.len(), project.volume_stems.len()), (64, 64));
    assert!(project.base_ports.contains_key("P62") && !project.base_ports.contains_key("P63"));
    assert_eq!(
        project.warnings,
        [
            ":65: ports.P63: only 64 ports can be declared",
            ":167: volumes.V64: only 64 volumes can be declared"
        ]
    );
    let templates = lines("T", &|_| "\"x\"".into());
    let files = (0..100).map(|index| format!("\"{index}.env\"")).collect::<Vec<_>>().join(",");
    let project = self::project(format!("files.env = [{files}]\n[env]\n{templates}"));
    assert_eq!((project.templates.len(), project.env_files.len()), (64, 16));
    assert_eq!(
        project.warnings,
        [":1: files.env: only 16 files can be kept", ":67: env.T64: only 64 variables can be declared"]
    );
    let flood = self::project(lines("k", &|_| "1".into()));
    assert_eq!(flood.warnings.len(), 21);
    assert_eq!(flood.warnings.last().unwrap(), ": 80 more complaints");
}

/// What stands where `wtd.toml` should: nothing of it is used, nothing waits, and one warning says why.
#[test]
fn only_a_regular_file_of_the_repository_is_read() {
    let refused = |make: &dyn Fn(&Repository, &Path)| {
        let repository = Repository::with("ports.UI_PORT = 3000");
        fs::write(repository.path("outside.toml"), "ports.UI_PORT = 6000").unwrap();
        fs::create_dir(repository.path("linked-evil")).unwrap();
        fs::write(repository.path("linked-evil/wtd.toml"), "ports.UI_PORT = 6000").unwrap();
        make(&repository, &repository.path("linked/wtd.toml"));
        let mut project = repository.linked();
        assert_eq!(project.warnings.len(), 1, "{:?}", project.warnings);
        let warning = project.warnings.remove(0);
        assert_eq!(project, Project::named("app"));
        let prefix = format!("{}: ", repository.path("linked/wtd.toml").display());
        warning.strip_prefix(&prefix).unwrap().to_owned()
    };
    let irregular = "it can't be read: not a regular file";
    let leads_out = "the symbolic link leads out of the worktree, so it is not followed";
    assert_eq!(refused(&|_, file| fs::create_dir(file).unwrap()), irregular);
    assert_eq!(
        refused(&|_, file| rustix::fs::mknodat(CWD, file, FileType::Fifo, Mode::RUSR, 0).unwrap()),
        irregular
    );
    assert_eq!(refused(&|_, file| symlink("../outside.toml", file).unwrap()), leads_out);
    assert_eq!(refused(&|_, file| symlink("../linked-evil/wtd.toml", file).unwrap()), leads_out);
    assert_eq!(refused(&|_, file| symlink("/dev/zero", file).unwrap()), leads_out);
    assert_eq!(
        refused(&|repository, file| {
            symlink(repository.path("outside.toml"), repository.path("linked/hop")).unwrap();
            symlink("hop", file).unwrap();
        }),
        leads_out
    );
    assert!(
        refused(&|_, file| symlink("wtd.toml", file).unwrap())
            .starts_with("the symbolic link leads nowhere: ")
    );
    assert!(
        refused(&|_, file| symlink("absent", file).unwrap()).starts_with("the symbolic link leads nowhere: ")
    );
    assert_eq!(
        refused(&|_, file| {
            rustix::fs::mknodat(CWD, file.with_file_name("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
            symlink("fifo", file).unwrap();
        }),
        irregular
    );
    let large = |bytes: u64| {
        move |_: &Repository, file: &Path| fs::File::create(file).unwrap().set_len(bytes).unwrap()
    };
    assert_eq!(refused(&large(10 << 20)), "it can't be read: larger than 65536 bytes");
    assert_eq!(refused(&large(files::MAX_BYTES as u64 + 1)), "it can't be read: larger than 65536 bytes");
}

#[test]
fn a_file_as_large_as_allowed_is_read() {
    let mut text = b"ports.UI_PORT = 3000\n#".to_vec();
    text.resize(files::MAX_BYTES, b'x');
    assert_eq!(ports(&project(text)), [("DB_HOST_PORT", 5432), ("UI_PORT", 3000)]);
}

#[test]
fn a_link_that_stays_in_the_worktree_is_followed() {
    let repository = Repository::new();
    fs::create_dir(repository.path("linked/etc")).unwrap();
    fs::write(repository.path("linked/etc/ours.toml"), "ports.UI_PORT = 3000").unwrap();
    symlink("etc/ours.toml", repository.path("linked/wtd.toml")).unwrap();
    assert_eq!(ports(&repository.linked()), [("DB_HOST_PORT", 5432), ("UI_PORT", 3000)]);
    // The worktree may itself be reached by a link.
    symlink("linked", repository.path("alias")).unwrap();
    let aliased = load(&repository.path("alias"), None, &repository.path("app/.git"));
    assert_eq!(ports(&aliased), [("DB_HOST_PORT", 5432), ("UI_PORT", 3000)]);
}

#[test]
fn a_warning_is_one_line_whatever_the_path_is() {
    let repository = Repository::new();
    let root = repository.home.path().join(OsStr::from_bytes(b"it's\n\x1b[31m\xff"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("wtd.toml"), "x = 1").unwrap();
    let project = load(&root, Some(&root), &root.join(".git"));
    let [warning] = project.warnings.as_slice() else { panic!("{:?}", project.warnings) };
    assert!(warning.contains("/it's\\n\\u{1b}[31m\u{fffd}/wtd.toml:1: x: "), "{warning}");
    assert_eq!(project.name, "it-s---31m-");
}

proptest! {
    /// Nothing that stands in a file makes the daemon fail, or gives a project that breaks its own rules.
    #[test]
    fn any_text_gives_a_sound_project(
        lines in prop::collection::vec(
            prop_oneof![
                "(\\[{0,2})(ports|database|volumes|env|files|shared|a\\.b)(\\]{0,2})",
                "(project|mode|name|volume|[A-C]_PORT|DB_HOST_PORT|\\PC{0,6})(\\.a){0,2} ?= ?(\"[a-zA-Z._-]{0,70}\"|[0-9]{1,6}|true|\\[\\[1\\]|\\{a=1\\}|\\PC{0,8})",
                "\\PC{0,20}",
            ],
            0..12,
        ),
    ) {
        let file = Path::new("/w/wtd.toml");
        let project = parsing::parse(Project::named("app"), file, lines.join("\n").as_bytes());
        prop_assert!(project.base_ports.contains_key("DB_HOST_PORT"));
        prop_assert_eq!(crate::domain::names::project_name(&project.name), project.name);
        prop_assert!(crate::domain::names::is_database_stem(&project.database_stem));
        prop_assert!(project.warnings.iter().all(|warning| !warning.contains('\n')));
        let mut ports: Vec<_> = project.base_ports.values().collect();
        ports.sort_unstable();
        ports.dedup();
        prop_assert_eq!(ports.len(), project.base_ports.len());
    }

    #[test]
    fn any_bytes_give_a_project(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let project = parsing::parse(Project::named("app"), Path::new("/w/wtd.toml"), &bytes);
        prop_assert!(project.warnings.len() <= parsing::MAX_WARNINGS + 1);
    }
}
