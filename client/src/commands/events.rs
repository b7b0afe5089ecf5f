//! `events`: follows the changes of allocations, one line each, until interrupted.

use std::time::Duration;

use wtd_protocol::Change;

use crate::cli::JsonArgs;
use crate::daemon::Daemon;
use crate::deadline::Deadline;
use crate::error::Error;
use crate::events::Parser;
use crate::output::{self, Printable};
use crate::transport::ExchangeError;

/// How long it waits before it asks again after a stream has ended: longer each time that nothing came.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// How a stream of events ended.
enum Ended {
    /// The daemon went away; it may come back.
    Stream,
    /// Nobody reads the output any more.
    Reader,
}

/// Prints each change. When the daemon is restarted, goes on after the last change that was seen.
pub(crate) fn run(daemon: &Daemon, args: &JsonArgs) -> Result<(), Error> {
    let mut last = None;
    let mut daemon = daemon.again();
    let mut pause = FIRST_PAUSE;
    loop {
        let before = last;
        match follow(&daemon, args.json, &mut last)? {
            Ended::Reader => return Ok(()),
            Ended::Stream => {
                if last != before {
                    pause = FIRST_PAUSE;
                }
                let waited = Deadline::after(pause).pause(pause);
                waited
                    .map_err(|errno| Error::failed(format!("the stream of events: {errno}"), "try again"))?;
                pause = (pause * 2).min(LONGEST_PAUSE);
                daemon = daemon.again();
            }
        }
    }
}

fn follow(daemon: &Daemon, json: bool, last: &mut Option<i64>) -> Result<Ended, Error> {
    let mut stream = daemon.events(*last)?;
    let mut parser = Parser::default();
    let mut piece = Vec::new();
    loop {
        piece.clear();
        match stream.more(&mut piece) {
            Ok(true) => {}
            Ok(false) | Err(ExchangeError::Truncated) => return Ok(Ended::Stream),
            Err(ExchangeError::Hangup) => return Ok(Ended::Reader),
            Err(error) => return Err(Error::failed(format!("the stream of events: {error}"), "try again")),
        }
        for data in parser.take(&piece).map_err(|error| Error::failed(error.to_string(), "try again"))? {
            if !show(&data, json, last)? {
                return Ok(Ended::Reader);
            }
        }
    }
}

/// Prints one change; false when nobody reads any more. The daemon sends none again that was seen before; a lower number
/// than the last comes from a registry that has taken the place of another.
fn show(data: &str, json: bool, last: &mut Option<i64>) -> Result<bool, Error> {
    let unreadable = |error: serde_json::Error| {
        Error::failed(
            format!("an event can't be read: {error}"),
            "compare the versions with `wtd-client doctor`",
        )
    };
    let change: Change = serde_json::from_str(data).map_err(unreadable)?;
    *last = Some(change.sequence);
    if json {
        // Written anew: it is one line then, whatever was sent, with the fields that this version doesn't know.
        let value: serde_json::Value = serde_json::from_str(data).map_err(unreadable)?;
        return output::line(&value.to_string());
    }
    output::line(&text(&change))
}

fn text(change: &Change) -> String {
    let Change { at, kind, allocation, .. } = change;
    let reason =
        if allocation.reason.is_empty() { String::new() } else { format!(": {}", allocation.reason) };
    let (kind, offset, path) = (kind.as_str(), allocation.offset, &allocation.path);
    Printable(&format!("{at} {kind} {offset} {path}{reason}")).to_string()
}
