//! What the daemon tells of long work while it does it: one JSON object on each line, the report last.

use std::io::{IsTerminal as _, Write as _};

use serde::de::DeserializeOwned;

use crate::transport::{Exchange, ExchangeError};

/// Widest line that is shown, in characters, so that none is folded.
const WIDTH: usize = 78;

/// Why there is no report.
#[derive(Debug)]
pub(super) enum Broken {
    /// The daemon went away.
    Ended,
    /// What came can't be read, for this reason.
    Unreadable(String),
}

/// One line on a terminal, which is shown in place of the last.
#[derive(Debug)]
pub(super) struct Line {
    is_shown: bool,
}

impl Line {
    /// Shows it. Where even that can't be written, nobody is told.
    pub(super) fn show(&self, text: &str) {
        if self.is_shown {
            let text: String = text.chars().take(WIDTH).collect();
            let mut terminal = std::io::stderr();
            drop(write!(terminal, "\r\u{1b}[K{text}").and_then(|()| terminal.flush()));
        }
    }

    /// Leaves an empty line.
    pub(super) fn clear(&self) {
        self.show("");
    }
}

/// Reads the events until `told` makes a report of one.
pub(super) fn follow<Event: DeserializeOwned, Report>(
    mut stream: Exchange,
    mut told: impl FnMut(Event, &Line) -> Option<Report>,
) -> Result<Report, Broken> {
    let line = Line { is_shown: std::io::stderr().is_terminal() };
    let mut pending = Vec::new();
    let report = loop {
        let more = stream.more(&mut pending);
        if let Some(report) = first_report(&mut pending, |event| told(event, &line)).transpose() {
            break report;
        }
        match more {
            Ok(true) => {}
            Ok(false) | Err(ExchangeError::Truncated) => break Err(Broken::Ended),
            Err(error) => break Err(Broken::Unreadable(error.to_string())),
        }
    };
    line.clear();
    report
}

/// Takes the whole lines off `pending`, up to the first that makes a report.
fn first_report<Event: DeserializeOwned, Report>(
    pending: &mut Vec<u8>,
    mut told: impl FnMut(Event) -> Option<Report>,
) -> Result<Option<Report>, Broken> {
    while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
        let line: Vec<u8> = pending.drain(..=end).collect();
        let event = serde_json::from_slice(&line).map_err(|error| Broken::Unreadable(error.to_string()))?;
        if let Some(report) = told(event) {
            return Ok(Some(report));
        }
    }
    Ok(None)
}
