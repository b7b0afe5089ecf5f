//! Whole processes, as a shell starts them: the client beside a program that does nothing, and beside what a person would
//! use instead.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};

use crate::Effort;
use crate::daemon::{Daemon, Programs};
use crate::report::{Report, Table};
use crate::repositories::{git, run_git, with_git};
use crate::samples::{Samples, Short, median};

/// The client may take this many times as long as the program that does nothing.
const BAR: f64 = 1.2;

/// Linked worktrees of the repository, which `git worktree list` has to go through.
const LINKED: usize = 9;

/// The programs that are compared.
#[derive(Debug)]
pub(crate) struct Contenders<'a> {
    pub(crate) client: &'a Path,
    pub(crate) dynamic_client: Option<&'a Path>,
    pub(crate) noop: &'a Path,
    pub(crate) static_noop: Option<&'a Path>,
}

/// A command with its times; every run has to print the same.
struct Contender {
    name: &'static str,
    command: Command,
    /// How often it is run in a round; fewer for what takes long.
    runs: usize,
    output: Option<Vec<u8>>,
    samples: Samples,
    /// Each round's median, in seconds.
    medians: Vec<f64>,
}

const NOOP: &str = "empty Rust program";
const CLIENT: &str = "wtd-client env";
const GIT_DIR: &str = "git rev-parse --git-dir";
const DIRENV: &str = "direnv export bash";

pub(crate) fn measure(
    report: &mut Report,
    programs: &Programs,
    contenders: &Contenders<'_>,
    scratch: &Path,
    effort: Effort,
) -> anyhow::Result<()> {
    let directory = scratch.join("processes");
    let repository = directory.join("shop");
    with_git(&repository)?;
    for number in 0..LINKED {
        run_git(&repository, ["worktree", "add", "--quiet", &format!("../shop-{number}")])?;
    }
    let worktree = directory.join("shop-3");
    let daemon = Daemon::start(programs, &directory.join("state"), &[])?;

    let client = |program: &Path| {
        let mut command = Command::new(program);
        command.arg("env").env("WTD_SOCKET", &daemon.socket).env("SHELL", "/bin/bash").current_dir(&worktree);
        command
    };
    let in_git = |arguments: &[&str]| {
        let mut command = git(&worktree);
        command.args(arguments);
        command
    };
    let mut all = vec![
        Contender::new(NOOP, Command::new(contenders.noop), 10),
        Contender::new(CLIENT, client(contenders.client), 10),
        Contender::new(GIT_DIR, in_git(&["rev-parse", "--git-dir"]), 10),
        Contender::new("git rev-parse --git-common-dir", in_git(&["rev-parse", "--git-common-dir"]), 10),
        Contender::new("git worktree list --porcelain", in_git(&["worktree", "list", "--porcelain"]), 5),
    ];
    if let Some(program) = contenders.static_noop {
        all.push(Contender::new("empty Rust program, linked statically", Command::new(program), 10));
    }
    if let Some(program) = contenders.dynamic_client {
        all.push(Contender::new("wtd-client env, linked dynamically", client(program), 10));
    }
    match direnv(&worktree, &directory) {
        Some(command) => all.push(Contender::new(DIRENV, command, 1)),
        None => report.skipped(DIRENV, "direnv is not installed, or does not run"),
    }

    // The first round only warms up.
    let rounds = effort.choose(60, 15);
    for round in 0..=rounds {
        for contender in &mut all {
            contender.round(round == 0)?;
        }
    }
    daemon.stop()?;
    tell(report, &mut all);
    Ok(())
}

impl Contender {
    fn new(name: &'static str, mut command: Command, runs: usize) -> Self {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        Self { name, command, runs, output: None, samples: Samples::default(), medians: Vec::new() }
    }

    fn round(&mut self, warming_up: bool) -> anyhow::Result<()> {
        let mut samples = Samples::default();
        for _ in 0..self.runs {
            let begin = Instant::now();
            let mut child = self.command.spawn().with_context(|| self.name)?;
            let mut output = Vec::new();
            child.stdout.take().context("standard output")?.read_to_end(&mut output)?;
            let status = child.wait()?;
            samples.push(begin.elapsed());
            ensure!(status.success() && !output.is_empty(), "{}: {status}", self.name);
            let first = self.output.get_or_insert_with(|| output.clone());
            // direnv prints its own state, which has times in it.
            ensure!(
                self.name == DIRENV || *first == output,
                "{}: it printed something else than before",
                self.name
            );
        }
        if !warming_up {
            self.medians.push(samples.median().as_secs_f64());
            self.samples.extend(samples);
        }
        Ok(())
    }
}

/// direnv in the worktree, with a file that sets as many variables as wtd does.
fn direnv(worktree: &Path, directory: &Path) -> Option<Command> {
    let envrc: String =
        ["PORT_OFFSET", "DB_HOST_PORT", "DB_VOLUME", "POSTGRES_DB", "COMPOSE_PROJECT_NAME", "WTD_WORKTREE"]
            .map(|name| format!("export {name}=x\n"))
            .concat();
    std::fs::write(worktree.join(".envrc"), envrc).ok()?;
    let command = |argument: &[&str]| {
        let mut command = Command::new("direnv");
        command.args(argument).current_dir(worktree).env("HOME", directory);
        for name in ["XDG_CONFIG_HOME", "XDG_DATA_HOME", "DIRENV_DIR", "DIRENV_DIFF", "DIRENV_WATCHES"] {
            command.env_remove(name);
        }
        command
    };
    let allowed = command(&["allow"]).stderr(Stdio::null()).status().ok()?;
    allowed.success().then(|| command(&["export", "bash"]))
}

/// Round by round, what one contender took as a ratio to another.
fn ratio(all: &BTreeMap<&str, Vec<f64>>, name: &str, to: &str) -> Option<f64> {
    let pairs = all.get(name)?.iter().zip(all.get(to)?);
    Some(median(pairs.map(|(one, other)| one / other).collect()))
}

fn tell(report: &mut Report, all: &mut [Contender]) {
    let medians: BTreeMap<_, _> =
        all.iter().map(|contender| (contender.name, contender.medians.clone())).collect();
    if let Some(figure) = ratio(&medians, CLIENT, NOOP) {
        report.at_most(
            "`wtd-client env`, whole process, as a ratio to an empty Rust program",
            figure,
            BAR,
            "×",
        );
    }
    for other in [GIT_DIR, DIRENV] {
        if let Some(figure) = ratio(&medians, CLIENT, other) {
            report.at_most(&format!("`wtd-client env`, as a ratio to `{other}`"), figure, 1.0, "×");
        }
    }
    let rows = all.iter_mut().map(|contender| {
        let to_noop = ratio(&medians, contender.name, NOOP).unwrap_or_default();
        vec![
            contender.name.to_owned(),
            Short(contender.samples.median()).to_string(),
            Short(contender.samples.percentile(95)).to_string(),
            format!("{to_noop:.2}"),
        ]
    });
    report.table(Table {
        title: "Whole processes, in interleaved rounds".to_owned(),
        rows: rows.collect(),
        header: ["command", "median", "p95", "ratio to the empty program"].map(str::to_owned).to_vec(),
    });
}
