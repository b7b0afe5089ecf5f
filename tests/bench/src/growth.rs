//! What answers, an event, a list and the daemon itself cost as the registry grows.

use std::path::Path;
use std::time::{Duration, Instant};

use wtd_protocol::routes;

use crate::Effort;
use crate::daemon::Programs;
use crate::http::{Connection, get};
use crate::report::{Chart, Report, Table};
use crate::samples::{Samples, Short};
use crate::scale::Fleet;

/// Numbers of repositories, of ten worktrees each.
const REPOSITORIES: [usize; 5] = [3, 30, 100, 300, 1_000];

/// What one size costs.
struct Costs {
    worktrees: u64,
    answer: Duration,
    list: Duration,
    event: Duration,
    resident: f64,
}

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let sizes = REPOSITORIES.get(..effort.choose(REPOSITORIES.len(), 3)).unwrap_or(&REPOSITORIES);
    let mut costs = Vec::new();
    for repositories in sizes {
        let directory = scratch.join(format!("growth{repositories}"));
        costs.push(of(programs, &directory, *repositories, effort)?);
        std::fs::remove_dir_all(&directory)?;
    }
    let rows = costs.iter().map(|costs| {
        vec![
            costs.worktrees.to_string(),
            Short(costs.answer).to_string(),
            Short(costs.event).to_string(),
            Short(costs.list).to_string(),
            format!("{:.1} MiB", costs.resident),
        ]
    });
    report.table(Table {
        title: "As the registry grows".to_owned(),
        header: ["worktrees", "answer, p50", "CPU time of one add", "list of all", "resident (VmRSS)"]
            .map(str::to_owned)
            .to_vec(),
        rows: rows.collect(),
    });
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    let mut chart = |title: &str, of: &dyn Fn(&Costs) -> f64| {
        report.chart(Chart {
            title: title.to_owned(),
            x_axis: "worktrees".to_owned(),
            points: costs.iter().map(|costs| (costs.worktrees.to_string(), of(costs))).collect(),
        });
    };
    chart("Answer for a known worktree, p50 (µs)", &|costs| micros(costs.answer));
    chart("CPU time of one git worktree add (µs)", &|costs| micros(costs.event));
    chart("List of every worktree (µs)", &|costs| micros(costs.list));
    chart("Resident memory (MiB)", &|costs| costs.resident);
    Ok(())
}

fn of(programs: &Programs, directory: &Path, repositories: usize, effort: Effort) -> anyhow::Result<Costs> {
    let fleet = Fleet::new(programs, directory, repositories, 9)?;
    let worktrees = fleet.daemon.active()?;
    let idle = fleet.idle(Effort { quick: true })?;
    let mut connection = Connection::open(&fleet.daemon.socket)?;
    let answer = fleet.known()?;
    let list = get(&format!("{}?state=active", routes::WORKTREES));
    let mut time = |request: &[u8], times: usize| -> anyhow::Result<Duration> {
        let mut samples = Samples::default();
        for _ in 0..times {
            let begin = Instant::now();
            connection.ask(request)?;
            samples.push(begin.elapsed());
        }
        Ok(samples.median())
    };
    let costs = Costs {
        worktrees,
        answer: time(&answer, effort.choose(2_000, 500))?,
        list: time(&list, effort.choose(15, 5))?,
        event: fleet.event_cost(effort)?,
        resident: idle.resident,
    };
    fleet.daemon.stop()?;
    Ok(costs)
}
