//! `add PATH`: watches a repository from now on.

use wtd_protocol::Repository;

use crate::cli::AddArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};

/// Has the repository watched, and says what is known of it.
pub(crate) fn run(daemon: &Daemon, args: &AddArgs) -> Result<(), Error> {
    let repository = daemon.add(&absolute(Some(&args.path))?)?;
    output::mistakes("add", &repository.mistakes);
    output::styled(&text(&repository))
}

fn text(repository: &Repository) -> String {
    let Repository { active, missing, stale, .. } = repository;
    let watched = format!(
        "{}: watched by {}; {active} active, {missing} missing, {stale} stale",
        Printable(&repository.repository),
        Printable(&repository.watched_by),
    );
    let unallocated = repository.unallocated.iter();
    let unallocated = unallocated.map(|reason| format!("without an allocation: {}", Printable(reason)));
    output::lines(std::iter::once(watched).chain(unallocated))
}
