//! Who works on what an allocation has on a server: one at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time;

use crate::domain::identity::AllocationId;

/// How long somebody else's look at a server is waited for.
const TO_FINISH: Duration = Duration::from_secs(10);

/// The allocations that are worked for; clones are handles to the same ones.
#[derive(Debug, Clone, Default)]
pub(super) struct Reservations(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    held: Mutex<HashSet<AllocationId>>,
    freed: Notify,
}

/// The right to work on what an allocation has on a server, until it is dropped.
#[derive(Debug)]
pub struct Reservation {
    all: Reservations,
    id: AllocationId,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.all.0.held.lock().remove(&self.id);
        self.all.0.freed.notify_waiters();
    }
}

impl Reservations {
    /// Reserves what an allocation has; none while somebody else works on it.
    pub(super) fn reserve(&self, id: AllocationId) -> Option<Reservation> {
        self.0.held.lock().insert(id).then(|| Reservation { all: self.clone(), id })
    }

    /// As [`Reservations::reserve`], once whoever works on it has finished; none where that takes longer than a look.
    pub(super) async fn reserve_soon(&self, id: AllocationId) -> Option<Reservation> {
        self.reserve_within(id, TO_FINISH).await
    }

    async fn reserve_within(&self, id: AllocationId, patience: Duration) -> Option<Reservation> {
        let turn = async {
            loop {
                // Before the attempt: what is freed after it is not missed.
                let freed = self.0.freed.notified();
                if let Some(reservation) = self.reserve(id) {
                    return reservation;
                }
                freed.await;
            }
        };
        time::timeout(patience, turn).await.ok()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const ONE: AllocationId = AllocationId(Uuid::from_u128(1));
    const OTHER: AllocationId = AllocationId(Uuid::from_u128(2));

    #[test]
    fn an_allocation_is_worked_for_once_at_a_time() {
        let all = Reservations::default();
        let one = all.reserve(ONE).unwrap();
        assert!(all.reserve(ONE).is_none());
        assert!(all.reserve(OTHER).is_some());
        drop(one);
        assert!(all.reserve(ONE).is_some());
    }

    #[tokio::test]
    async fn a_look_that_ends_is_waited_for_and_one_that_does_not_is_given_up() {
        let all = Reservations::default();
        let one = all.reserve(ONE).unwrap();
        let waiting = tokio::spawn({
            let all = all.clone();
            async move { all.reserve_soon(ONE).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        drop(one);
        let one = waiting.await.unwrap();
        assert!(one.is_some());
        assert!(all.reserve_within(ONE, Duration::ZERO).await.is_none());
        assert!(all.reserve_within(OTHER, Duration::ZERO).await.is_some());
    }
}
