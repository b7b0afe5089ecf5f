//! Measures every number that wtd promises, and prints each beside its bar.
//!
//! Nothing fails because a machine is slow: figures are for people to read. Wherever it can be, a figure is a ratio
//! within one run, since absolute ones drift with the machine's load.
#![expect(clippy::cast_precision_loss, reason = "figures are shown with three digits")]

mod clients;
mod daemon;
mod databases;
mod growth;
mod hook;
mod http;
mod load;
mod machine;
mod processes;
mod report;
mod repositories;
mod samples;
mod scale;
mod watching;

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};

use daemon::Programs;
use report::Report;

/// Where the programs are and how long to measure.
#[derive(Debug, Parser)]
struct Arguments {
    /// Directory of wtd and wtd-client as they are installed
    #[arg(long)]
    dist: PathBuf,
    /// wtd-client linked dynamically, for comparison
    #[arg(long)]
    dynamic_client: Option<PathBuf>,
    /// The program that does nothing, linked dynamically
    #[arg(long)]
    noop: PathBuf,
    /// The program that does nothing, linked statically
    #[arg(long)]
    static_noop: Option<PathBuf>,
    /// Directory for repositories and registries, on a disk such as repositories are on
    #[arg(long)]
    scratch: PathBuf,
    /// Fewer rounds, fewer repositories
    #[arg(long)]
    quick: bool,
    /// Measure this alone (may be repeated)
    #[arg(long, value_enum, conflicts_with = "write")]
    only: Vec<Part>,
    /// Write the results to this file as Markdown
    #[arg(long)]
    write: Option<PathBuf>,
}

/// A part of what is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// The client's whole process, beside others
    Processes,
    /// The shell's hook
    Hook,
    /// Answers for a known worktree
    Answers,
    /// New allocations
    Allocations,
    /// From git's exit to the registry
    Watching,
    /// Databases cloned from a template
    Databases,
    /// Many repositories and few
    Scale,
    /// Costs as the registry grows
    Growth,
}

/// How much is measured.
#[derive(Debug, Clone, Copy)]
struct Effort {
    quick: bool,
}

impl Effort {
    /// `full`, or `quick` when there is little time.
    const fn choose(self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let effort = Effort { quick: arguments.quick };
    let programs = Programs::new(&arguments.dist);
    std::fs::create_dir_all(&arguments.scratch).context("scratch directory")?;
    let scratch = tempfile::Builder::new().prefix("run-").tempdir_in(&arguments.scratch)?;

    let mut report = Report::new(machine::describe(scratch.path())?, effort.quick);
    let contenders = processes::Contenders {
        client: &programs.client,
        dynamic_client: arguments.dynamic_client.as_deref(),
        noop: &arguments.noop,
        static_noop: arguments.static_noop.as_deref(),
    };
    let at = scratch.path();
    let is_wanted = |part| arguments.only.is_empty() || arguments.only.contains(&part);
    for part in Part::value_variants().iter().copied().filter(|part| is_wanted(*part)) {
        match part {
            Part::Processes => processes::measure(&mut report, &programs, &contenders, at, effort),
            Part::Hook => hook::measure(&mut report, &programs, at, effort),
            Part::Answers => load::measure_answers(&mut report, &programs, at, effort),
            Part::Allocations => load::measure_allocations(&mut report, &programs, at, effort),
            Part::Watching => watching::measure(&mut report, &programs, at, effort),
            Part::Databases => databases::measure(&mut report, &programs, at, effort),
            Part::Scale => scale::measure(&mut report, &programs, at, effort),
            Part::Growth => growth::measure(&mut report, &programs, at, effort),
        }?;
    }

    report.print_summary();
    if let Some(file) = &arguments.write {
        std::fs::write(file, report.markdown()).with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}
