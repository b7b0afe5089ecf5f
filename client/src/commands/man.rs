//! `man [COMMAND]`: a manual page in roff.

use clap::CommandFactory as _;

use crate::cli::{Cli, ManArgs};
use crate::error::Error;
use crate::output;

/// Prints the page of the client, or of one of its commands.
pub(crate) fn run(args: &ManArgs) -> Result<(), Error> {
    let mut client = Cli::command();
    client.build();
    let page = match &args.command {
        None => client,
        Some(name) => client
            .find_subcommand(name)
            .cloned()
            .ok_or_else(|| Error::failed(format!("there is no command {name}"), "see `wtd-client --help`"))?,
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page).render(&mut roff).map_err(Error::Output)?;
    output::bytes(&roff)
}
