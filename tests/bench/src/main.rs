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
use clap::Parser;

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
    /// Write the results to this file as Markdown
    #[arg(long)]
    write: Option<PathBuf>,
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
    processes::measure(&mut report, &programs, &contenders, scratch.path(), effort)?;
    hook::measure(&mut report, &programs, scratch.path(), effort)?;
    load::measure_answers(&mut report, &programs, scratch.path(), effort)?;
    load::measure_allocations(&mut report, &programs, scratch.path(), effort)?;
    watching::measure(&mut report, &programs, scratch.path(), effort)?;
    databases::measure(&mut report, &programs, scratch.path(), effort)?;
    scale::measure(&mut report, &programs, scratch.path(), effort)?;
    growth::measure(&mut report, &programs, scratch.path(), effort)?;

    report.print_summary();
    if let Some(file) = &arguments.write {
        std::fs::write(file, report.markdown()).with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}
