//! Waiting for what no event announces.

use std::fmt::Debug;
use std::io;
use std::os::unix::net::UnixDatagram;
use std::time::{Duration, Instant};

/// How long anything is waited for before the test fails.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Looks again and again, after pauses of 2 to 50 ms, until `is_so` of what `look` gives; fails with the last look
/// after [`DEADLINE`].
#[track_caller]
pub(crate) fn until<T: Debug>(what: &str, look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> T {
    reaches(look, is_so)
        .unwrap_or_else(|seen| panic!("waited {DEADLINE:?} for: {what}\nlast seen: {seen:#?}"))
}

/// As [`until`], but gives the last look as an error.
pub(crate) fn reaches<T>(mut look: impl FnMut() -> T, is_so: impl Fn(&T) -> bool) -> Result<T, T> {
    let end = Instant::now() + DEADLINE;
    let mut pause = Duration::from_millis(2);
    loop {
        let seen = look();
        if is_so(&seen) {
            return Ok(seen);
        }
        if Instant::now() >= end {
            return Err(seen);
        }
        wait(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// The next message. A wait that has an end is interrupted when this process was stopped and goes on (`signal(7)`).
pub(crate) fn receive(socket: &UnixDatagram, message: &mut [u8]) -> io::Result<usize> {
    loop {
        match socket.recv(message) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            received => return received,
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "what is waited for here sends no event; the wait is bounded above"
)]
fn wait(pause: Duration) {
    std::thread::sleep(pause);
}
