//! Reading what is on disks now, for somebody who waits for it. One disk can hang.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::permit::Permit;

/// How many are read together.
const AT_ONCE: usize = 4;

/// How long one may take before another is read besides.
const LONG: Duration = Duration::from_millis(100);

/// How many may hang at a time. That leaves threads for everybody else's work.
const HANGING: usize = 24;

/// Reads at places, such as repositories: never two at one place, so that one that hangs costs one thread, however often
/// it is asked for.
#[derive(Debug)]
pub(super) struct Sight<Place> {
    lanes: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    turns: Mutex<HashMap<Place, Weak<tokio::sync::Mutex<()>>>>,
}

impl<Place> Default for Sight<Place> {
    fn default() -> Self {
        Self {
            lanes: Arc::new(Semaphore::new(AT_ONCE)),
            threads: Arc::new(Semaphore::new(HANGING)),
            turns: Mutex::default(),
        }
    }
}

impl<Place: Eq + Hash> Sight<Place> {
    /// What `read` gives for each place, in the same order, on threads that may block. None where it had not come
    /// to an end at `deadline`, which is unknown and never nothing.
    pub(super) async fn read<T, R>(
        &self,
        places: Vec<(Place, T)>,
        deadline: Instant,
        read: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Vec<Option<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        self.turns.lock().retain(|_, turn| turn.strong_count() > 0);
        let read = Arc::new(read);
        let all = places.into_iter().map(|(place, what)| {
            let (turn, read) = (self.turn(place), Arc::clone(&read));
            async move { timeout_at(deadline, self.read_one(turn, move || read(what))).await.ok()? }
        });
        join_all(all).await
    }

    async fn read_one<R: Send + 'static>(
        &self,
        turn: Arc<tokio::sync::Mutex<()>>,
        read: impl FnOnce() -> R + Send + 'static,
    ) -> Option<R> {
        let turn = turn.lock_owned().await;
        let thread = Arc::clone(&self.threads).acquire_owned().await.ok()?;
        let lane = Permit::new(Arc::clone(&self.lanes).acquire_owned().await.ok()?);
        let look = tokio::task::spawn_blocking(move || {
            let _until_it_ends = (turn, thread);
            read()
        });
        lane.lend(LONG, look).await.ok()
    }

    fn turn(&self, place: Place) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        let known = turns.get(&place).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(place, Arc::downgrade(&turn));
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_unknown_costs_one_thread_and_holds_up_nothing_else() {
        let sight = Sight::default();
        let (hanging, well) = ("hanging", "well");
        let (end, ended) = mpsc::channel::<()>();
        let (begun, begins) = mpsc::channel();
        let shared = Arc::new(Mutex::new((ended, begun)));
        for _ in 0..3 {
            let shared = Arc::clone(&shared);
            let read = move |hangs: bool| {
                if hangs {
                    let channels = shared.lock();
                    channels.1.send(()).unwrap();
                    assert!(channels.0.recv().is_err(), "until the test is over");
                }
                hangs
            };
            let deadline = Instant::now() + Duration::from_millis(20);
            // The one that is well may be late on a busy machine: it is asked for again, without the other.
            let both = sight.read(vec![(hanging, true), (well, false)], deadline, read.clone()).await;
            assert_eq!(both[0], None);
            let later = Instant::now() + Duration::from_mins(10);
            assert_eq!(sight.read(vec![(well, false)], later, read).await, [Some(false)]);
        }
        assert_eq!(begins.try_iter().count(), 1);
        drop(end);
        let later = Instant::now() + Duration::from_mins(10);
        assert_eq!(sight.read(vec![(hanging, false)], later, |it| it).await, [Some(false)]);
    }
}
