//! Looking for changes that no event told of.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;

use super::each::each;
use super::{Reconciler, watched_common_dirs};
use crate::watch::{Listener as _, Watches};

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
                    self.renew_watches().await;
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

    pub(super) async fn renew_watches(&self) {
        let this = self.clone();
        let renew = move || {
            for key in this.watches().map(Watches::renew).unwrap_or_default() {
                this.0.dirty(&key);
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(renew).await {
            warn!(error = &error as &dyn std::error::Error, "watches not renewed");
        }
    }

    /// Marks those of the repositories that are not as they were when last looked at. Opens no file: a look at
    /// thousands of worktrees would overflow the event queue by itself.
    pub async fn mark_changed(&self, common_dirs: Vec<PathBuf>) {
        let this = self.clone();
        let compare = move |common_dir: PathBuf| {
            // One that hangs since an earlier sweep would take another thread each time.
            let Some(_comparing) = Comparing::begin(&this.0.comparing, &common_dir) else { return };
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

/// A repository that is being compared, noted as such until that ends.
struct Comparing<'a> {
    all: &'a Mutex<HashSet<PathBuf>>,
    common_dir: &'a Path,
}

impl<'a> Comparing<'a> {
    /// None while somebody else compares it.
    fn begin(all: &'a Mutex<HashSet<PathBuf>>, common_dir: &'a Path) -> Option<Self> {
        all.lock().insert(common_dir.to_owned()).then_some(Self { all, common_dir })
    }
}

impl Drop for Comparing<'_> {
    fn drop(&mut self) {
        self.all.lock().remove(self.common_dir);
    }
}
