//! Waiting with an end: every wait of the client is bounded by one point in time, so that it never hangs a shell.

use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// The point in time at which waiting ends; none for what goes on until interrupted.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Option<Instant>);

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waited {
    /// Something happened on a descriptor.
    Ready,
    /// The time is over.
    TimedOut,
}

impl Deadline {
    /// The end of `duration` from now.
    pub(crate) fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    /// No end.
    pub(crate) const fn never() -> Self {
        Self(None)
    }

    /// The time that is left; none when there is no end.
    pub(crate) fn remaining(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Whether the time is over.
    pub(crate) fn is_over(self) -> bool {
        self.remaining().is_some_and(|left| left.is_zero())
    }

    /// Waits until one of `descriptors` has what is asked of it.
    pub(crate) fn wait(self, descriptors: &mut [PollFd<'_>]) -> Result<Waited, Errno> {
        loop {
            let left = self.remaining();
            let timeout = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            match poll(descriptors, timeout.as_ref()) {
                Ok(0) => return Ok(Waited::TimedOut),
                Ok(_) => return Ok(Waited::Ready),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    /// Waits until `descriptor` can be read.
    pub(crate) fn wait_readable(self, descriptor: BorrowedFd<'_>) -> Result<Waited, Errno> {
        self.wait(&mut [PollFd::from_borrowed_fd(descriptor, PollFlags::IN)])
    }

    /// Lets `duration` pass, or what is left of the time: for a look at what announces nothing, such as a
    /// socket that is about to be bound.
    pub(crate) fn pause(self, duration: Duration) -> Result<(), Errno> {
        let left = self.remaining().unwrap_or(duration);
        Self::after(duration.min(left)).wait(&mut []).map(drop)
    }
}
