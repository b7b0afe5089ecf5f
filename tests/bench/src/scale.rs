//! Many repositories and few: how long the daemon takes to start, what it takes when idle, and what one event costs.

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use crate::Effort;
use crate::daemon::{Daemon, Programs, pause};
use crate::http::{Connection, ask_once, put_repository, put_worktree};
use crate::report::{Report, Table};
use crate::repositories::{by_hand, git, with_git};
use crate::samples::{Short, median};
use crate::watching::{Heard, follow, hear};

const MIB: f64 = 1024.0;

/// Linked worktrees of each of many repositories.
const LINKED: usize = 9;

/// Offsets are multiples of 10 at their finest, so there is room for 6,010 of them, unless the step is finer still.
const SETTINGS: [(&str, &str); 1] = [("WTD_STEP", "1")];

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let few = Fleet::new(programs, &scratch.join("few"), 3, 1)?;
    let idle = few.idle(effort)?;
    report.at_most("idle daemon with 3 repositories: resident", idle.resident, 16.0, "MiB");
    report.at_most(
        &format!("idle daemon with 3 repositories: wake-ups in {} s", idle.time.as_secs()),
        idle.wake_ups as f64,
        0.0,
        "",
    );
    let one = few.event_cost(effort)?;
    few.daemon.stop()?;

    let repositories = effort.choose(1_000, 200);
    let mut many = Fleet::new(programs, &scratch.join("many"), repositories, LINKED)?;
    let sizes = format!("{repositories} repositories, {} worktrees", many.daemon.active()?);
    report.remark(&format!(
        "{sizes}: all have an allocation. The daemon had `WTD_STEP=1`, since multiples of 10 are enough for 6,010 offsets at base port 5432."
    ));

    let mut ready = Vec::new();
    for _ in 0..effort.choose(5, 3) {
        many = many.restart(programs)?;
        ready.push(many.daemon.ready_after.as_secs_f64());
        many.daemon.settle()?;
    }
    let first = many.first_answer()?;
    report.within(
        &format!("start to ready with {sizes}"),
        Duration::from_secs_f64(median(ready)),
        Duration::from_secs(1),
    );
    let busy = many.idle(effort)?;
    report.at_most(&format!("{sizes}: resident"), busy.resident, 64.0, "MiB");
    report.at_most(
        &format!("{sizes}: CPU time in {} idle seconds", busy.time.as_secs()),
        busy.cpu.as_secs_f64() * 1e3,
        // What the kernel charges for looking at the process.
        0.5,
        "ms",
    );
    let thousand = many.event_cost(effort)?;
    many.daemon.stop()?;
    // The same cost is one with the noise of the measurement.
    report.at_most(
        &format!("CPU time of one `git worktree add`, {repositories} repositories as a ratio to 3"),
        thousand.as_secs_f64() / one.as_secs_f64(),
        1.25,
        "×",
    );

    let row = |name: &str, idle: &Idle, event: Duration| {
        vec![
            name.to_owned(),
            format!("{:.1} MiB", idle.resident),
            format!("{:.1} MiB", idle.proportional),
            Short(idle.cpu).to_string(),
            idle.wake_ups.to_string(),
            Short(event).to_string(),
        ]
    };
    report.table(Table {
        title: format!("Idle for {} s, and one event", idle.time.as_secs()),
        header: [
            "daemon",
            "resident (VmRSS)",
            "proportional (Pss)",
            "CPU time",
            "wake-ups",
            "CPU time of one add",
        ]
        .map(str::to_owned)
        .to_vec(),
        rows: vec![row("3 repositories", &idle, one), row(&sizes, &busy, thousand)],
    });
    report.remark(&format!("The first answer after a start with {sizes} took {}.", Short(first)));
    Ok(())
}

/// A daemon that watches some repositories. The first is git's own work, the others are written by hand.
pub(crate) struct Fleet {
    pub(crate) daemon: Daemon,
    state: PathBuf,
    /// The repository in which worktrees are added.
    real: PathBuf,
    /// A worktree of the last repository.
    last: PathBuf,
}

/// What a daemon takes that has nothing to do.
pub(crate) struct Idle {
    time: Duration,
    pub(crate) resident: f64,
    proportional: f64,
    cpu: Duration,
    wake_ups: u64,
}

impl Fleet {
    pub(crate) fn new(
        programs: &Programs,
        directory: &Path,
        repositories: usize,
        linked: usize,
    ) -> anyhow::Result<Self> {
        let state = directory.join("state");
        let real = directory.join("real");
        with_git(&real)?;
        let mut roots = vec![real.clone()];
        let mut last = real.clone();
        let mut worktrees = 1;
        for number in 1..repositories {
            let root = directory.join(format!("group{}", number % 50)).join(format!("r{number}"));
            let made = by_hand(&root, linked)?;
            worktrees += made.len();
            last.clone_from(made.last().context("a repository has a worktree")?);
            roots.push(root);
        }
        let daemon = Daemon::start(programs, &state, &SETTINGS)?;
        let requests: Vec<_> = roots.iter().map(|root| put_repository(root)).collect::<Result<_, _>>()?;
        thread::scope(|scope| {
            let clients: Vec<_> = requests
                .chunks(requests.len().div_ceil(16))
                .map(|requests| {
                    let socket = &daemon.socket;
                    scope.spawn(move || -> anyhow::Result<()> {
                        let mut connection = Connection::open(socket)?;
                        requests.iter().try_for_each(|request| connection.ask(request).map(drop))
                    })
                })
                .collect();
            clients.into_iter().try_for_each(|client| client.join().ok().context("a client panicked")?)
        })?;
        let end = Instant::now() + Duration::from_mins(2);
        while daemon.active()? < worktrees as u64 {
            ensure!(Instant::now() < end, "{} of {worktrees} worktrees have an allocation", daemon.active()?);
            pause(Duration::from_millis(100));
        }
        daemon.settle()?;
        Ok(Self { daemon, state, real, last })
    }

    fn restart(self, programs: &Programs) -> anyhow::Result<Self> {
        self.daemon.stop()?;
        let daemon = Daemon::start(programs, &self.state, &SETTINGS)?;
        Ok(Self { daemon, ..self })
    }

    /// How long a worktree's first answer takes.
    fn first_answer(&self) -> anyhow::Result<Duration> {
        let begin = Instant::now();
        ask_once(&self.daemon.socket, &self.known()?)?;
        Ok(begin.elapsed())
    }

    /// The request for a worktree that has an allocation.
    pub(crate) fn known(&self) -> anyhow::Result<Vec<u8>> {
        put_worktree(&self.last)
    }

    pub(crate) fn idle(&self, effort: Effort) -> anyhow::Result<Idle> {
        let time = Duration::from_secs(effort.choose(10, 4) as u64);
        self.daemon.settle()?;
        let used = self.daemon.used_in(time)?;
        Ok(Idle {
            time,
            resident: self.daemon.resident_kib()? as f64 / MIB,
            proportional: self.daemon.proportional_kib()? as f64 / MIB,
            cpu: used.cpu,
            wake_ups: used.wake_ups,
        })
    }

    /// The CPU time that the daemon spends on one `git worktree add`: the median, one at a time.
    pub(crate) fn event_cost(&self, effort: Effort) -> anyhow::Result<Duration> {
        let events = follow(&self.daemon)?;
        let mut costs = Vec::new();
        for number in 0..effort.choose(40, 15) {
            let worktree = self.real.with_file_name(format!("added{number}"));
            costs.push(self.add(&worktree, &events)?.as_secs_f64());
        }
        Ok(Duration::from_secs_f64(median(costs)))
    }

    fn add(&self, worktree: &Path, events: &Receiver<Heard>) -> anyhow::Result<Duration> {
        let before = self.daemon.usage()?.cpu;
        let mut add = git(&self.real);
        add.args(["worktree", "add", "--quiet", "--detach"]).arg(worktree);
        ensure!(add.status()?.success(), "git worktree add fails");
        hear(events, "allocated", worktree, Instant::now())?;
        // Looks that follow the allocation are part of its cost.
        pause(Duration::from_millis(100));
        Ok(self.daemon.usage()?.cpu.saturating_sub(before))
    }
}
