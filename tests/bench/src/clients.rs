//! Many clients in one thread, with as little work for each answer as can be: what they take from the processor, the
//! daemon doesn't get.

use std::io::{ErrorKind, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use rustix::event::{Timespec, epoll};

use crate::http::parse_head;
use crate::samples::Samples;

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// As soon as the answer is there: this is the load that the daemon can just bear.
    Closed,
    /// At fixed times. An answer that comes after the next request was due makes that one late by as much, so that a
    /// stall is not hidden by the requests that it held up.
    Fixed(Duration),
}

/// Clients that ask at once, each on a connection of its own.
#[derive(Debug)]
pub(crate) struct Clients<'r> {
    /// What they ask, in turn.
    pub(crate) requests: &'r [Vec<u8>],
    /// How many there are.
    pub(crate) count: usize,
    pub(crate) pace: Pace,
    /// How long they ask.
    pub(crate) time: Duration,
}

#[derive(Debug)]
struct Client {
    stream: UnixStream,
    /// The number of the next request.
    next: usize,
    /// When the request that is under way was sent, or should have been.
    sent: Option<Instant>,
    /// When the next request is due; only when paced.
    due: Instant,
    received: Vec<u8>,
}

impl Clients<'_> {
    /// How long the answers took.
    pub(crate) fn run(&self, socket: &Path) -> anyhow::Result<Samples> {
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let begin = Instant::now();
        let mut clients = Vec::with_capacity(self.count);
        for number in 0..self.count {
            let stream = UnixStream::connect(socket).with_context(|| format!("{}", socket.display()))?;
            stream.set_nonblocking(true)?;
            let data = epoll::EventData::new_u64(number as u64);
            epoll::add(&poll, &stream, data, epoll::EventFlags::IN)?;
            // Paced ones do not begin all at once.
            let due = match self.pace {
                Pace::Closed => begin,
                Pace::Fixed(interval) => {
                    begin + interval * u32::try_from(number)? / u32::try_from(self.count)?
                }
            };
            clients.push(Client {
                stream,
                next: number * 3,
                sent: None,
                due,
                received: Vec::with_capacity(4096),
            });
        }
        let end = begin + self.time;
        let mut samples = Samples::default();
        let mut events = [MaybeUninit::<epoll::Event>::uninit(); 64];
        loop {
            let now = Instant::now();
            if now >= end && clients.iter().all(|client| client.sent.is_none()) {
                return Ok(samples);
            }
            if now < end {
                for client in &mut clients {
                    self.send_if_due(client, now)?;
                }
            }
            let idle = clients.iter().filter(|client| client.sent.is_none());
            let wait = idle.map(|client| client.due.saturating_duration_since(now)).min();
            let wait = wait.map(Timespec::try_from).transpose()?;
            let (ready, _) = epoll::wait(&poll, &mut events, wait.as_ref())?;
            for event in ready {
                let number = usize::try_from(event.data.u64())?;
                let client = clients.get_mut(number).context("an event for no client")?;
                if let Some(took) = client.receive()? {
                    samples.push(took);
                    if matches!(self.pace, Pace::Closed) && Instant::now() < end {
                        self.send_if_due(client, Instant::now())?;
                    }
                }
            }
        }
    }

    fn send_if_due(&self, client: &mut Client, now: Instant) -> anyhow::Result<()> {
        if client.sent.is_some() || client.due > now {
            return Ok(());
        }
        let request = self.requests.get(client.next % self.requests.len()).context("nothing to ask")?;
        client.next += 1;
        client.sent = Some(match self.pace {
            Pace::Closed => now,
            // That this loop was late is not the daemon's doing; that the last answer was, is.
            Pace::Fixed(interval) => {
                let due = client.due;
                client.due += interval;
                if client.due < now { due } else { now }
            }
        });
        client.stream.write_all(request)?;
        Ok(())
    }
}

impl Client {
    /// Takes what has come in; how long the answer took, once it is complete.
    fn receive(&mut self) -> anyhow::Result<Option<Duration>> {
        let mut buffer = [0; 8192];
        let read = match self.stream.read(&mut buffer) {
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            read => read?,
        };
        ensure!(read > 0, "the daemon closed the connection");
        self.received.extend_from_slice(buffer.split_at(read).0);
        let Some((status, body, length)) = parse_head(&self.received)? else { return Ok(None) };
        if self.received.len() < body + length {
            return Ok(None);
        }
        ensure!(status == 200, "the daemon answered {status}");
        self.received.clear();
        Ok(self.sent.take().map(|sent| sent.elapsed()))
    }
}
