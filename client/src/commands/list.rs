//! `list`: the worktrees and what each one has.

use std::collections::HashMap;

use wtd_protocol::{PassedOver, PortConflict, Worktree};

use crate::cli::ListArgs;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::output::{self, Printable};
use crate::table;

/// Prints the worktrees, as a table for people or as the daemon gives them.
pub(crate) fn run(daemon: &Daemon, args: &ListArgs) -> Result<(), Error> {
    let answer = daemon.worktrees(args.all)?;
    if args.json {
        return output::json(&answer);
    }
    let worktrees: Vec<Worktree> = serde_json::from_value(answer).map_err(|error| {
        Error::failed(
            format!("the list can't be read: {error}"),
            "compare the versions with `wtd-client doctor`",
        )
    })?;
    if worktrees.is_empty() {
        return output::styled("No worktrees yet: `wtd-client add PATH` watches a repository.\n");
    }
    output::styled(&text(&worktrees))
}

/// The table, and below it what there is to know about its rows.
fn text(worktrees: &[Worktree]) -> String {
    let header = ["REPOSITORY", "WORKTREE", "BRANCH", "OFFSET", "PORTS", "VOLUME", "STATE"];
    let mut text = table::render(&header, worktrees.iter().map(row));
    let mut notes = Vec::new();
    if worktrees.iter().any(|worktree| !worktree.listening.is_empty()) {
        notes.push("* something listens on this port".to_owned());
    }
    notes.extend(worktrees.iter().flat_map(conflicts));
    notes.extend(worktrees.iter().flat_map(passed_over));
    notes.extend(warnings(worktrees));
    if !notes.is_empty() {
        text.push('\n');
        text.push_str(&output::lines(notes.iter().map(|note| Printable(note))));
    }
    text
}

/// One worktree as a row of the table.
fn row(worktree: &Worktree) -> Vec<String> {
    let allocation = &worktree.allocation;
    let repository = allocation.repository.strip_suffix("/.git").unwrap_or(&allocation.repository);
    let ports = allocation.ports.iter().map(|(name, port)| {
        let mark = if worktree.listening.contains(name) { "*" } else { "" };
        format!("{name} {port}{mark}")
    });
    let mut state = allocation.state.to_string();
    if worktree.locked {
        state.push_str(", locked");
    }
    if !allocation.reason.is_empty() {
        state.push_str(": ");
        state.push_str(&allocation.reason);
    }
    let lines = |text: &str| Printable(text).to_string();
    vec![
        lines(&table::path(repository)),
        lines(&table::path(&allocation.path)),
        lines(worktree.branch.as_deref().unwrap_or("-")),
        allocation.offset.to_string(),
        ports.map(|port| lines(&port)).collect::<Vec<_>>().join("\n"),
        lines(&allocation.volume),
        lines(&state),
    ]
}

/// How the notes name a worktree: by offset and branch, else by path.
fn name(worktree: &Worktree) -> String {
    let branch = worktree.branch.as_deref().unwrap_or(&worktree.allocation.path);
    format!("{} {branch}", worktree.allocation.offset)
}

/// One line for each port that someone else has.
fn conflicts(worktree: &Worktree) -> impl Iterator<Item = String> {
    worktree.conflicts.iter().map(|PortConflict { variable, port, reason }| {
        format!("{}: port {port} ({variable}) is taken: {reason}", name(worktree))
    })
}

/// One line for each offset that was tried first.
fn passed_over(worktree: &Worktree) -> impl Iterator<Item = String> {
    worktree.allocation.passed_over.iter().map(|PassedOver { offset, variable, port, reason }| {
        format!("{}: offset {offset} was passed over: {port} ({variable}): {reason}", name(worktree))
    })
}

/// One line for each thing that a configuration asks for and can't have, with all worktrees of a repository that share it.
fn warnings(worktrees: &[Worktree]) -> Vec<String> {
    let mut shared: HashMap<_, (usize, Vec<String>)> = HashMap::new();
    for (order, worktree) in worktrees.iter().enumerate() {
        for warning in &worktree.allocation.warnings {
            let key = (&worktree.allocation.repository, warning);
            shared.entry(key).or_insert((order, Vec::new())).1.push(name(worktree));
        }
    }
    let mut shared: Vec<_> = shared.into_iter().collect();
    shared.sort_unstable_by_key(|((_, warning), (order, _))| (*order, *warning));
    shared.into_iter().map(|((_, warning), (_, names))| format!("{}: {warning}", names.join(", "))).collect()
}
