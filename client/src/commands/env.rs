//! `env`: the worktree's variables, for eval, for a file or for a program.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::IsTerminal as _;

use wtd_protocol::PathText;
use wtd_protocol::variable::WTD_WORKTREE;

use crate::cli::{EnvArgs, Format};
use crate::daemon::Daemon;
use crate::environment::Environment;
use crate::error::Error;
use crate::{dotenv, foreign, output, shell};

use super::env_write;

/// Prints the variables. Outside of a worktree nothing is printed, since the output is evaluated at every
/// prompt; only `--strict` makes that an error.
pub(crate) fn run(daemon: &Daemon, args: &EnvArgs) -> Result<(), Error> {
    if let Some(file) = &args.write {
        return env_write::run(daemon, args, file);
    }
    let mut detected = None;
    let mut detect = || {
        if args.format == Format::Shell && args.shell.is_none() {
            detected.get_or_insert_with(shell::detect);
        }
    };
    let environment = match Environment::of(daemon, args.path.as_deref(), &mut detect) {
        Ok(environment) => environment,
        Err(error) if error.exit_code() == 3 && !args.strict => return Ok(()),
        Err(error) => return Err(error),
    };
    environment.tell_mistakes("env");
    let variables = chosen(&environment, &args.keys)?;
    let text = match args.format {
        Format::Shell => {
            let shell = match args.shell {
                Some(shell) => shell,
                None => detected.unwrap_or_else(shell::detect).map_err(|error| {
                    Error::failed(
                        error.to_string(),
                        "name another shell with --shell, or use --format dotenv",
                    )
                })?,
            };
            let mut code = shell::assignments(shell, variables.iter())
                .map_err(|error| Error::failed(error.to_string(), "move the worktree to a path in UTF-8"))?;
            if args.keys.is_empty() {
                code.extend(shell::withdrawals(shell, &foreign::variables(&environment)));
            }
            code
        }
        Format::Dotenv => dotenv::lines(variables.iter())
            .map_err(|error| Error::failed(error.to_string(), "use --format json or shell"))?,
        Format::Json => return output::json(&object(&variables)),
    };
    output::bytes(&text)?;
    // Whoever evaluates the output at every change of directory is not told each time.
    if environment.untrusted && std::io::stdout().is_terminal() {
        output::note("env", UNTRUSTED);
    }
    Ok(())
}

/// What is told of a configuration that nobody has trusted yet.
pub(super) const UNTRUSTED: &str =
    "wtd.toml has templates or files that are not applied; `wtd-client trust` shows them, and asks";

/// The variables that were asked for.
pub(super) fn chosen(
    environment: &Environment,
    keys: &[String],
) -> Result<BTreeMap<String, OsString>, Error> {
    if keys.is_empty() {
        return Ok(environment.variables.clone());
    }
    keys.iter().map(|key| Ok((key.clone(), environment.value(key)?.to_owned()))).collect()
}

/// The variables as one flat object of strings. A worktree whose path is not UTF-8 is given exactly beside it.
fn object(variables: &BTreeMap<String, OsString>) -> BTreeMap<&str, String> {
    let mut object: BTreeMap<_, _> =
        variables.iter().map(|(name, value)| (name.as_str(), value.to_string_lossy().into_owned())).collect();
    if let Some(exact) = variables.get(WTD_WORKTREE).and_then(|path| PathText::of(path.as_ref()).base64) {
        object.insert("path_base64", exact);
    }
    object
}
