//! How soon the registry knows what git did, with nobody asking.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;
use wtd_protocol::routes;

use crate::Effort;
use crate::daemon::{Daemon, Programs};
use crate::http::{ask_once, get, put_repository};
use crate::report::Report;
use crate::repositories::{git, with_git};
use crate::samples::{Samples, Short};

/// What is promised, on an idle machine.
const BAR: Duration = Duration::from_millis(50);

/// No event takes longer to come, unless something is broken.
const PATIENCE: Duration = Duration::from_secs(10);

/// A change of an allocation, and when it was heard of.
pub(crate) struct Heard {
    at: Instant,
    kind: String,
    path: String,
}

/// Follows the daemon's events, each with the time at which it came. Ends with the daemon.
pub(crate) fn follow(daemon: &Daemon) -> anyhow::Result<Receiver<Heard>> {
    let mut stream = UnixStream::connect(&daemon.socket)?;
    stream.write_all(&get(routes::EVENTS))?;
    let mut lines = BufReader::new(stream);
    // The daemon has subscribed us when it sends the head of its answer.
    let mut head = String::new();
    while lines.read_line(&mut head)? > 2 {
        ensure!(head.starts_with("HTTP/1.1 200"), "no events: {head}");
    }
    let (sender, receiver) = sync_channel(10_000);
    thread::spawn(move || {
        for line in lines.lines().map_while(Result::ok) {
            let at = Instant::now();
            let Some(data) = line.strip_prefix("data: ") else { continue };
            let Ok(change) = serde_json::from_str::<Value>(data) else { continue };
            let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
            let path = change.get("allocation").and_then(|allocation| allocation.get("path"));
            if sender.send(Heard { at, kind: text(change.get("kind")), path: text(path) }).is_err() {
                return;
            }
        }
    });
    Ok(receiver)
}

/// Waits for the event of this kind about `path`; gives how long after `since` it was heard of.
pub(crate) fn hear(
    events: &Receiver<Heard>,
    kind: &str,
    path: &Path,
    since: Instant,
) -> anyhow::Result<Duration> {
    let end = Instant::now() + PATIENCE;
    loop {
        let left = end.saturating_duration_since(Instant::now());
        let heard = events.recv_timeout(left).with_context(|| format!("{}: not {kind}", path.display()))?;
        if heard.kind == kind && Path::new(&heard.path) == path {
            return Ok(heard.at.saturating_duration_since(since));
        }
    }
}

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let directory = scratch.join("watching");
    let repository = directory.join("shop");
    with_git(&repository)?;
    let daemon = Daemon::start(programs, &directory.join("state"), &[])?;
    ask_once(&daemon.socket, &put_repository(&repository)?)?;
    daemon.settle()?;
    let events = follow(&daemon)?;

    let count = effort.choose(200, 50);
    let (mut adds, mut removes) = (Samples::default(), Samples::default());
    for number in 0..count {
        let worktree = directory.join(format!("w{number}"));
        let mut add = git(&repository);
        add.args(["worktree", "add", "--quiet", "--detach"]).arg(&worktree);
        ensure!(add.status()?.success(), "git worktree add fails");
        adds.push(hear(&events, "allocated", &worktree, Instant::now())?);
    }
    for number in 0..count {
        let worktree = directory.join(format!("w{number}"));
        let mut remove = git(&repository);
        remove.args(["worktree", "remove"]).arg(&worktree);
        ensure!(remove.status()?.success(), "git worktree remove fails");
        removes.push(hear(&events, "stale", &worktree, Instant::now())?);
    }
    daemon.stop()?;
    report.within(
        &format!("in the registry after `git worktree add` exits, {count} times: p99"),
        adds.percentile(99),
        BAR,
    );
    report.within(
        &format!("in the registry after `git worktree remove` exits, {count} times: p99"),
        removes.percentile(99),
        BAR,
    );
    report.remark(&format!(
        "After `git worktree add` p50 {}, longest {}; after `git worktree remove` p50 {}, longest {}. Zero: the daemon was done before git was.",
        Short(adds.median()),
        Short(adds.percentile(100)),
        Short(removes.median()),
        Short(removes.percentile(100)),
    ));
    Ok(())
}
