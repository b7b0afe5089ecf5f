//! Looking for changes that no event told of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::each::each;
use super::{Reconciler, watched_common_dirs};
use crate::watch::Listener as _;

/// How long one repository may keep the others waiting.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often a repository is looked at that can't be watched.
const POLL: Duration = Duration::from_secs(2);

impl Reconciler {
    /// Looks for changes that no event told of: at all repositories every `resync` and after an overflow, at those
    /// that can't be watched every two seconds. Until the future is dropped.
    pub async fn sweep(&self, mut resync: watch::Receiver<Duration>) {
        let mut last_resync = Instant::now();
        loop {
            let next_resync = last_resync + *resync.borrow_and_update();
            let polling = !self.0.polled.lock().is_empty();
            let wake_at = if polling { next_resync.min(Instant::now() + POLL) } else { next_resync };
            let everywhere = tokio::select! {
                () = self.0.overflowed.notified() => true,
                Ok(()) = resync.changed() => continue,
                () = tokio::time::sleep_until(wake_at) => Instant::now() >= next_resync,
            };
            if everywhere {
                last_resync = Instant::now();
                if self.0.lost_events.swap(false, Ordering::AcqRel) {
                    self.renew_watches(Path::new("/")).await;
                }
                // A root may have come into being, or be one that can't be watched.
                if let Some(roots) = &*self.0.roots.lock() {
                    roots.all_changed();
                }
                for key in self.polled() {
                    self.mark(&key);
                }
                let all: Vec<PathBuf> = watched_common_dirs(&self.0.writer.glance());
                self.mark_changed(all).await;
                let ledger = self.0.writer.snapshot().ledger.clone();
                self.0.files.lock().retain(|id, _| ledger.allocation(*id).is_some());
                self.notice_stale();
            } else {
                self.mark_changed(self.polled().into_iter().collect()).await;
            }
        }
    }

    /// Sets the watches at a directory and below it anew, and has looked at whose are not there any more.
    pub(super) async fn renew_watches(&self, below: &Path) {
        let Some(watches) = self.watches() else { return };
        let this = self.clone();
        let renew = move |(key, directories): (Arc<Path>, Vec<PathBuf>)| {
            // What hangs since an earlier time is seen to once it doesn't any more.
            let Some(_renewing) = Underway::begin(&this.0.renewing, &key) else { return };
            for key in this.watches().map(|watches| watches.renew(&directories)).unwrap_or_default() {
                this.0.dirty(&key);
            }
        };
        each(watches.directories_below(below).into_iter().collect(), PATIENCE, renew).await;
    }

    /// Marks those of the repositories that are not as they were when last looked at. Opens no file: a look at
    /// thousands of worktrees would overflow the event queue by itself.
    pub async fn mark_changed(&self, common_dirs: Vec<PathBuf>) {
        let this = self.clone();
        let compare = move |common_dir: PathBuf| {
            // One that hangs since an earlier sweep would take another thread each time.
            let Some(_comparing) = Underway::begin(&this.0.comparing, &common_dir) else { return };
            let before = this.0.looks.lock().get(&common_dir).map(|last| last.fingerprint.clone());
            if before.is_none_or(|before| before.racy || before.again() != before)
                || this.env_files_differ(&common_dir)
            {
                this.mark(&common_dir);
            }
        };
        each(common_dirs, PATIENCE, compare).await;
    }

    /// Whether a file that is kept for a worktree of the repository was deleted or changed.
    fn env_files_differ(&self, common_dir: &Path) -> bool {
        !self.0.env_files.is_empty()
            && self
                .0
                .writer
                .glance()
                .ledger
                .at_common_dir(common_dir)
                .is_some_and(|known| self.0.env_files.differ(known.id))
    }
}

/// A repository or root that something is done to, noted as such until that ends.
struct Underway<'a> {
    all: &'a Mutex<HashSet<PathBuf>>,
    key: &'a Path,
}

impl<'a> Underway<'a> {
    /// None while somebody else does it.
    fn begin(all: &'a Mutex<HashSet<PathBuf>>, key: &'a Path) -> Option<Self> {
        all.lock().insert(key.to_owned()).then_some(Self { all, key })
    }
}

impl Drop for Underway<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(self.key);
    }
}
