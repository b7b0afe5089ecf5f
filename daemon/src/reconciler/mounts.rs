//! What follows when a file system is mounted or unmounted.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, warn};

use super::Reconciler;
use crate::watch::mounts::Mounts;

/// How long watches stand at least before they are all set anew, where the kernel can't tell whether they need to be:
/// each container that starts mounts something.
const RESPITE: Duration = Duration::from_secs(10);

impl Reconciler {
    /// Sets watches anew where something else is mounted than before, and looks for what has changed there: whenever
    /// the kernel tells of a mount, and every `resync`. Where it can't be asked, all watches are set anew then. Until
    /// the future is dropped.
    pub async fn follow_mounts(&self, mut resync: watch::Receiver<Duration>) {
        let mut mounts = Mounts::listen()
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                warn!(error, "can't follow what is mounted, will set all watches anew at each resync");
            })
            .ok();
        loop {
            let interval = *resync.borrow_and_update();
            tokio::select! {
                Ok(()) = told(mounts.as_ref()) => {}
                Ok(()) = resync.changed() => continue,
                () = tokio::time::sleep(interval) => {}
            }
            let Some(before) = mounts.take() else {
                self.renew_watches(Path::new("/")).await;
                continue;
            };
            mounts = self.renew_where_mounts_differ(before).await;
            if mounts.as_ref().is_some_and(|mounts| !mounts.tells_apart()) {
                // What is told meanwhile is not forgotten.
                tokio::time::sleep(RESPITE).await;
            }
        }
    }

    /// Gives the mounts back, unless they can't be read any more.
    async fn renew_where_mounts_differ(&self, mut mounts: Mounts) -> Option<Mounts> {
        let this = self.clone();
        let compare = move || {
            let of_interest = |point: &Path| this.watches().is_some_and(|watches| watches.any_below(point));
            let points = mounts.differing(of_interest)?;
            Ok::<_, io::Error>((mounts, points))
        };
        let compared =
            tokio::task::spawn_blocking(compare).await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let (mounts, points) = compared
            .inspect_err(|error| {
                let error = error as &dyn std::error::Error;
                warn!(error, "can't read what is mounted, will set all watches anew at each resync");
            })
            .ok()?;
        debug!(?points, "something else is mounted");
        let mut keys = BTreeSet::new();
        for point in &points {
            keys.extend(self.watches().map(|watches| watches.keys_below(point)).unwrap_or_default());
            self.renew_watches(point).await;
        }
        let is_root = |key: &Path| self.0.roots.lock().as_ref().is_some_and(|roots| roots.changed(key));
        let common_dirs: Vec<PathBuf> =
            keys.iter().filter(|key| !is_root(key)).map(|key| key.to_path_buf()).collect();
        self.mark_changed(common_dirs).await;
        Some(mounts)
    }
}

async fn told(mounts: Option<&Mounts>) -> io::Result<()> {
    match mounts {
        Some(mounts) => mounts.changed().await,
        None => std::future::pending().await,
    }
}
