//! `reload`: has the daemon read its configuration again.

use wtd_protocol::requests::Reloaded;

use crate::cli::JsonArgs;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::output::{self, Printable};

/// Reloads, and says what has changed. Starts no daemon: one that starts reads its configuration anyway.
pub(crate) fn run(daemon: Daemon, args: &JsonArgs) -> Result<(), Error> {
    let reloaded = daemon.without_start().reload()?;
    if args.json { output::json(&reloaded) } else { output::styled(&text(&reloaded)) }
}

fn text(reloaded: &Reloaded) -> String {
    let place = reloaded.file.as_deref().unwrap_or("the built-in configuration");
    let changed = match reloaded.changed.as_slice() {
        [] => "nothing has changed".to_owned(),
        keys => format!("changed: {}", keys.join(", ")),
    };
    let in_force = format!("{} is in force; {}", Printable(place), Printable(&changed));
    let waiting = (!reloaded.needs_restart.is_empty())
        .then(|| format!("at the next start of wtd: {}", Printable(&reloaded.needs_restart.join(", "))));
    output::lines(std::iter::once(in_force).chain(waiting))
}
