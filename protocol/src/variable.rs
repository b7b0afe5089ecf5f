//! Names of environment variables: which of them a repository may set.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

/// The offset itself.
pub const PORT_OFFSET: &str = "PORT_OFFSET";
/// The database's port.
pub const DB_HOST_PORT: &str = "DB_HOST_PORT";
/// The database's volume.
pub const DB_VOLUME: &str = "DB_VOLUME";
/// The database's name, as the PostgreSQL image reads it.
pub const POSTGRES_DB: &str = "POSTGRES_DB";
/// The Compose project's name, as Compose reads it.
pub const COMPOSE_PROJECT_NAME: &str = "COMPOSE_PROJECT_NAME";
/// The Compose files, as Compose reads it. Set where the worktree has an override of its own.
pub const COMPOSE_FILE: &str = "COMPOSE_FILE";
/// What separates the paths in [`COMPOSE_FILE`], as Compose reads it. Set where it is not a colon.
pub const COMPOSE_PATH_SEPARATOR: &str = "COMPOSE_PATH_SEPARATOR";
/// The worktree's root directory.
pub const WTD_WORKTREE: &str = "WTD_WORKTREE";

/// How worktrees share the database server, where they do: `database`, `schema` or `shared`.
pub const DB_MODE: &str = "DB_MODE";
/// The worktree's schema in the one database, in mode `schema`.
pub const DB_SCHEMA: &str = "DB_SCHEMA";
/// What libpq asks of the server at the start of a session: the worktree's schema as `search_path`, in mode `schema`.
pub const PGOPTIONS: &str = "PGOPTIONS";
/// The same as a parameter of a connection URL: what follows its `?`.
pub const DB_URL_OPTIONS: &str = "DB_URL_OPTIONS";
/// What the worktree's keys begin with in a Redis that worktrees share, where they share the database server too.
pub const REDIS_PREFIX: &str = "REDIS_PREFIX";

/// Variables that the contract gives a meaning; no port, volume or template may take their names.
const OURS: [&str; 10] = [
    PORT_OFFSET,
    DB_VOLUME,
    POSTGRES_DB,
    COMPOSE_PROJECT_NAME,
    WTD_WORKTREE,
    DB_MODE,
    DB_SCHEMA,
    PGOPTIONS,
    DB_URL_OPTIONS,
    REDIS_PREFIX,
];

/// Variables that shells, loaders, language runtimes or common tools obey: setting one of them can run code,
/// or send what a person starts elsewhere.
const OBEYED: &[&str] = &[
    "BASHOPTS",
    "BROWSER",
    "CDPATH",
    "CLASSPATH",
    "COLUMNS",
    COMPOSE_FILE,
    COMPOSE_PATH_SEPARATOR,
    "CONTAINER_HOST",
    "CURL_HOME",
    "CVS_RSH",
    "DISPLAY",
    "EDITOR",
    "EMACSLOADPATH",
    "ENV",
    "EUID",
    "EXINIT",
    "FCEDIT",
    "FIGNORE",
    "FPATH",
    "FUNCNEST",
    "GCONV_PATH",
    "GLOBIGNORE",
    "GNUMAKEFLAGS",
    "GOFLAGS",
    "GOPATH",
    "GOPROXY",
    "GOROOT",
    "GRADLE_OPTS",
    "GREP_OPTIONS",
    "GROUPS",
    "HGEDITOR",
    "HGMERGE",
    "HGRCPATH",
    "HISTFILE",
    "HOME",
    "HOSTALIASES",
    "IFS",
    "INPUTRC",
    "KRB_CONFIG",
    "KUBECONFIG",
    "LANG",
    "LANGUAGE",
    "LESS",
    "LESSCLOSE",
    "LESSKEY",
    "LESSOPEN",
    "LINES",
    "LOCPATH",
    "LOGNAME",
    "MAIL",
    "MAILPATH",
    "MAKEFILES",
    "MAKEFLAGS",
    "MANPAGER",
    "MANPATH",
    "MAVEN_ARGS",
    "MAVEN_OPTS",
    "MFLAGS",
    "MYVIMRC",
    "NLSPATH",
    "NULLCMD",
    "OLDPWD",
    "OPENSSL_CONF",
    "OPTARG",
    "OPTIND",
    "PAGER",
    "PATH",
    "PGPASSFILE",
    "PGSERVICEFILE",
    "PGSYSCONFDIR",
    "POSIXLY_CORRECT",
    "PPID",
    "PROMPT",
    "PROMPT_COMMAND",
    "PROMPT_DIRTRIM",
    "PSQLRC",
    "PSQL_EDITOR",
    "PSQL_PAGER",
    "PWD",
    "RANDOM",
    "READNULLCMD",
    "REPLY",
    "RESOLV_HOST_CONF",
    "RES_OPTIONS",
    "RPROMPT",
    "RPS",
    "RSYNC_RSH",
    "SBT_OPTS",
    "SECONDS",
    "SHELL",
    "SHELLOPTS",
    "SHLVL",
    "SSH_ASKPASS",
    "SUDO_ASKPASS",
    "SUDO_EDITOR",
    "SVN_SSH",
    "TAR_OPTIONS",
    "TERM",
    "TERMCAP",
    "TERMINFO",
    "TMOUT",
    "TMPDIR",
    "TMPPREFIX",
    "TZDIR",
    "UID",
    "USER",
    "VIMINIT",
    "VISUAL",
    "WATCH",
    "WORDCHARS",
    "ZDOTDIR",
    "ZIPOPT",
];

/// Prefixes of further such variables.
const OBEYED_PREFIXES: &[&str] = &[
    "ANSIBLE_",
    "BASH_",
    "BUNDLE_",
    "CARGO_",
    "COMP_",
    "DIRENV_",
    "DOCKER_",
    "DYLD_",
    "ELECTRON_",
    "FISH_",
    "GEM_",
    "GIT_",
    "GLIBC_",
    "GTK_",
    "HIST",
    "JAVA_",
    "JDK_",
    "LC_",
    "LD_",
    "LUA_",
    "MALLOC_",
    "NODE_",
    "NPM_",
    "PERL",
    "PIP_",
    "PS1",
    "PS2",
    "PS3",
    "PS4",
    "PYTHON",
    "QT_",
    "RUBY",
    "RUST",
    "R_",
    "SSH_",
    "SYSTEMD_",
    "TCL",
    "TF_CLI_",
    "WTD_",
    "XDG_",
    "ZSH_",
    "_",
];

/// Variables that wtd computes for a worktree and that no repository may declare.
const COMPUTED: [&str; 2] = [COMPOSE_FILE, COMPOSE_PATH_SEPARATOR];

/// Whether wtd sets a variable of this name in some worktree.
pub fn may_be_set(name: &str) -> bool {
    COMPUTED.contains(&name) || matches!(Variable::new(name), Ok(_) | Err(VariableError::Ours(_)))
}

/// Why a name can't be a variable's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum VariableError {
    /// Not of the form that all shells take.
    #[error("{0:?} is not a variable name: use A-Z, 0-9 and _, and begin with a letter")]
    Form(String),
    /// A shell, loader or tool obeys it.
    #[error("{0} may not be set from a repository: shells, loaders or tools obey it")]
    Obeyed(String),
    /// wtd sets it itself.
    #[error("{0} is set by wtd itself")]
    Ours(String),
}

/// The name of a variable that a repository may declare: `[A-Z][A-Z0-9_]*`, at most 64 bytes, and none that a
/// shell, a loader or a common tool obeys.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct Variable(String);

impl Variable {
    /// The variable of this name, if a repository may declare it.
    pub fn new(name: &str) -> Result<Self, VariableError> {
        let well_formed = name.len() <= 64
            && name.starts_with(|first: char| first.is_ascii_uppercase())
            && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
        if !well_formed {
            return Err(VariableError::Form(name.chars().take(64).collect()));
        }
        if OURS.contains(&name) {
            return Err(VariableError::Ours(name.to_owned()));
        }
        if OBEYED.contains(&name) || OBEYED_PREFIXES.iter().any(|prefix| name.starts_with(prefix)) {
            return Err(VariableError::Obeyed(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }

    /// `DB_HOST_PORT`, which every worktree has.
    pub fn db_host_port() -> Self {
        Self(DB_HOST_PORT.to_owned())
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Variable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl Borrow<str> for Variable {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Variable {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(&String::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_volumes_of_a_project_are_variables() {
        for name in [
            "UI_PORT",
            "API_PORT",
            "REDIS_VOLUME",
            "DATABASE_URL",
            "A",
            "PORT2",
            DB_HOST_PORT,
            "PGPORT",
            "LESSON_PORT",
        ] {
            assert!(Variable::new(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn what_a_shell_or_loader_obeys_is_refused() {
        for name in [
            "PATH",
            "LD_PRELOAD",
            "LD_AUDIT",
            "DYLD_INSERT_LIBRARIES",
            "BASH_ENV",
            "ENV",
            "IFS",
            "PS1",
            "PS4",
            "PROMPT_COMMAND",
            "HOME",
            "SHELL",
            "GIT_DIR",
            "GIT_SSH_COMMAND",
            "DOCKER_HOST",
            "NODE_OPTIONS",
            "PYTHONPATH",
            "PYTHONSTARTUP",
            "PERL5OPT",
            "RUBYOPT",
            "ZDOTDIR",
            "MAKEFLAGS",
            "TMPDIR",
            "PAGER",
            "EDITOR",
            "TAR_OPTIONS",
            "RSYNC_RSH",
            "PSQLRC",
        ] {
            assert!(matches!(Variable::new(name), Err(VariableError::Obeyed(_))), "{name}");
        }
        assert!(matches!(Variable::new("PORT_OFFSET"), Err(VariableError::Ours(_))));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        for name in ["", "1A", "ui_port", "A B", "A=B", "A\n", "Ä", "_X", "A;touch x", &"A".repeat(65)] {
            assert!(matches!(Variable::new(name), Err(VariableError::Form(_))), "{name:?}");
        }
    }
}
