//! A worktree's variables: asked of the daemon, else read from the allocation file, and checked before anything
//! is printed.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use wtd_protocol::Allocation;
use wtd_protocol::variable::{WTD_WORKTREE, may_be_set};

use crate::daemon::Daemon;
use crate::error::{Error, Unreachable};
use crate::fallback::{self, Found};
use crate::output;

/// The variables of one worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Environment {
    /// The worktree's root directory.
    pub(crate) worktree: PathBuf,
    /// The variables by name.
    pub(crate) variables: BTreeMap<String, OsString>,
    /// Whether the worktree's configuration has more that nobody has trusted yet.
    pub(crate) untrusted: bool,
    /// The project's name; none where only the allocation file answers.
    pub(crate) project: Option<String>,
    /// What is wrong in the worktree's configuration, one line each.
    pub(crate) mistakes: Vec<String>,
    /// Whether the worktree's configuration asks for something that it can't have.
    pub(crate) is_wanting: bool,
}

impl Environment {
    /// The variables of the worktree that holds `path` (none: the working directory). `meanwhile` is run while
    /// the daemon works on the answer.
    pub(crate) fn of(
        daemon: &Daemon,
        path: Option<&Path>,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<Self, Error> {
        let path = absolute(path)?;
        match daemon.allocation(&path, meanwhile) {
            Ok(allocation) => Self::of_allocation(&allocation),
            Err(Error::Unreachable(unreachable)) => Self::from_file(&path, unreachable),
            Err(error) if error.exit_code() == 4 => {
                Self::from_file(&path, Unreachable::new(error.to_string(), "try again"))
            }
            Err(error) => Err(error),
        }
    }

    /// The variables of an allocation that the daemon gave.
    pub(crate) fn of_allocation(allocation: &Allocation) -> Result<Self, Error> {
        let worktree = allocation.path().map_err(untrusted)?;
        let environment = Self::checked(worktree, allocation.variables.clone())?;
        let mistakes = allocation.mistakes.clone();
        let project = Some(allocation.project.clone());
        let is_wanting = !allocation.warnings.is_empty();
        Ok(Self { untrusted: allocation.untrusted, project, mistakes, is_wanting, ..environment })
    }

    /// The variables that the allocation file has, since the daemon is `unreachable`.
    fn from_file(path: &Path, unreachable: Unreachable) -> Result<Self, Error> {
        match fallback::find(path) {
            Ok(Found::Allocation(file)) => {
                let worktree = file.path().ok_or_else(|| untrusted("its path can't be told"))?;
                Self::checked(worktree, file.variables)
            }
            Ok(Found::Outside) => Err(Error::NotInAWorktree(path.to_owned())),
            Err(error) => Err(Error::Unreachable(Unreachable::new(
                format!("{}, and no allocation file answers instead: {error}", unreachable.why),
                unreachable.remedy,
            ))),
        }
    }

    /// Takes variables from outside of this program. Names that a shell or a loader obeys, and values that no
    /// environment can hold, are refused as a whole: whoever sends one of them is not to be believed the rest.
    fn checked(worktree: PathBuf, variables: BTreeMap<String, String>) -> Result<Self, Error> {
        if let Some(name) = variables.keys().find(|name| !may_be_set(name)) {
            return Err(untrusted(format_args!("{name} is not a variable that wtd sets")));
        }
        if let Some((name, _)) = variables.iter().find(|(_, value)| value.contains('\0')) {
            return Err(untrusted(format_args!("{name} has a NUL byte")));
        }
        let mut variables: BTreeMap<_, _> =
            variables.into_iter().map(|(name, value)| (name, OsString::from(value))).collect();
        // The path as text is not exact where it is not UTF-8.
        if let Some(value) = variables.get_mut(WTD_WORKTREE) {
            worktree.as_os_str().clone_into(value);
        }
        let mistakes = Vec::new();
        Ok(Self { worktree, variables, untrusted: false, project: None, mistakes, is_wanting: false })
    }

    /// Says on standard error what is wrong in the worktree's configuration.
    pub(crate) fn tell_mistakes(&self, verb: &str) {
        output::mistakes(verb, &self.mistakes);
    }

    /// The value of `name`.
    pub(crate) fn value(&self, name: &str) -> Result<&OsStr, Error> {
        self.variables.get(name).map(OsString::as_os_str).ok_or_else(|| {
            let names = self.variables.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            // It may be declared, and not be had.
            let more = match (self.untrusted, self.is_wanting) {
                (true, _) => "; wtd.toml may have it, which `wtd-client trust` shows",
                (false, true) => "; `wtd-client list` tells what wtd.toml asks for and can't have",
                (false, false) => "",
            };
            Error::failed(format!("this worktree has no variable {name}"), format!("it has {names}{more}"))
        })
    }
}

/// The absolute form of `path`; the working directory when there is none. A working directory that was removed
/// is in no worktree.
pub(crate) fn absolute(path: Option<&Path>) -> Result<PathBuf, Error> {
    match path {
        Some(path) => std::path::absolute(path).map_err(|error| {
            Error::failed(format!("{}: {error}", path.display()), "give the path of a directory")
        }),
        None => std::env::current_dir()
            .map_err(|_| Error::NotInAWorktree(PathBuf::from("the working directory, which is gone,"))),
    }
}

/// The error for an answer that no daemon gives.
fn untrusted(why: impl std::fmt::Display) -> Error {
    Error::failed(
        format!("the answer is not one that wtd gives: {why}"),
        "see with `wtd-client doctor` what serves the socket",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(name: &str, value: &str) -> Result<Environment, Error> {
        Environment::checked("/w".into(), [(name.to_owned(), value.to_owned())].into())
    }

    #[test]
    fn only_variables_that_wtd_sets_are_taken() {
        for name in ["PORT_OFFSET", "DB_HOST_PORT", "COMPOSE_PROJECT_NAME", "COMPOSE_FILE", "UI_PORT"] {
            assert!(checked(name, "x").is_ok(), "{name}");
        }
        for name in ["PATH", "LD_PRELOAD", "GIT_DIR", "A;id", "A=B", "a", "", "A\n", "IFS"] {
            assert!(checked(name, "x").is_err(), "{name:?}");
        }
        assert!(checked("UI_PORT", "a\0b").is_err());
    }

    #[test]
    fn the_worktree_is_its_exact_path() {
        use std::os::unix::ffi::OsStringExt;
        let path = PathBuf::from(OsString::from_vec(b"/w\xff".to_vec()));
        let variables = [(WTD_WORKTREE.to_owned(), "/w\u{fffd}".to_owned())].into();
        let environment = Environment::checked(path.clone(), variables).unwrap();
        assert_eq!(environment.value(WTD_WORKTREE).unwrap(), path.as_os_str());
    }
}
