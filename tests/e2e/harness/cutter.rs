//! A proxy that breaks a conversation with PostgreSQL off at a chosen place.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread;

use super::until;

/// A client's last word, to which no server replies ("Message Formats" in PostgreSQL's manual). That of an earlier
/// conversation may come late, so it is never the message to cut at.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

/// What happens to the chosen message of the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// The server never gets it.
    Request,
    /// The server does what it says, and the client never hears of it.
    Reply,
}

/// Passes on what clients say to a server, until they have said as much as they may.
pub(crate) struct Cutter(Arc<State>);

struct State {
    port: u16,
    server: u16,
    armed: AtomicBool,
    /// How many messages are passed on before the cut, counted down over all connections.
    left: AtomicUsize,
    reply: AtomicBool,
    /// Whether the client is left waiting, instead of being told that the connection is broken.
    silent: AtomicBool,
    stopped: AtomicBool,
    /// Conversations that stand now.
    open: AtomicUsize,
}

impl Cutter {
    /// Listens on `port` for clients of the server on `server`. It cuts nothing until it is told to.
    pub(crate) fn start(port: u16, server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let state = Arc::new(State {
            port,
            server,
            armed: AtomicBool::new(false),
            left: AtomicUsize::new(0),
            reply: AtomicBool::new(false),
            silent: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            open: AtomicUsize::new(0),
        });
        let shared = Arc::clone(&state);
        thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let (client, state) = (client.unwrap(), Arc::clone(&shared));
                state.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    state.pass(&client);
                    state.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self(state)
    }

    /// Cuts once: at the message after the next `passed` ones. `silent`: the client is left waiting.
    pub(crate) fn arm(&self, passed: usize, cut: Cut, silent: bool) {
        self.0.reply.store(cut == Cut::Reply, Ordering::SeqCst);
        self.0.silent.store(silent, Ordering::SeqCst);
        self.0.left.store(passed, Ordering::SeqCst);
        self.0.armed.store(true, Ordering::SeqCst);
    }

    /// Waits until nobody talks to the server, so that it is no earlier conversation that is cut.
    #[track_caller]
    pub(crate) fn await_silence(&self) {
        until("nobody talks to the server", || self.0.open.load(Ordering::SeqCst), |open| *open == 0);
    }

    /// Whether it is still to cut.
    pub(crate) fn is_armed(&self) -> bool {
        self.0.armed.load(Ordering::SeqCst)
    }

    /// Cuts no more.
    pub(crate) fn disarm(&self) {
        self.0.armed.store(false, Ordering::SeqCst);
    }
}

impl Drop for Cutter {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.0.port)));
    }
}

impl State {
    /// One connection, to its end.
    fn pass(&self, client: &TcpStream) {
        let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, self.server)) else {
            drop(client.shutdown(Shutdown::Both));
            return;
        };
        let swallow = AtomicBool::new(false);
        let (heard, replies) = channel();
        thread::scope(|scope| {
            let (server, swallow) = (&server, &swallow);
            scope.spawn(move || {
                let mut buffer = [0; 8192];
                while let Ok(length @ 1..) = (&mut &*server).read(&mut buffer) {
                    if swallow.load(Ordering::SeqCst) {
                        if heard.send(()).is_err() {
                            break;
                        }
                    } else if (&mut &*client).write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                if !swallow.load(Ordering::SeqCst) {
                    drop(client.shutdown(Shutdown::Both));
                }
            });
            let mut buffer = [0; 8192];
            while let Ok(length @ 1..) = (&mut &*client).read(&mut buffer) {
                let is_cut = buffer[..length] != *TERMINATE && self.is_the_one();
                if is_cut {
                    swallow.store(true, Ordering::SeqCst);
                }
                if (!is_cut || self.reply.load(Ordering::SeqCst))
                    && (&mut &*server).write_all(&buffer[..length]).is_err()
                {
                    break;
                }
                if is_cut {
                    if self.reply.load(Ordering::SeqCst) && replies.recv().is_err() {
                        break;
                    }
                    self.armed.store(false, Ordering::SeqCst);
                    if self.silent.load(Ordering::SeqCst) {
                        // Until it gives up, or is killed.
                        while let Ok(1..) = (&mut &*client).read(&mut buffer) {}
                    }
                    break;
                }
            }
            drop(server.shutdown(Shutdown::Both));
            drop(client.shutdown(Shutdown::Both));
        });
    }

    /// Whether this is the message to cut at. It is one only.
    fn is_the_one(&self) -> bool {
        if !self.armed.load(Ordering::SeqCst) {
            return false;
        }
        let count =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.wrapping_sub(1)));
        count == Ok(0)
    }
}
