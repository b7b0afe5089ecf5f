//! Many clients at once: answers for worktrees that are known, and allocations for those that are not.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::task::JoinSet;

use crate::Effort;
use crate::daemon::{Daemon, Programs};
use crate::http::{Connection, parse_head, put_worktree};
use crate::report::{Report, Table};
use crate::repositories::by_hand;
use crate::samples::{Samples, Short};

/// Clients at once, as the promise has it.
const CLIENTS: usize = 16;

/// Requests a second of each client when they are paced: many times what shells and Makefiles ask for.
const PACE: u32 = 200;

/// When the next request is sent.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// As soon as the answer is there: this is the load that the daemon can just bear.
    Closed,
    /// At fixed times. An answer that comes after the next request was due makes that one late by as much, so that a
    /// stall is not hidden by the requests that it held up.
    Fixed(Duration),
}

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
    for worktree in &worktrees {
        connection.ask(&put_worktree(worktree)?)?;
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
        load(&daemon, &worktrees, clients, pace, time / 10)?;
        let begin = Instant::now();
        let mut samples = load(&daemon, &worktrees, clients, pace, time)?;
        let rate = samples.len() as f64 / begin.elapsed().as_secs_f64();
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
        header: ["load", "answers", "p50", "p99", "longest"].map(str::to_owned).to_vec(),
        rows,
    });
    Ok(())
}

/// What answers took under load. All clients are one thread: as many threads would take more of the processor than the
/// daemon does.
fn load(
    daemon: &Daemon,
    worktrees: &[PathBuf],
    clients: usize,
    pace: Pace,
    time: Duration,
) -> anyhow::Result<Samples> {
    let requests: Vec<_> = worktrees.iter().map(|path| put_worktree(path)).collect::<Result<_, _>>()?;
    let requests: Arc<[Vec<u8>]> = requests.into();
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let mut tasks = JoinSet::new();
        for number in 0..clients {
            let stream = UnixStream::connect(&daemon.socket).await?;
            let client = Client { stream, requests: Arc::clone(&requests), first: number * 3, pace, time };
            // Paced ones do not begin all at once.
            let delay = match pace {
                Pace::Closed => Duration::ZERO,
                Pace::Fixed(interval) => interval * u32::try_from(number)? / u32::try_from(clients)?,
            };
            tasks.spawn(client.run(delay));
        }
        let mut all = Samples::default();
        while let Some(samples) = tasks.join_next().await {
            all.extend(samples??);
        }
        Ok(all)
    })
}

/// One connection of a load.
struct Client {
    stream: UnixStream,
    requests: Arc<[Vec<u8>]>,
    first: usize,
    pace: Pace,
    time: Duration,
}

impl Client {
    async fn run(mut self, delay: Duration) -> anyhow::Result<Samples> {
        let begin = Instant::now();
        let mut due = begin + delay;
        let mut samples = Samples::default();
        let mut received = Vec::with_capacity(8192);
        let requests = Arc::clone(&self.requests);
        for request in requests.iter().cycle().skip(self.first) {
            let mut sent = Instant::now();
            if let Pace::Fixed(interval) = self.pace {
                if sent < due {
                    tokio::time::sleep_until(due.into()).await;
                    // That this timer is late is not the daemon's doing.
                    sent = Instant::now();
                } else {
                    sent = due;
                }
                due += interval;
            }
            self.stream.write_all(request).await?;
            received.clear();
            loop {
                ensure!(self.stream.read_buf(&mut received).await? > 0, "the daemon closed the connection");
                if let Some((status, body, length)) = parse_head(&received)?
                    && received.len() >= body + length
                {
                    ensure!(status == 200, "the daemon answered {status}");
                    break;
                }
            }
            samples.push(sent.elapsed());
            if begin.elapsed() >= self.time {
                break;
            }
        }
        Ok(samples)
    }
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
