//! Repositories that are dirty, each once, by when they are due.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::registry::WriteError;

/// When a repository that was met in the middle of a change is looked at again.
const AGAIN: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(250),
    Duration::from_secs(1),
    Duration::from_secs(4),
];

/// Somebody who waits for a look.
pub(super) type Waiter = oneshot::Sender<Result<(), WriteError>>;

/// Repositories that are dirty or being looked at.
#[derive(Debug, Default)]
pub(super) struct Queue {
    due: BTreeSet<(Instant, PathBuf)>,
    entries: HashMap<PathBuf, Entry>,
}

#[derive(Debug, Default)]
struct Entry {
    due: Option<Instant>,
    running: bool,
    waiters: Vec<Waiter>,
    root_hint: Option<PathBuf>,
    /// Somebody asks for a repository that may not be known yet.
    learn: bool,
    attempt: usize,
}

/// A repository whose look is due.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) key: PathBuf,
    pub(super) root_hint: Option<PathBuf>,
    pub(super) learn: bool,
    pub(super) waiters: Vec<Waiter>,
}

impl Queue {
    /// Has a repository looked at, at the latest then.
    pub(super) fn mark(&mut self, key: &Path, at: Instant) {
        let entry = self.entries.entry(key.to_owned()).or_default();
        if entry.due.is_some_and(|due| due <= at) {
            return;
        }
        if let Some(later) = entry.due.replace(at) {
            self.due.remove(&(later, key.to_owned()));
        }
        if !entry.running {
            self.due.insert((at, key.to_owned()));
        }
    }

    /// Has `waiter` told of the next look at a repository that is marked.
    pub(super) fn wait(&mut self, key: &Path, main_root: Option<PathBuf>, learn: bool, waiter: Waiter) {
        if let Some(entry) = self.entries.get_mut(key) {
            // Where a look hangs, those who have given up are many in the end.
            entry.waiters.retain(|waiter| !waiter.is_closed());
            entry.waiters.push(waiter);
            entry.root_hint = main_root.or(entry.root_hint.take());
            entry.learn |= learn;
        }
    }

    /// When the next repository is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// Takes the next repository that is due.
    pub(super) fn take(&mut self, now: Instant) -> Option<Due> {
        if self.due.first().is_none_or(|(at, _)| *at > now) {
            return None;
        }
        let (_, key) = self.due.pop_first()?;
        let entry = self.entries.get_mut(&key)?;
        entry.due = None;
        entry.running = true;
        let (root_hint, learn) = (entry.root_hint.take(), std::mem::take(&mut entry.learn));
        let waiters = std::mem::take(&mut entry.waiters);
        Some(Due { key, root_hint, learn, waiters })
    }

    /// The look at a repository has ended; `again` when what it saw is not all, or not recorded.
    pub(super) fn finish(&mut self, key: &Path, again: bool) {
        let Some(entry) = self.entries.get_mut(key) else { return };
        entry.running = false;
        entry.attempt = if again { entry.attempt + 1 } else { 0 };
        let retry =
            AGAIN.get(entry.attempt.wrapping_sub(1)).filter(|_| again).map(|wait| Instant::now() + *wait);
        let due = entry.due.into_iter().chain(retry).min();
        entry.due = due;
        match due {
            Some(at) => drop(self.due.insert((at, key.to_owned()))),
            None => drop(self.entries.remove(key)),
        }
    }
}
