//! `compose`: the override that isolates the worktree's Compose project.

use std::path::{Path, PathBuf};

use crate::cli::ComposeArgs;
use crate::compose::project::Project;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};

/// Prints the override, has it written, or takes it away.
pub(crate) fn run(daemon: &Daemon, args: &ComposeArgs) -> Result<(), Error> {
    let path = absolute(args.path.as_deref())?;
    if args.remove {
        let allocation = daemon.remove_override(&path)?;
        return output::styled(&format!(
            "{} has no Compose override any more; COMPOSE_FILE stays in open shells until it is unset there.\n",
            Printable(&allocation.path)
        ));
    }
    let project = Project::read(daemon, &path, &args.files)?;
    let plan = project.plan(daemon)?;
    for note in &plan.notes {
        output::note("compose", note);
    }
    // Whoever writes it again was told the first time.
    if !project.has_override() && !plan.left_behind.is_empty() {
        let names = plan.left_behind.join(", ");
        output::note(
            "compose",
            &format!("volumes get names of the worktree's own; what is in these stays there: {names}"),
        );
    }
    if !args.write {
        return output::bytes(plan.text.as_bytes());
    }
    let written = daemon.again().set_override(&project.request(plan)?)?;
    let file = written.compose.map(|compose| compose.file).unwrap_or_default();
    output::styled(&format!(
        "Wrote {}; COMPOSE_FILE is among the worktree's variables now. In open shells: eval \"$(wtd-client env)\"\n",
        Printable(&file)
    ))
}

/// Writes the override of a worktree that had one at another offset, for the same Compose files.
pub(crate) fn write_again(daemon: &Daemon, path: &Path, files: &[String]) -> Result<(), Error> {
    let args = ComposeArgs {
        files: files.iter().map(PathBuf::from).collect(),
        path: Some(path.to_owned()),
        write: true,
        remove: false,
    };
    run(daemon, &args).map_err(|error| {
        Error::failed(
            format!("the worktree's Compose override could not be written anew: {error}"),
            "until then docker compose publishes the ports of the project's own files",
        )
    })
}
