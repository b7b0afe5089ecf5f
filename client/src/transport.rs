//! One HTTP/1.1 exchange over a Unix socket (RFC 9112), blocking, with one deadline for all of it.
//!
//! Written for the fewest system calls before the request is on its way, since the client runs at every prompt.
//! Nothing that comes back is trusted: sizes are bounded, and what is not HTTP is an error.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::deadline::{Deadline, Waited};

/// Largest head of an answer that is read, in bytes.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// Largest body of an answer that is read, in bytes: a list of a hundred thousand worktrees.
const MAX_BODY_BYTES: usize = 128 * 1024 * 1024;
/// Most header fields of an answer that are read.
const MAX_FIELDS: usize = 64;
/// Longest line that tells a chunk's size, in bytes.
const MAX_CHUNK_LINE_BYTES: usize = 1024;
/// Bytes that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExchangeError {
    /// The time is over.
    #[error("no answer came within the time allowed")]
    TimedOut,
    /// The server closed the connection and answered nothing; the request may or may not have been carried out.
    #[error("the connection was closed without an answer")]
    Closed,
    /// The server closed the connection within its answer.
    #[error("the answer ended early")]
    Truncated,
    /// The answer is not HTTP, or not as the daemon would write it.
    #[error("what answers there is not wtd: {0}")]
    Malformed(&'static str),
    /// The answer is larger than any that the daemon gives.
    #[error("the answer is too large")]
    TooLarge,
    /// Nobody reads what is printed of a stream any more.
    #[error("nobody reads the output any more")]
    Hangup,
    /// The connection failed.
    #[error("{0}")]
    Connection(Errno),
}

/// A request.
#[derive(Debug)]
pub(crate) struct Request {
    /// The method.
    pub(crate) method: &'static str,
    /// The path and the query.
    pub(crate) target: String,
    /// The number of the last event that was seen, for a stream that is taken up again
    /// (HTML Standard, server-sent events).
    pub(crate) last_event: Option<i64>,
    /// The body: JSON, or empty.
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// A `GET`.
    pub(crate) fn get(target: impl Into<String>) -> Self {
        Self { method: "GET", target: target.into(), last_event: None, body: Vec::new() }
    }

    /// Whether carrying it out twice is the same as once (RFC 9110, section 9.2.2), so that it can be sent
    /// again when the connection broke.
    pub(crate) fn is_idempotent(&self) -> bool {
        self.method != "POST"
    }

    /// The request as it travels.
    fn to_bytes(&self) -> Vec<u8> {
        use std::io::Write as _;
        let mut bytes = Vec::with_capacity(256 + self.body.len());
        let last_event = self.last_event.map(|id| format!("Last-Event-ID: {id}\r\n")).unwrap_or_default();
        let written = write!(
            bytes,
            "{} {} HTTP/1.1\r\nHost: {}\r\nUser-Agent: wtd-client/{}\r\nConnection: close\r\n{last_event}\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            self.method,
            self.target,
            wtd_protocol::routes::HOST,
            wtd_protocol::VERSION,
            self.body.len()
        );
        debug_assert!(written.is_ok(), "a Vec takes all bytes");
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// How the end of a body is told (RFC 9112, section 6.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    /// So many bytes are left.
    Length(u64),
    /// The size of a chunk comes next.
    ChunkSize,
    /// So many bytes of a chunk are left.
    Chunk(u64),
    /// The line end after a chunk comes next.
    ChunkEnd,
    /// The body ends with the connection.
    UntilClose,
    /// The body has ended.
    Done,
}

/// A request that was sent, and as much of the answer as was read.
#[derive(Debug)]
pub(crate) struct Exchange {
    socket: OwnedFd,
    deadline: Deadline,
    /// Bytes that were read.
    buffer: Vec<u8>,
    /// How many of them are dealt with.
    consumed: usize,
    framing: Framing,
    /// Whether to stop when nobody reads standard output any more.
    until_hangup: bool,
}

impl Exchange {
    /// Sends `request`.
    pub(crate) fn send(
        socket: OwnedFd,
        request: &Request,
        deadline: Deadline,
    ) -> Result<Self, ExchangeError> {
        let bytes = request.to_bytes();
        let mut left = bytes.as_slice();
        while !left.is_empty() {
            match send(&socket, left, SendFlags::NOSIGNAL) {
                Ok(sent) => left = left.get(sent..).unwrap_or_default(),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => {
                    let writable = &mut [PollFd::new(&socket, PollFlags::OUT)];
                    match deadline.wait(writable).map_err(ExchangeError::Connection)? {
                        Waited::Ready => {}
                        Waited::TimedOut => return Err(ExchangeError::TimedOut),
                    }
                }
                // The server may have answered before it closed.
                Err(Errno::PIPE | Errno::CONNRESET) => break,
                Err(errno) => return Err(ExchangeError::Connection(errno)),
            }
        }
        Ok(Self {
            socket,
            deadline,
            buffer: Vec::new(),
            consumed: 0,
            framing: Framing::Done,
            until_hangup: false,
        })
    }

    /// Reads the answer's head; gives its status.
    pub(crate) fn status(&mut self) -> Result<u16, ExchangeError> {
        loop {
            if !self.fill()? {
                let nothing = self.buffer.is_empty();
                return Err(if nothing { ExchangeError::Closed } else { ExchangeError::Truncated });
            }
            let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
            let mut head = httparse::Response::new(&mut fields);
            match head.parse(&self.buffer) {
                Ok(httparse::Status::Complete(length)) => {
                    let status = head.code.unwrap_or_default();
                    self.framing = framing(status, head.headers)?;
                    self.consumed = length;
                    return Ok(status);
                }
                Ok(httparse::Status::Partial) if self.buffer.len() < MAX_HEAD_BYTES => {}
                Ok(httparse::Status::Partial) | Err(httparse::Error::TooManyHeaders) => {
                    return Err(ExchangeError::TooLarge);
                }
                Err(_) => return Err(ExchangeError::Malformed("the answer is not HTTP")),
            }
        }
    }

    /// Reads the whole body.
    pub(crate) fn body(&mut self) -> Result<Vec<u8>, ExchangeError> {
        let mut body = Vec::new();
        while self.more(&mut body)? {
            if body.len() > MAX_BODY_BYTES {
                return Err(ExchangeError::TooLarge);
            }
        }
        Ok(body)
    }

    /// From here on, waits without an end, for a stream of events; but not longer than someone reads what is
    /// printed of them.
    pub(crate) fn follow(&mut self) {
        self.deadline = Deadline::never();
        self.until_hangup = true;
    }

    /// From here on, waits without an end: for what takes as long as it takes.
    pub(crate) fn unbounded(&mut self) {
        self.deadline = Deadline::never();
    }

    /// Appends the next piece of the body to `body`; false at its end.
    pub(crate) fn more(&mut self, body: &mut Vec<u8>) -> Result<bool, ExchangeError> {
        loop {
            match self.framing {
                Framing::Done => return Ok(false),
                Framing::Length(0) => self.framing = Framing::Done,
                Framing::Length(left) => {
                    let taken = self.take(left, body)?;
                    self.framing = Framing::Length(left.saturating_sub(taken));
                    return Ok(true);
                }
                Framing::UntilClose => {
                    if self.consumed == self.buffer.len() && !self.fill()? {
                        self.framing = Framing::Done;
                        return Ok(false);
                    }
                    self.take(u64::MAX, body)?;
                    return Ok(true);
                }
                Framing::ChunkSize => self.read_chunk_size()?,
                Framing::Chunk(left) => {
                    let taken = self.take(left, body)?;
                    let left = left.saturating_sub(taken);
                    self.framing = if left == 0 { Framing::ChunkEnd } else { Framing::Chunk(left) };
                    return Ok(true);
                }
                Framing::ChunkEnd => {
                    let mut end = Vec::with_capacity(2);
                    while end.len() < 2 {
                        self.take(2 - end.len() as u64, &mut end)?;
                    }
                    if end != b"\r\n" {
                        return Err(ExchangeError::Malformed("a chunk doesn't end where it should"));
                    }
                    self.framing = Framing::ChunkSize;
                }
            }
        }
    }

    /// Reads the line with a chunk's size. What follows the last chunk is not needed: the connection ends.
    fn read_chunk_size(&mut self) -> Result<(), ExchangeError> {
        loop {
            let ahead = self.buffer.get(self.consumed..).unwrap_or_default();
            match httparse::parse_chunk_size(ahead) {
                Ok(httparse::Status::Complete((length, size))) => {
                    self.consumed += length;
                    self.framing = if size == 0 { Framing::Done } else { Framing::Chunk(size) };
                    return Ok(());
                }
                Ok(httparse::Status::Partial) if ahead.len() < MAX_CHUNK_LINE_BYTES => {
                    if !self.fill()? {
                        return Err(ExchangeError::Truncated);
                    }
                }
                _ => return Err(ExchangeError::Malformed("a chunk's size can't be read")),
            }
        }
    }

    /// Moves at least one and at most `most` bytes of the answer to `target`.
    fn take(&mut self, most: u64, target: &mut Vec<u8>) -> Result<u64, ExchangeError> {
        if self.consumed == self.buffer.len() && !self.fill()? {
            return Err(ExchangeError::Truncated);
        }
        let ahead = self.buffer.get(self.consumed..).unwrap_or_default();
        let length = usize::try_from(most).unwrap_or(usize::MAX).min(ahead.len());
        target.extend_from_slice(ahead.get(..length).unwrap_or_default());
        self.consumed += length;
        Ok(length as u64)
    }

    /// Reads more of the answer; false at the end of the connection.
    fn fill(&mut self) -> Result<bool, ExchangeError> {
        if self.consumed == self.buffer.len() {
            self.buffer.clear();
            self.consumed = 0;
        }
        let filled = self.buffer.len();
        self.buffer.resize(filled + READ_BYTES, 0);
        let result = self.receive(filled);
        self.buffer.truncate(filled + result.as_ref().map_or(0, |length| *length));
        result.map(|length| length > 0)
    }

    /// Reads into the buffer from `start` on; gives the number of bytes, zero at the end of the connection.
    fn receive(&mut self, start: usize) -> Result<usize, ExchangeError> {
        loop {
            self.wait_readable()?;
            let free = self.buffer.get_mut(start..).unwrap_or_default();
            match recv(&self.socket, free, RecvFlags::empty()) {
                Ok((length, _)) => return Ok(length),
                Err(Errno::CONNRESET) => return Ok(0),
                Err(Errno::INTR | Errno::AGAIN) => {}
                Err(errno) => return Err(ExchangeError::Connection(errno)),
            }
        }
    }

    /// Waits until there is something to read.
    fn wait_readable(&self) -> Result<(), ExchangeError> {
        let output = std::io::stdout();
        // With no events asked for, poll(2) reports errors only: on a pipe, that its reader is gone.
        let mut descriptors =
            [PollFd::new(&self.socket, PollFlags::IN), PollFd::new(&output, PollFlags::empty())];
        let [socket, _] = &mut descriptors;
        let watched = if self.until_hangup { &mut descriptors[..] } else { std::slice::from_mut(socket) };
        match self.deadline.wait(watched).map_err(ExchangeError::Connection)? {
            Waited::TimedOut => Err(ExchangeError::TimedOut),
            Waited::Ready => {
                let [_, output] = &descriptors;
                if output.revents().contains(PollFlags::ERR) { Err(ExchangeError::Hangup) } else { Ok(()) }
            }
        }
    }
}

/// How the end of the body is told, for an answer of this status with these header fields.
fn framing(status: u16, fields: &[httparse::Header<'_>]) -> Result<Framing, ExchangeError> {
    let values = |name: &'static str| {
        fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name)).map(|field| field.value)
    };
    let mut length = None;
    for value in values("content-length") {
        let value = std::str::from_utf8(value)
            .ok()
            .filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|value| value.parse::<u64>().ok())
            .ok_or(ExchangeError::Malformed("the answer's length can't be read"))?;
        if length.replace(value).is_some_and(|other| other != value) {
            return Err(ExchangeError::Malformed("the answer has two lengths"));
        }
    }
    let mut encodings = values("transfer-encoding");
    match (encodings.next(), length) {
        (Some(_), Some(_)) => Err(ExchangeError::Malformed("the answer has a length and chunks")),
        (Some(encoding), None) if encoding.eq_ignore_ascii_case(b"chunked") && encodings.next().is_none() => {
            Ok(Framing::ChunkSize)
        }
        (Some(_), None) => Err(ExchangeError::Malformed("the answer's transfer coding is not known")),
        (None, _) if matches!(status, 100..=199 | 204 | 304) => Ok(Framing::Done),
        (None, Some(length)) if length > MAX_BODY_BYTES as u64 => Err(ExchangeError::TooLarge),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (None, None) => Ok(Framing::UntilClose),
    }
}
