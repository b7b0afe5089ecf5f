//! Many clients at once: answers for worktrees that are known, and allocations for those that are not.

use std::path::Path;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::Effort;
use crate::clients::{Clients, Pace};
use crate::daemon::{Daemon, Programs};
use crate::http::{Connection, put_worktree};
use crate::report::{Report, Table};
use crate::repositories::by_hand;
use crate::samples::{Samples, Short};

/// Clients at once, as the promise has it.
const CLIENTS: usize = 16;

/// Requests a second of each client when they are paced: many times what shells and Makefiles ask for.
const PACE: u32 = 200;

pub(crate) fn measure_answers(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let directory = scratch.join("answers");
    let worktrees = by_hand(&directory.join("shop"), 49)?;
    let daemon = Daemon::start(programs, &directory.join("state"), &[])?;
    let mut connection = Connection::open(&daemon.socket)?;
    let requests: Vec<_> = worktrees.iter().map(|path| put_worktree(path)).collect::<Result<_, _>>()?;
    for request in &requests {
        connection.ask(request)?;
    }
    daemon.settle()?;

    let time = Duration::from_secs(effort.choose(6, 2) as u64);
    let fixed = Pace::Fixed(Duration::from_secs(1) / PACE);
    let mut rows = Vec::new();
    let loads = [
        ("one client, as fast as it can", 1, Pace::Closed),
        ("16 clients, as fast as they can", CLIENTS, Pace::Closed),
        ("16 clients, 200 requests/s each", CLIENTS, fixed),
    ];
    for (name, clients, pace) in loads {
        // The first moments warm up.
        Clients { requests: &requests, count: clients, pace, time: time / 10 }.run(&daemon.socket)?;
        let (before, begin) = (daemon.usage()?, Instant::now());
        let mut samples = Clients { requests: &requests, count: clients, pace, time }.run(&daemon.socket)?;
        let rate = samples.len() as f64 / begin.elapsed().as_secs_f64();
        let each = daemon.usage()?.cpu.saturating_sub(before.cpu) / u32::try_from(samples.len())?;
        if clients == CLIENTS {
            let what = format!("answer for a known worktree, {name}");
            report.within(&format!("{what}: p50"), samples.median(), Duration::from_micros(100));
            report.within(&format!("{what}: p99"), samples.percentile(99), Duration::from_millis(1));
        }
        rows.push(vec![
            name.to_owned(),
            format!("{rate:.0}/s"),
            Short(samples.median()).to_string(),
            Short(samples.percentile(99)).to_string(),
            Short(samples.percentile(100)).to_string(),
            Short(each).to_string(),
        ]);
    }
    daemon.stop()?;
    report.remark(
        "Clients that ask again at once share what the cores can do: with 16 of them p50 is 16 over the answers a second, so \
         100 µs would take 160,000 answers a second, from cores that the clients use as well. What one answer takes is the \
         row with one client.",
    );
    report.table(Table {
        title: "Answers for known worktrees; the clients run on the same cores as the daemon".to_owned(),
        header: ["load", "answers", "p50", "p99", "longest", "daemon's CPU time for each"]
            .map(str::to_owned)
            .to_vec(),
        rows,
    });
    Ok(())
}

/// The samples of all clients.
fn joined(clients: Vec<thread::ScopedJoinHandle<'_, anyhow::Result<Samples>>>) -> anyhow::Result<Samples> {
    let mut all = Samples::default();
    for client in clients {
        all.extend(client.join().ok().context("a client panicked")??);
    }
    Ok(all)
}

pub(crate) fn measure_allocations(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    // With base port 5432 there is room for 6,010 offsets.
    let count = effort.choose(5_000, 2_000);
    let directory = scratch.join("allocations");
    let mut requests = Vec::with_capacity(count);
    for number in 0..count {
        let repository = directory.join(format!("r{number}"));
        by_hand(&repository, 0)?;
        requests.push(put_worktree(&repository)?);
    }
    let daemon = Daemon::start(programs, &directory.join("state"), &[])?;
    let start = Barrier::new(CLIENTS + 1);
    let (mut samples, took) = thread::scope(|scope| -> anyhow::Result<_> {
        let clients = requests
            .chunks(count.div_ceil(CLIENTS))
            .map(|requests| {
                let start = &start;
                let daemon = &daemon;
                scope.spawn(move || -> anyhow::Result<Samples> {
                    let connection = Connection::open(&daemon.socket);
                    start.wait();
                    let mut connection = connection?;
                    let mut samples = Samples::default();
                    for request in requests {
                        let sent = Instant::now();
                        connection.ask(request)?;
                        samples.push(sent.elapsed());
                    }
                    Ok(samples)
                })
            })
            .collect();
        start.wait();
        let begin = Instant::now();
        Ok((joined(clients)?, begin.elapsed()))
    })?;
    report.at_least(
        &format!("new allocations, durable, 16 clients, {count} repositories"),
        samples.len() as f64 / took.as_secs_f64(),
        1_000.0,
        "/s",
    );
    report.remark(&format!(
        "A new allocation took p50 {}, p99 {} with 16 clients.",
        Short(samples.median()),
        Short(samples.percentile(99))
    ));
    daemon.stop()
}
