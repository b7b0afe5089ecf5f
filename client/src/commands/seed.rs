//! `seed`: fills the worktree's volumes with copies of another worktree's.

use wtd_protocol::requests::PathRequest;
use wtd_protocol::seed::{SeedEvent, SeedMethod, SeedReport, SeedRequest, Seeded};

use super::gc::{engine_hint, size};
use super::progress::{self, Broken};
use crate::cli::SeedArgs;
use crate::daemon::Daemon;
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};
use crate::transport::Exchange;

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

/// Says at once what a person has to know, and shows how far it is until there is a report.
fn follow(stream: Exchange) -> Result<SeedReport, Error> {
    progress::follow(stream, |event, line| {
        match event {
            SeedEvent::Report(report) => return Some(report),
            SeedEvent::Begin { what } => line.show(&Printable(&what).to_string()),
            SeedEvent::Notice { text } => {
                line.clear();
                output::note("seed", &text);
            }
            SeedEvent::Copied { bytes, total } => {
                let of = total.map_or_else(String::new, |total| format!(" of {}", size(total)));
                line.show(&format!("{}{of} copied", size(bytes)));
            }
        }
        None
    })
    .map_err(|broken| match broken {
        Broken::Ended => Error::failed(
            "the daemon went away before the copy had ended",
            "what is half filled is removed when it starts again; then seed again",
        ),
        Broken::Unreadable(why) => Error::failed(
            format!("what the daemon tells of the copy can't be read: {why}"),
            "compare the versions with `wtd-client doctor`",
        ),
    })
}
