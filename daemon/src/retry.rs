//! Trying again what can't be done yet: soon at first, then ever more rarely.

use std::time::Duration;

use tokio::sync::{Notify, watch};
use tracing::warn;

use crate::registry::WriteError;

/// The first pause before something is tried again.
const FIRST: Duration = Duration::from_secs(1);

/// How often it is tried to record that something has ended, and the pause before the second time; each is twice the last.
const CLOSINGS: (usize, Duration) = (5, Duration::from_millis(100));

/// Work that did not end: what an earlier process was interrupted at, and what this one could not clear away at once.
#[derive(Debug, Default)]
pub struct Unended(Notify);

impl Unended {
    /// There is something of it.
    pub fn tell(&self) {
        self.0.notify_one();
    }

    /// Tries until nothing of it is left, at first and whenever there is something again. Until the future is dropped.
    pub async fn follow<Attempt: Future<Output = bool>>(
        &self,
        resyncs: &watch::Receiver<Duration>,
        mut is_cleared: impl FnMut() -> Attempt,
    ) {
        loop {
            until_done(resyncs, &mut is_cleared).await;
            self.0.notified().await;
        }
    }
}

/// Tries until it is done. Each pause is twice the last, up to the resync: with an engine that stays away the daemon
/// wakes up no more often than it does anyway.
async fn until_done<Attempt: Future<Output = bool>>(
    resyncs: &watch::Receiver<Duration>,
    mut is_done: impl FnMut() -> Attempt,
) {
    let mut pause = FIRST;
    while !is_done().await {
        tokio::time::sleep(pause).await;
        pause = after(pause, *resyncs.borrow());
    }
}

/// The pause after this one.
fn after(pause: Duration, resync: Duration) -> Duration {
    (pause * 2).min(resync).max(FIRST)
}

/// Records how something ended, and tries more than once: until then it counts as interrupted.
pub async fn record<Attempt: Future<Output = Result<(), WriteError>>>(
    mut attempt: impl FnMut() -> Attempt,
) -> Result<(), WriteError> {
    let (mut left, mut pause) = CLOSINGS;
    loop {
        left -= 1;
        match attempt().await {
            Err(WriteError::Store(why)) if left > 0 => {
                warn!(why = %why, "an end can't be recorded yet");
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            ended => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn what_can_not_be_done_is_tried_ever_more_rarely_and_no_more_often_than_the_resync() {
        let pauses: Vec<u64> =
            std::iter::successors(Some(FIRST), |last| Some(after(*last, Duration::from_mins(5))))
                .map(|pause| pause.as_secs())
                .take(11)
                .collect();
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(after(FIRST, Duration::ZERO), FIRST, "never without a pause");
    }

    #[tokio::test]
    async fn what_did_not_end_is_cleared_at_first_and_whenever_there_is_something_again() {
        let (_resync, resyncs) = watch::channel(Duration::from_mins(5));
        let (unended, cleared) = (Unended::default(), Notify::new());
        let follow = unended.follow(&resyncs, || async {
            cleared.notify_one();
            true
        });
        let tell = async {
            cleared.notified().await;
            unended.tell();
            cleared.notified().await;
        };
        tokio::select! {
            () = follow => unreachable!("it goes on"),
            () = tell => {}
        }
    }

    #[tokio::test]
    async fn what_is_done_is_not_tried_again() {
        let (_resync, resyncs) = watch::channel(Duration::from_mins(5));
        let tries = Cell::new(0);
        until_done(&resyncs, || {
            tries.set(tries.get() + 1);
            async { true }
        })
        .await;
        assert_eq!(tries.get(), 1);
    }
}
