//! `status`: how the daemon fares, on one screen.

use wtd_protocol::{Health, routes};

use crate::cli::JsonArgs;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::output::{self, Printable};

/// Prints the daemon's health. It starts none: a question about the daemon must not change the answer.
pub(crate) fn run(daemon: Daemon, args: &JsonArgs) -> Result<(), Error> {
    let daemon = daemon.without_start();
    if args.json {
        return output::json(&daemon.get::<serde_json::Value>(routes::HEALTH)?);
    }
    output::styled(&text(&daemon.health()?))
}

fn text(health: &Health) -> String {
    let lines = [
        ("status", health.status.clone()),
        ("daemon", format!("wtd {}, pid {}, up {}", health.version, health.pid, span(health.uptime_seconds))),
        ("socket", format!("{} (from {})", health.socket, health.socket_from)),
        ("registry", health.registry.clone()),
        ("repositories", health.repositories.to_string()),
        (
            "allocations",
            format!("{} active, {} missing, {} stale", health.active, health.missing, health.stale),
        ),
        ("engine", health.engine.clone()),
    ];
    let degraded = health.degraded.iter().map(|reason| ("degraded", reason.clone()));
    let lines = lines.into_iter().chain(degraded);
    output::lines(lines.map(|(name, value)| format!("{name:<13} {}", Printable(&value))))
}

/// A span of time in its two largest units.
fn span(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, ..) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_two_units() {
        assert_eq!([59, 61, 3_660, 90_000].map(span), ["59 s", "1 min 1 s", "1 h 1 min", "1 d 1 h"]);
    }
}
