//! Trying again what can't be done yet: soon at first, then ever more rarely.

use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::registry::WriteError;

/// The first pause before something is tried again.
const FIRST: Duration = Duration::from_secs(1);

/// How often it is tried to record that something has ended, and the pause before the second time; each is twice the last.
const CLOSINGS: (usize, Duration) = (5, Duration::from_millis(100));

/// Tries until it is done. Each pause is twice the last, up to the resync: with an engine that stays away the daemon
/// wakes up no more often than it does anyway.
pub async fn until_done<Attempt: Future<Output = bool>>(
    resyncs: &watch::Receiver<Duration>,
    mut is_done: impl FnMut() -> Attempt,
) {
    let mut pause = FIRST;
    while !is_done().await {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(*resyncs.borrow()).max(FIRST);
    }
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
