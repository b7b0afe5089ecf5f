//! `restore FILE`: brings a volume back that `gc --backup` wrote.

use wtd_protocol::gc::RestoreRequest;
use wtd_protocol::requests::PathRequest;

use super::gc::engine_hint;
use crate::cli::RestoreArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};

/// Has the volume made and filled; says which it is.
pub(crate) fn run(daemon: &Daemon, args: &RestoreArgs) -> Result<(), Error> {
    let request = RestoreRequest {
        file: PathRequest::of(&absolute(Some(&args.file))?),
        volume: args.volume.clone(),
        engine: engine_hint(),
    };
    let restored = daemon.restore(&request)?;
    if let Some(problem) = restored.failure {
        return Err(Error::Problem(problem));
    }
    let (volume, entries, engine) = (restored.volume, restored.entries, restored.engine);
    output::styled(&output::lines([Printable(&format!("{volume}: {entries} entries, on {engine}"))]))
}
