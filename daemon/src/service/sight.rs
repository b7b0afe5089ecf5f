//! Reading what is on the disks of repositories now, for somebody who waits for it. One disk can hang.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};

use crate::domain::identity::RepositoryId;
use crate::permit::Permit;

/// How many repositories are read together.
const AT_ONCE: usize = 4;

/// How long one may take before another is read besides.
const LONG: Duration = Duration::from_millis(100);

/// How many may hang at a time. That leaves threads for everybody else's work.
const HANGING: usize = 24;

/// Reads at repositories: never two of one repository, so that one that hangs costs one thread, however often it is
/// asked for.
#[derive(Debug)]
pub(super) struct Sight {
    lanes: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    turns: Mutex<HashMap<RepositoryId, Weak<tokio::sync::Mutex<()>>>>,
}

impl Default for Sight {
    fn default() -> Self {
        Self {
            lanes: Arc::new(Semaphore::new(AT_ONCE)),
            threads: Arc::new(Semaphore::new(HANGING)),
            turns: Mutex::default(),
        }
    }
}

impl Sight {
    /// What `read` gives for each repository, in the same order, on threads that may block. None where it had not come
    /// to an end at `deadline`, which is unknown and never nothing.
    pub(super) async fn read<T, R>(
        &self,
        repositories: Vec<(RepositoryId, T)>,
        deadline: Instant,
        read: impl Fn(T) -> R + Send + Sync + 'static,
    ) -> Vec<Option<R>>
    where
        T: Send + 'static,
        R: Send + 'static,
    {
        self.turns.lock().retain(|_, turn| turn.strong_count() > 0);
        let read = Arc::new(read);
        let all = repositories.into_iter().map(|(id, what)| {
            let (turn, read) = (self.turn(id), Arc::clone(&read));
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

    fn turn(&self, id: RepositoryId) -> Arc<tokio::sync::Mutex<()>> {
        let mut turns = self.turns.lock();
        let known = turns.get(&id).and_then(Weak::upgrade);
        known.unwrap_or_else(|| {
            let turn = Arc::default();
            turns.insert(id, Arc::downgrade(&turn));
            turn
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn what_hangs_is_unknown_costs_one_thread_and_holds_up_nothing_else() {
        let sight = Sight::default();
        let (hanging, well) = (RepositoryId(Uuid::from_u128(1)), RepositoryId(Uuid::from_u128(2)));
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
