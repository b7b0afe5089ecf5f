//! A proxy between wtd and a container engine, at which one chosen request goes wrong. wtd opens a connection for each
//! request, so a request is a connection here.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use tempfile::TempDir;

use rustix::process::{Pid, Signal, kill_process};

use super::until;
use super::wait::reaches;

/// What goes wrong with the chosen request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The engine never gets it.
    CutBefore,
    /// The engine does it, and nobody hears of it.
    CutAfter,
    /// The engine never gets it, nor any after it.
    DownBefore,
    /// The engine does it, and is gone before it says so.
    DownAfter,
    /// The process to be killed is killed before the engine gets it.
    KillBefore,
    /// The process to be killed is killed when the engine has done it.
    KillAfter,
    /// Nobody answers, and the connection stays open.
    Stall,
    /// The engine gets it when [`EngineProxy::let_pass`] is called, whether or not its sender still waits.
    Hold,
}

/// A proxy that passes everything on until it is armed.
pub(crate) struct EngineProxy {
    /// Where its socket is.
    directory: TempDir,
    state: Arc<State>,
}

struct State {
    engine: PathBuf,
    armed: Mutex<Option<Fault>>,
    /// Requests that are passed on before the fault.
    left: AtomicUsize,
    /// Only requests whose first line has this are counted.
    only: Mutex<String>,
    victim: AtomicI32,
    down: AtomicBool,
    held: AtomicBool,
    stopped: AtomicBool,
    /// Connections that stand now.
    open: AtomicUsize,
}

fn socket_in(directory: &TempDir) -> PathBuf {
    directory.path().join("proxy.sock")
}

impl EngineProxy {
    /// Listens in front of the engine whose socket is `engine`.
    pub(crate) fn start(engine: &Path) -> Self {
        let directory = TempDir::new_in("/tmp").unwrap();
        let listener = UnixListener::bind(socket_in(&directory)).unwrap();
        let state = Arc::new(State {
            engine: engine.to_owned(),
            armed: Mutex::new(None),
            left: AtomicUsize::new(0),
            only: Mutex::new(String::new()),
            victim: AtomicI32::new(0),
            down: AtomicBool::new(false),
            held: AtomicBool::new(false),
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
        Self { directory, state }
    }

    /// Its address, as `DOCKER_HOST` has it.
    pub(crate) fn host(&self) -> String {
        format!("unix://{}", socket_in(&self.directory).display())
    }

    /// Has the fault happen to the request after the next `passed` ones.
    pub(crate) fn arm(&self, fault: Fault, passed: usize, victim: u32) {
        self.arm_at(fault, "", passed, victim);
    }

    /// As [`EngineProxy::arm`], counting only requests whose first line has `only`, such as `DELETE`.
    pub(crate) fn arm_at(&self, fault: Fault, only: &str, passed: usize, victim: u32) {
        only.clone_into(&mut self.state.only.lock().unwrap());
        self.state.victim.store(victim.try_into().unwrap(), Ordering::SeqCst);
        self.state.left.store(passed, Ordering::SeqCst);
        *self.state.armed.lock().unwrap() = Some(fault);
    }

    /// Says whom to kill, once that is known.
    pub(crate) fn aim(&self, victim: u32) {
        self.state.victim.store(victim.try_into().unwrap(), Ordering::SeqCst);
    }

    /// Waits until the chosen request is held.
    #[track_caller]
    pub(crate) fn await_held(&self) {
        until("a request is held", || self.state.held.load(Ordering::SeqCst), |is_held| *is_held);
    }

    /// Passes on the request that is held.
    pub(crate) fn let_pass(&self) {
        self.state.held.store(false, Ordering::SeqCst);
    }

    /// How many connections stand now.
    pub(crate) fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }

    /// Whether the fault has happened.
    pub(crate) fn has_happened(&self) -> bool {
        self.state.armed.lock().unwrap().is_none()
    }

    /// Passes everything on again; true when the fault has happened.
    pub(crate) fn disarm(&self) -> bool {
        let mut armed = self.state.armed.lock().unwrap();
        self.state.down.store(false, Ordering::SeqCst);
        armed.take().is_none()
    }
}

impl Drop for EngineProxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        drop(UnixStream::connect(socket_in(&self.directory)));
    }
}

/// Whether the first line of a request has this in it.
fn has(head: &[u8], text: &str) -> bool {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).contains(text)
}

impl State {
    /// The fault of this request, if it is the one.
    fn fault(&self, head: &[u8]) -> Option<Fault> {
        let mut armed = self.armed.lock().unwrap();
        if armed.is_none() || !has(head, &self.only.lock().unwrap()) {
            return None;
        }
        if self.left.load(Ordering::SeqCst) > 0 {
            self.left.fetch_sub(1, Ordering::SeqCst);
            return None;
        }
        let fault = armed.take();
        if matches!(fault, Some(Fault::DownBefore | Fault::DownAfter)) {
            // Under the lock: whoever disarms comes after.
            self.down.store(true, Ordering::SeqCst);
        }
        fault
    }

    fn kill(&self) {
        if let Some(pid) = Pid::from_raw(self.victim.load(Ordering::SeqCst)) {
            // It may have ended by itself.
            kill_process(pid, Signal::KILL).ok();
        }
    }

    /// One connection, to its end.
    fn pass(&self, client: &UnixStream) {
        let mut buffer = [0; 16_384];
        let Ok(length @ 1..) = (&mut &*client).read(&mut buffer) else { return };
        let fault = self.fault(&buffer[..length]);
        let is_last = matches!(fault, Some(Fault::DownBefore | Fault::DownAfter));
        if !is_last && self.down.load(Ordering::SeqCst) {
            return;
        }
        if fault == Some(Fault::Hold) {
            self.held.store(true, Ordering::SeqCst);
            let is_held = || self.held.load(Ordering::SeqCst) && !self.stopped.load(Ordering::SeqCst);
            // As long as the test goes on.
            while reaches(is_held, |is_held| !is_held).is_err() {}
        }
        match fault {
            Some(Fault::CutBefore | Fault::DownBefore) => return,
            Some(Fault::KillBefore) => return self.kill(),
            Some(Fault::Stall) => {
                // Until whoever asked gives up.
                while let Ok(1..) = (&mut &*client).read(&mut buffer) {}
                return;
            }
            _ => {}
        }
        let Ok(server) = UnixStream::connect(&self.engine) else { return };
        if (&mut &server).write_all(&buffer[..length]).is_err() {
            return;
        }
        thread::scope(|scope| {
            let server = &server;
            scope.spawn(move || {
                let mut buffer = [0; 16_384];
                while let Ok(length @ 1..) = (&mut &*client).read(&mut buffer) {
                    if (&mut &*server).write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
                drop(server.shutdown(Shutdown::Both));
            });
            while let Ok(length @ 1..) = (&mut &*server).read(&mut buffer) {
                // The engine answers when it has done what was asked.
                match fault {
                    Some(Fault::CutAfter | Fault::DownAfter) => break,
                    Some(Fault::KillAfter) => {
                        self.kill();
                        break;
                    }
                    _ => {}
                }
                if (&mut &*client).write_all(&buffer[..length]).is_err() {
                    break;
                }
            }
            drop(client.shutdown(Shutdown::Both));
            drop(server.shutdown(Shutdown::Both));
        });
    }
}
