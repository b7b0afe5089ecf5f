//! The daemon's server-sent events (HTML Standard, 9.2).

use std::io::{self, BufRead as _, BufReader, ErrorKind, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::DEADLINE;

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: i64,
    pub(crate) kind: String,
    pub(crate) data: Value,
}

/// A stream of events that is being followed.
pub(crate) struct Events {
    stream: BufReader<UnixStream>,
    /// What has come of the next line.
    line: Vec<u8>,
    /// What has come of the next event.
    event: Event,
}

impl Events {
    /// Follows changes from now on, or after the one numbered `last`. Once this returns, no change is missed.
    /// HTTP/1.0 has no chunks, so what comes is the stream itself.
    pub(crate) fn follow(socket: &Path, last: Option<i64>) -> Self {
        let mut stream = UnixStream::connect(socket).unwrap();
        let resume = last.map(|last| format!("Last-Event-ID: {last}\r\n")).unwrap_or_default();
        write!(stream, "GET /v1/events HTTP/1.0\r\nHost: wtd\r\n{resume}\r\n").unwrap();
        let mut events = Self { stream: BufReader::new(stream), line: Vec::new(), event: Event::default() };
        let end = Instant::now() + DEADLINE;
        let status = events.line(end).unwrap().unwrap();
        assert!(status.contains(" 200 "), "{status}");
        while events.line(end).unwrap().is_some_and(|line| !line.is_empty()) {}
        events
    }

    /// The next event until `end`; none when the time is over or the stream has ended. What has come of an event by then
    /// is kept for the next call.
    pub(crate) fn next_until(&mut self, end: Instant) -> Option<Event> {
        while let Ok(Some(line)) = self.line(end) {
            match line.split_once(':').map(|(name, value)| (name, value.trim_start())) {
                Some(("id", value)) => self.event.id = value.parse().unwrap(),
                Some(("event", value)) => value.clone_into(&mut self.event.kind),
                Some(("data", value)) => self.event.data = serde_json::from_str(value).unwrap(),
                _ if line.is_empty() && self.event.id != 0 => return Some(std::mem::take(&mut self.event)),
                _ => {}
            }
        }
        None
    }

    /// The next event, which has to come.
    #[track_caller]
    pub(crate) fn next(&mut self) -> Event {
        self.next_until(Instant::now() + DEADLINE).unwrap_or_else(|| panic!("no event within {DEADLINE:?}"))
    }

    fn line(&mut self, end: Instant) -> io::Result<Option<String>> {
        let left = end.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.get_ref().set_read_timeout(Some(left))?;
        self.stream.read_until(b'\n', &mut self.line)?;
        if !self.line.ends_with(b"\n") {
            return Ok(None);
        }
        let line = String::from_utf8(std::mem::take(&mut self.line));
        let line = line.map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        Ok(Some(line.trim_end_matches(['\r', '\n']).to_owned()))
    }
}
