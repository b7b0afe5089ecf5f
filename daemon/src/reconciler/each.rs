//! Blocking work on many things, of which one may hang.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// Calls `work` for each of `items`, one after the other, where it may block. Where that hangs, on a disk say, for
/// `patience`, the thread is left to it, and the rest is done on another.
pub(super) async fn each<T: Send + 'static>(
    items: Vec<T>,
    patience: Duration,
    work: impl Fn(T) + Send + Sync + 'static,
) {
    let (queue, work) = (Arc::new(Mutex::new(items.into_iter())), Arc::new(work));
    let mut working = begin(&queue, &work);
    loop {
        let left = queue.lock().len();
        match timeout(patience, &mut working).await {
            Ok(Ok(())) => return,
            Ok(Err(panicked)) => {
                warn!(error = &panicked as &dyn std::error::Error, "one of many is left out");
                working = begin(&queue, &work);
            }
            Err(_) if queue.lock().len() < left => {}
            Err(_) => {
                warn!("something hangs, others go on without it");
                working = begin(&queue, &work);
            }
        }
    }
}

fn begin<T: Send + 'static>(
    queue: &Arc<Mutex<std::vec::IntoIter<T>>>,
    work: &Arc<impl Fn(T) + Send + Sync + 'static>,
) -> JoinHandle<()> {
    let (queue, work) = (Arc::clone(queue), Arc::clone(work));
    tokio::task::spawn_blocking(move || {
        loop {
            // The lock is not held during the work.
            let next = queue.lock().next();
            match next {
                Some(item) => work(item),
                None => return,
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn what_hangs_or_panics_holds_up_nothing_else() {
        let (seen, all) = mpsc::channel();
        let (end, ended) = mpsc::channel::<()>();
        let (seen, ended) = (Mutex::new(seen), Mutex::new(ended));
        each(vec![1, 2, 3, 4], Duration::from_millis(1), move |item| match item {
            // Until the test is over.
            2 => drop(ended.lock().recv()),
            3 => panic!("a defect"),
            _ => seen.lock().send(item).unwrap(),
        })
        .await;
        assert_eq!(all.try_iter().collect::<Vec<_>>(), [1, 4]);
        drop(end);
    }
}
