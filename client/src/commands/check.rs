//! `check`: whether the shell's variables are this worktree's.

use std::ffi::OsString;
use std::path::Path;

use wtd_protocol::variable::WTD_WORKTREE;

use crate::cli::CheckArgs;
use crate::daemon::{Daemon, variable};
use crate::environment::Environment;
use crate::error::Error;
use crate::foreign;
use crate::shell::quoted;

/// Succeeds without a word when every variable is as this worktree has it.
pub(crate) fn run(daemon: &Daemon, args: &CheckArgs) -> Result<(), Error> {
    match Environment::of(daemon, args.path.as_deref(), &mut || {}) {
        Ok(environment) => {
            let remedy = remedy(args.path.as_deref());
            compare(&environment, &foreign::variables(&environment), &remedy, |name| std::env::var_os(name))
        }
        Err(error) if error.exit_code() == 3 => outside(variable(WTD_WORKTREE)),
        Err(error) => Err(error),
    }
}

/// What gives the shell the variables of the worktree that is asked about.
fn remedy(path: Option<&Path>) -> String {
    let path = path.map(|path| format!(" --path {}", quoted(path)));
    format!("run `eval \"$(wtd-client env{})\"`", path.unwrap_or_default())
}

/// Compares the variables that `set` looks up with the worktree's. None may be `foreign`.
fn compare(
    environment: &Environment,
    foreign: &[String],
    remedy: &str,
    set: impl Fn(&str) -> Option<OsString>,
) -> Result<(), Error> {
    let here = environment.worktree.display();
    match set(WTD_WORKTREE).filter(|other| !other.is_empty()) {
        None => return Err(Error::failed(format!("the shell has no variables of {here}"), remedy)),
        Some(other) if Path::new(&other) != environment.worktree => {
            let other = Path::new(&other).display();
            return Err(Error::failed(
                format!("the shell's variables are those of {other}, not of {here}"),
                remedy,
            ));
        }
        Some(_) => {}
    }
    if let Some(name) = foreign.first() {
        let why = format!("{name} is another worktree's, and {here} has none");
        return Err(Error::failed(why, format!("run `unset {name}`")));
    }
    for (name, wanted) in &environment.variables {
        match set(name) {
            Some(value) if value == *wanted => {}
            Some(value) => {
                let (value, wanted) = (value.to_string_lossy(), wanted.to_string_lossy());
                return Err(Error::failed(format!("{name} is {value}, and {here} has {wanted}"), remedy));
            }
            None => {
                let wanted = wanted.to_string_lossy();
                return Err(Error::failed(format!("{name} is not set, and {here} has {wanted}"), remedy));
            }
        }
    }
    Ok(())
}

/// Outside of a worktree there is nothing to compare with; but then no worktree's variables should be set.
fn outside(worktree: Option<OsString>) -> Result<(), Error> {
    match worktree {
        None => Ok(()),
        Some(worktree) => Err(Error::failed(
            format!(
                "the shell's variables are those of {}, and this is not a worktree",
                Path::new(&worktree).display()
            ),
            "open a new shell, or go back there if it still exists",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn result(set: &[(&str, &str)]) -> Result<(), String> {
        let variables = [("PORT_OFFSET", "10000"), ("WTD_WORKTREE", "/w")]
            .map(|(name, value)| (name.to_owned(), OsString::from(value)));
        let environment = Environment {
            worktree: "/w".into(),
            variables: BTreeMap::from(variables),
            untrusted: false,
            project: None,
            mistakes: Vec::new(),
            is_wanting: false,
        };
        compare(&environment, &[], "run it", |name| {
            set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into())
        })
        .map_err(|error| error.to_string())
    }

    #[test]
    fn the_variables_must_be_this_worktrees() {
        assert_eq!(result(&[("PORT_OFFSET", "10000"), ("WTD_WORKTREE", "/w"), ("X", "y")]), Ok(()));
        assert!(result(&[]).unwrap_err().contains("no variables of /w"));
        assert!(
            result(&[("WTD_WORKTREE", "/v"), ("PORT_OFFSET", "10000")]).unwrap_err().contains("those of /v")
        );
        assert!(
            result(&[("WTD_WORKTREE", "/w"), ("PORT_OFFSET", "0")]).unwrap_err().contains("PORT_OFFSET is 0")
        );
        assert!(result(&[("WTD_WORKTREE", "/w")]).unwrap_err().contains("PORT_OFFSET is not set"));
    }

    #[test]
    fn the_remedy_is_for_the_worktree_that_is_asked_about() {
        assert_eq!(remedy(None), "run `eval \"$(wtd-client env)\"`");
        let other = Path::new("../a b");
        assert_eq!(remedy(Some(other)), format!("run `eval \"$(wtd-client env --path {})\"`", quoted(other)));
    }

    #[test]
    fn outside_of_a_worktree_none_should_be_set() {
        assert!(outside(None).is_ok());
        assert!(outside(Some("/w".into())).is_err());
    }
}
