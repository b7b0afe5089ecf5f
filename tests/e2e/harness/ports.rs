//! Ports of the machine, which all tests share.

use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

/// Whether nothing has the port.
pub(crate) fn free_port(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok()
}

/// A base port that no other test of this run gets, and at which the first three offsets are free.
pub(crate) fn free_base() -> u16 {
    // Below the range from which the kernel gives outgoing connections their ports, even with 20000 added.
    static NEXT: AtomicU16 = AtomicU16::new(11_021);
    loop {
        // The step has a place for each of 17 runs at a time.
        let place = u16::try_from(std::process::id() % 17).unwrap();
        let base = NEXT.fetch_add(17, Ordering::Relaxed) + place;
        assert!(base < 12_700, "no base port is free");
        if [0, 10_000, 20_000].iter().all(|offset| free_port(base + offset)) {
            return base;
        }
    }
}

/// A process that listens on a port and works in a directory.
pub(crate) struct Holder(Child);

impl Holder {
    pub(crate) fn new(port: u16, directory: &Path) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let command = Command::new("sleep")
            .arg("600")
            .current_dir(directory)
            .stdin(Stdio::from(OwnedFd::from(listener)))
            .spawn();
        Self(command.unwrap())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}
