//! Server-sent events (HTML Standard, "Interpreting an event stream"): only the data of each event is needed,
//! since a change has its number and its kind in it.

/// Largest event that is read, in bytes.
const MAX_BYTES: usize = 1024 * 1024;

/// An event that is larger than any that the daemon sends, or no text.
#[derive(Debug, thiserror::Error)]
pub(crate) enum EventError {
    /// Too large.
    #[error("an event is larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Not UTF-8.
    #[error("an event is not UTF-8")]
    NotText,
}

/// Takes a stream apart as it comes in.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    /// The line that has not ended.
    line: Vec<u8>,
    /// The data of the event that has not ended.
    data: Option<String>,
}

impl Parser {
    /// Takes the next piece of the stream; gives the data of the events that end in it.
    pub(crate) fn take(&mut self, piece: &[u8]) -> Result<Vec<String>, EventError> {
        let mut events = Vec::new();
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            let held = self.line.len() + self.data.as_ref().map_or(0, String::len);
            if held > MAX_BYTES {
                return Err(EventError::TooLarge);
            }
            if self.line.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                events.extend(self.end_line(&line)?);
            }
        }
        Ok(events)
    }

    /// Takes a whole line; gives the event's data when the line ends it.
    fn end_line(&mut self, line: &[u8]) -> Result<Option<String>, EventError> {
        let line = std::str::from_utf8(line).map_err(|_| EventError::NotText)?;
        let line = line.trim_end_matches(['\n', '\r']);
        if line.is_empty() {
            return Ok(self.data.take());
        }
        if let Some(value) = line.strip_prefix("data:") {
            let value = value.strip_prefix(' ').unwrap_or(value);
            match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            }
        }
        // Comments (`: keep-alive`) and other fields say nothing that the data doesn't.
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_found_however_the_stream_is_cut() {
        let stream = b": hello\n\nid: 7\nevent: allocated\ndata: {\"a\":\ndata: 1}\n\n: keep-alive\n\ndata:x\r\n\r\ndata: open";
        for size in 1..stream.len() {
            let mut parser = Parser::default();
            let events: Vec<_> = stream.chunks(size).flat_map(|piece| parser.take(piece).unwrap()).collect();
            assert_eq!(events, ["{\"a\":\n1}", "x"], "in pieces of {size}");
        }
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert!((0..2).map(|_| parser.take(&vec![b'x'; MAX_BYTES])).any(|taken| taken.is_err()));
    }
}
