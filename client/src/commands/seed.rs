//! `seed`: fills the worktree's volumes with copies of another worktree's.

use std::io::IsTerminal as _;

use wtd_protocol::requests::PathRequest;
use wtd_protocol::seed::{SeedEvent, SeedMethod, SeedReport, SeedRequest, Seeded};

use super::gc::{engine_hint, progress, size};
use crate::cli::SeedArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};
use crate::transport::{Exchange, ExchangeError};

/// Has the volumes filled, and says which.
pub(crate) fn run(daemon: &Daemon, args: &SeedArgs) -> Result<(), Error> {
    let from = args.from.as_ref().map(|from| absolute(Some(from))).transpose()?;
    let request = SeedRequest {
        path: PathRequest::of(&absolute(args.path.as_deref())?),
        from: from.map(|from| PathRequest::of(&from)),
        all: args.all,
        no_pause: args.no_pause,
        engine: engine_hint(),
    };
    let report = follow(daemon.seed(&request)?)?;
    let failed_at_once = report.failure.is_some() && report.volumes.is_empty();
    if args.json && !failed_at_once {
        output::json(&report.volumes)?;
    } else {
        let lines: Vec<String> = report.volumes.iter().flat_map(|it| told(it, &report.from)).collect();
        output::styled(&output::lines(lines.iter().map(|line| Printable(line))))?;
    }
    report.failure.map_or(Ok(()), |problem| Err(Error::Problem(problem)))
}

/// What there is to tell of a volume.
fn told(seeded: &Seeded, from: &str) -> Vec<String> {
    let how = match seeded.method {
        SeedMethod::BaseBackup => "while its server ran",
        SeedMethod::Files => "while nothing used it",
        SeedMethod::Paused => "while what uses it was paused",
    };
    let Seeded { source, volume, bytes, notes, .. } = seeded;
    let first = format!("{volume} is a copy of {source} ({from}), {}, made {how}.", size(*bytes));
    std::iter::once(first).chain(notes.iter().map(|note| format!("{volume}: {note}"))).collect()
}

/// Reads the events to the last, says at once what a person has to know, and shows how far it is on a terminal.
fn follow(mut stream: Exchange) -> Result<SeedReport, Error> {
    let shows = std::io::stderr().is_terminal();
    let mut pending = Vec::new();
    loop {
        let more = stream.more(&mut pending);
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(|error| unreadable(&error.to_string()))? {
                SeedEvent::Report(report) => {
                    progress(shows, "");
                    return Ok(report);
                }
                SeedEvent::Begin { what } => progress(shows, &Printable(&what).to_string()),
                SeedEvent::Notice { text } => {
                    progress(shows, "");
                    output::note("seed", &text);
                }
                SeedEvent::Copied { bytes, total } => {
                    let of = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
                    progress(shows, &format!("{}{of} copied", size(bytes)));
                }
            }
        }
        match more {
            Ok(true) => {}
            Ok(false) | Err(ExchangeError::Truncated) => {
                progress(shows, "");
                return Err(Error::failed(
                    "the daemon went away before the copy had ended",
                    "what is half filled is removed when it starts again; then seed again",
                ));
            }
            Err(error) => return Err(unreadable(&error.to_string())),
        }
    }
}

fn unreadable(why: &str) -> Error {
    Error::failed(
        format!("what the daemon tells of the copy can't be read: {why}"),
        "compare the versions with `wtd-client doctor`",
    )
}
