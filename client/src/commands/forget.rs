//! `forget PATH`: stops watching a repository, after a question.

use std::io::IsTerminal as _;

use wtd_protocol::requests::Forgotten;

use crate::cli::ForgetArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};

/// Shows what would become stale, asks, and forgets it.
pub(crate) fn run(daemon: &Daemon, args: &ForgetArgs) -> Result<(), Error> {
    let path = absolute(Some(&args.path))?;
    if !args.yes {
        // What there is nothing to forget of is no question, and needs no terminal.
        let plan = daemon.forget(&path, true)?;
        let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
        if !can_ask {
            return Err(Error::failed(
                "there is no terminal to ask on",
                "pass -y to forget without a question",
            ));
        }
        output::styled(&text(&plan, false))?;
        if !output::ask("Forget?")? {
            return Err(Error::failed("nothing was forgotten", "answer y to forget"));
        }
    }
    let forgotten = daemon.again().forget(&path, false)?;
    output::styled(&text(&forgotten, true))
}

/// What is, or would be, forgotten: each allocation with the volumes that stay behind.
fn text(forgotten: &Forgotten, is_done: bool) -> String {
    let [stale, watched] = if is_done {
        ["is stale", "is no longer watched"]
    } else {
        ["would become stale", "would no longer be watched"]
    };
    let has_volumes = forgotten.has_engine;
    let allocations = forgotten.allocations.iter().map(|allocation| {
        let volumes: Vec<_> = allocation.own_volumes().collect();
        let stay = match volumes.as_slice() {
            volumes if has_volumes && !volumes.is_empty() => {
                let volumes = volumes.join(", ");
                format!("; its volumes stay until `wtd-client gc --missing`: {}", Printable(&volumes))
            }
            _ => String::new(),
        };
        format!("{}: offset {} {stale}{stay}", Printable(&allocation.path), allocation.offset)
    });
    let repository =
        forgotten.whole_repository.then(|| format!("{} {watched}", Printable(&forgotten.repository)));
    output::lines(allocations.chain(repository))
}
