//! What systemd is told: that the daemon is ready, reads its configuration again, ends, and lives (`sd_notify(3)`).

use std::time::Duration;

use sd_notify::NotifyState;
use tracing::warn;

use crate::registry::Writer;

/// Tells the manager that started us; nothing where none did.
pub fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(error = &error as &dyn std::error::Error, "systemd not told");
    }
}

/// Tells that the configuration is being read again. The time lets systemd 253 and newer match this to the signal that
/// asked for it; older ones pass over it.
pub fn notify_reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => warn!(error = &error as &dyn std::error::Error, "systemd not told"),
    }
}

/// How often the manager has to hear from us, if it watches over us (`WatchdogSec=`, systemd.service(5)).
pub fn watchdog_interval() -> Option<Duration> {
    sd_notify::watchdog_enabled()
}

/// Tells that we live, as long as a step gets through the writer. Until the future is dropped.
pub async fn watchdog(writer: Writer, interval: Duration) {
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        if writer.commit(|_, _| Ok((None, ()))).await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}
