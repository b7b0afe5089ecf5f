//! Leave to look at a repository, which those that take too long lose.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;
use tracing::warn;

/// Leave to look; clones are the same one.
#[derive(Debug, Clone)]
pub(crate) struct Permit(Arc<Mutex<Option<OwnedSemaphorePermit>>>);

impl Permit {
    pub(crate) fn new(permit: OwnedSemaphorePermit) -> Self {
        Self(Arc::new(Mutex::new(Some(permit))))
    }

    /// Lets another one look, whether or not this look has ended.
    pub(crate) fn give_back(&self) {
        drop(self.0.lock().take());
    }

    /// Waits for a look, and gives the permit back when it takes `long`: a disk that hangs holds up nobody else.
    pub(crate) async fn lend<T>(self, long: Duration, look: impl Future<Output = T>) -> T {
        let mut look = pin!(look);
        if let Ok(ended) = tokio::time::timeout(long, &mut look).await {
            return ended;
        }
        warn!("a look takes longer than {long:?}, others go on without it");
        self.give_back();
        look.await
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::{Semaphore, oneshot};

    use super::*;

    #[tokio::test]
    async fn a_look_that_hangs_holds_up_no_other() {
        let permits = Arc::new(Semaphore::new(1));
        let permit = Permit::new(Arc::clone(&permits).acquire_owned().await.unwrap());
        let (end, ended) = oneshot::channel();
        let hanging = tokio::spawn(permit.lend(Duration::from_millis(1), ended));
        let _another = permits.acquire().await.unwrap();
        assert!(!hanging.is_finished());
        end.send("what it saw").unwrap();
        assert_eq!(hanging.await.unwrap(), Ok("what it saw"));
    }
}
