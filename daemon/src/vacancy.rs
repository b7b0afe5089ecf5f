//! Noticing that nobody can find us any more: a socket can be deleted under a daemon, as it is when a login session
//! ends and takes the runtime directory along.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tracing::debug;

use crate::socket::Unlink;

/// Resolves once the socket that this daemon made is gone, or another one is in its place.
///
/// Looked at whenever somebody opens the registry's lock, which is what a daemon does that a client has just started for
/// want of one; and every `resync`, where that can't be heard.
pub async fn vacated(socket: &Unlink, lock: &Path, resync: Duration) {
    let knocked = Arc::new(Notify::new());
    let _listening = listen(lock, &knocked).inspect_err(|error| {
        debug!(error = error as &dyn std::error::Error, "nobody is heard who opens the lock");
    });
    while is_in_place(socket) {
        tokio::select! {
            () = knocked.notified() => {}
            () = tokio::time::sleep(resync) => {}
        }
    }
}

/// What can't be told is no reason to end.
fn is_in_place(socket: &Unlink) -> bool {
    socket.is_in_place().unwrap_or_else(|error| {
        debug!(error = &error as &dyn std::error::Error, "can't see whether the socket is in its place");
        true
    })
}

fn listen(lock: &Path, knocked: &Arc<Notify>) -> notify::Result<RecommendedWatcher> {
    let knocked = Arc::clone(knocked);
    // Whatever happened to it, the socket is looked at.
    let mut watcher = notify::recommended_watcher(move |_| knocked.notify_one())?;
    watcher.watch(lock, RecursiveMode::NonRecursive)?;
    Ok(watcher)
}
