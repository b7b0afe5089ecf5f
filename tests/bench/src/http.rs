//! The least of an HTTP client that can put load on the daemon: one connection, kept alive.

use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;
use wtd_protocol::requests::PathRequest;
use wtd_protocol::routes;

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_mins(1);

#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    received: Vec<u8>,
}

impl Connection {
    pub(crate) fn open(socket: &Path) -> anyhow::Result<Self> {
        let stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        Ok(Self { stream, received: Vec::with_capacity(8192) })
    }

    /// Sends a request and waits for the answer, which has to be 200.
    pub(crate) fn ask(&mut self, request: &[u8]) -> anyhow::Result<Vec<u8>> {
        let (status, body) = self.exchange(request)?;
        ensure!(status == 200, "the daemon answered {status}: {}", String::from_utf8_lossy(&body));
        Ok(body)
    }

    /// Sends a request and waits for the answer.
    pub(crate) fn exchange(&mut self, request: &[u8]) -> anyhow::Result<(u16, Vec<u8>)> {
        self.stream.write_all(request)?;
        self.received.clear();
        let mut buffer = [0; 8192];
        loop {
            let read = self.stream.read(&mut buffer)?;
            if read == 0 {
                bail!("the daemon closed the connection");
            }
            self.received.extend(buffer.iter().take(read));
            if let Some((status, body, length)) = parse_head(&self.received)?
                && self.received.len() >= body + length
            {
                return Ok((status, self.received.split_off(body)));
            }
        }
    }
}

/// The status, where the body begins, and its length; none when the head is not complete.
pub(crate) fn parse_head(received: &[u8]) -> anyhow::Result<Option<(u16, usize, usize)>> {
    let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(received.split_at(end).0)?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    let length = head
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .context("no Content-Length")?
        .1
        .trim()
        .parse()?;
    Ok(Some((status, end + 4, length)))
}

/// The request for a resource.
pub(crate) fn get(route: &str) -> Vec<u8> {
    format!("GET {route} HTTP/1.1\r\nHost: {}\r\n\r\n", routes::HOST).into_bytes()
}

/// The request for the allocation of the worktree at `path`.
pub(crate) fn put_worktree(path: &Path) -> anyhow::Result<Vec<u8>> {
    put(routes::WORKTREES, path)
}

/// The request to watch the repository at `path`.
pub(crate) fn put_repository(path: &Path) -> anyhow::Result<Vec<u8>> {
    put(routes::REPOSITORIES, path)
}

fn put(route: &str, path: &Path) -> anyhow::Result<Vec<u8>> {
    let body = serde_json::to_string(&PathRequest::of(path))?;
    let length = body.len();
    let head = format!(
        "PUT {route} HTTP/1.1\r\nHost: {}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n",
        routes::HOST
    );
    Ok((head + &body).into_bytes())
}

/// One request on a connection of its own; the answer as JSON.
pub(crate) fn ask_once(socket: &Path, request: &[u8]) -> anyhow::Result<Value> {
    Ok(serde_json::from_slice(&Connection::open(socket)?.ask(request)?)?)
}
