//! `reassign [PATH]`: gives a worktree another offset.

use super::gc::engine_hint;
use crate::cli::ReassignArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};

/// Moves the worktree, and says where to.
pub(crate) fn run(daemon: &Daemon, args: &ReassignArgs) -> Result<(), Error> {
    let path = absolute(args.path.as_deref())?;
    let before = daemon.allocation(&path, &mut || {})?;
    let allocation = daemon.again().reassign(&path, args.force, engine_hint())?;
    let ports: Vec<_> = allocation.ports.iter().map(|(name, port)| format!("{name} {port}")).collect();
    output::styled(&format!(
        "{} now has offset {} ({}). In open shells: eval \"$(wtd-client env)\"\n",
        Printable(&allocation.path),
        allocation.offset,
        Printable(&ports.join(", ")),
    ))?;
    // The override has the ports and names of the old offset, and went with it.
    match before.compose {
        Some(compose) => super::compose::write_again(&daemon.again(), &path, &compose.files),
        None => Ok(()),
    }
}
