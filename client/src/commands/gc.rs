//! `gc`: shows what removed worktrees left, asks, and has exactly that dropped.

use std::io::IsTerminal as _;

use wtd_protocol::gc::{EngineHint, GcAction, GcEvent, GcItem, GcKind, GcReport, GcRequest};
use wtd_protocol::requests::PathRequest;

use super::progress::{self, Broken};
use crate::cli::GcArgs;
use crate::daemon::{Daemon, text_variable};
use crate::environment::absolute;
use crate::error::Error;
use crate::output::{self, Printable};
use crate::table;
use crate::transport::Exchange;

/// Shows the plan, asks, and has it carried out; false when something of it could not be.
pub(crate) fn run(daemon: &Daemon, args: &GcArgs) -> Result<bool, Error> {
    let can_ask = std::io::stdin().is_terminal() && std::io::stderr().is_terminal();
    if !args.dry_run && !args.yes && !can_ask {
        return Err(Error::failed(
            "there is no terminal to ask on",
            "pass -y to drop without a question, or --dry-run to see what would be dropped",
        ));
    }
    let mut request = request(args)?;
    let plan = daemon.gc_plan(&request)?;
    let has_work = has_work(&plan);
    if args.dry_run || !has_work {
        if args.json {
            output::json(&plan.items)?;
        } else {
            output::styled(&text(&plan))?;
        }
        // A person who says that what does not answer is gone for good wants no answer.
        return if args.dry_run || args.no_engine { Ok(true) } else { answered(&plan) };
    }
    // With `--json` only what came of it goes to standard output.
    if !args.json {
        output::styled(&text(&plan))?;
    }
    if !args.yes && !output::ask(&question(&plan))? {
        return Err(Error::failed("nothing was dropped", "answer y to drop"));
    }
    request.dry_run = false;
    request.progress = true;
    request.only = Some(tokens(&plan));
    let mut report = follow(daemon.again().gc(&request)?)?;
    add_what_changed(&plan, &mut report);
    if args.json {
        output::json(&report.items)?;
    } else {
        output::styled(&summary(&plan, &report))?;
    }
    match report.failure {
        Some(problem) => Err(Error::failed(
            format!("gc ended early: {}", problem.detail),
            format!("{} (what was dropped is recorded, and a second run finishes)", problem.remedy),
        )),
        None if args.no_engine => Ok(true),
        None => answered(&report),
    }
}

/// Adds what was to be dropped and is not what was shown any more, so that it was let alone.
fn add_what_changed(plan: &GcReport, report: &mut GcReport) {
    let is_told = |item: &&GcItem| report.items.iter().any(|told| told.token == item.token);
    let changed: Vec<GcItem> = dropped(plan)
        .filter(|item| !is_told(item))
        .map(|item| GcItem {
            action: GcAction::Keep,
            reason: "it has changed since it was listed, or is gone; run gc again to see what is there"
                .to_owned(),
            ..item.clone()
        })
        .collect();
    report.items.extend(changed);
}

/// Fails when a server gave no answer on what is left there, so that it is not known to be dropped: as an engine would that
/// gives none.
fn answered(report: &GcReport) -> Result<bool, Error> {
    let Some(item) = report.items.iter().find(|item| item.unanswered) else { return Ok(true) };
    let (why, remedy) = item.reason.rsplit_once("; ").unwrap_or((&item.reason, "see `wtd-client doctor`"));
    Err(Error::failed(format!("{} is kept: {why}", named(item)), format!("{remedy}, then run it again")))
}

fn request(args: &GcArgs) -> Result<GcRequest, Error> {
    let backup = args.backup.as_ref().map(|directory| absolute(Some(directory))).transpose()?;
    Ok(GcRequest {
        dry_run: true,
        missing: args.missing,
        older_than: args.older_than,
        down: args.down,
        no_engine: args.no_engine,
        backup: backup.map(|directory| PathRequest::of(&directory)),
        only: None,
        progress: false,
        engine: engine_hint(),
    })
}

/// The engine that the person's shell means: a daemon that runs as a service doesn't see these.
pub(crate) fn engine_hint() -> EngineHint {
    EngineHint { docker_host: text_variable("DOCKER_HOST"), docker_context: text_variable("DOCKER_CONTEXT") }
}

fn dropped(plan: &GcReport) -> impl Iterator<Item = &GcItem> {
    plan.items.iter().filter(|item| item.action == GcAction::Drop)
}

fn has_work(plan: &GcReport) -> bool {
    dropped(plan).next().is_some()
        || plan.stacks.iter().any(|stack| stack.action == GcAction::Drop)
        || plan.offsets.iter().any(|offset| offset.action == GcAction::Drop)
}

/// What stands for everything that was shown.
fn tokens(plan: &GcReport) -> Vec<String> {
    let items = plan.items.iter().map(|item| &item.token);
    let stacks = plan.stacks.iter().map(|stack| &stack.token);
    items.chain(stacks).chain(plan.offsets.iter().map(|offset| &offset.token)).cloned().collect()
}

/// The plan as a table, with what else there is to know, and the totals.
fn text(plan: &GcReport) -> String {
    let mut text = String::new();
    if !plan.items.is_empty() {
        let header = ["WORKTREE", "WENT", "NAME", "SIZE", "ACTION", "REASON"];
        text = table::render(&header, plan.items.iter().map(row));
        text.push('\n');
    }
    let stacks = plan.stacks.iter().map(|stack| {
        let names: Vec<String> =
            stack.containers.iter().map(|it| format!("{} ({})", it.name, it.state)).collect();
        let verb = match stack.action {
            GcAction::Drop => "is stopped and removed",
            GcAction::Keep => "stays",
        };
        format!("{}: stack {} {verb}: {}; {}", stack.path, stack.project, names.join(", "), stack.reason)
    });
    let offsets = plan.offsets.iter().map(|offset| match offset.action {
        GcAction::Drop => {
            format!("{}: offset {} will be free: {}", offset.path, offset.offset, offset.reason)
        }
        GcAction::Keep => format!("{}: offset {} stays taken: {}", offset.path, offset.offset, offset.reason),
    });
    let notes: Vec<String> = stacks.chain(offsets).collect();
    text.push_str(&output::lines(notes.iter().map(|note| Printable(note))));
    text.push_str(&totals(plan));
    text
}

fn row(item: &GcItem) -> Vec<String> {
    let show = |text: &str| Printable(text).to_string();
    let action = match item.action {
        GcAction::Drop => "drop",
        GcAction::Keep => "keep",
    };
    // To the minute: 2026-11-23T15:29:40.123Z.
    let went = item.since.get(..16).unwrap_or(&item.since).replace('T', " ");
    vec![
        show(&table::path(&item.path)),
        show(&went),
        show(&named(item)),
        item.size.map_or_else(|| "-".to_owned(), size),
        action.to_owned(),
        show(&item.reason),
    ]
}

/// A thing as the table names it: volumes are what most have.
fn named(item: &GcItem) -> String {
    match item.kind {
        GcKind::Volume => item.name.clone(),
        kind => format!("{} {}", kind.as_str(), item.name),
    }
}

/// How many of each kind, such as `2 volumes and 1 schema`.
fn count(items: &[&GcItem]) -> String {
    let of = |kind: GcKind| {
        let count = items.iter().filter(|item| item.kind == kind).count();
        let is_shown = count > 0 || (kind == GcKind::Volume && items.is_empty());
        is_shown.then(|| format!("{count} {}{}", kind.as_str(), if count == 1 { "" } else { "s" }))
    };
    let counts: Vec<String> =
        [GcKind::Volume, GcKind::Database, GcKind::Schema].into_iter().filter_map(of).collect();
    counts.join(" and ")
}

fn totals(plan: &GcReport) -> String {
    let (drop, keep): (Vec<_>, Vec<_>) = plan.items.iter().partition(|item| item.action == GcAction::Drop);
    let sum = |items: &[&GcItem]| {
        let known: Vec<u64> = items.iter().filter_map(|item| item.size).collect();
        if known.is_empty() { String::new() } else { format!(" ({})", size(known.iter().sum())) }
    };
    if plan.items.is_empty() && !has_work(plan) {
        return "Nothing is left of removed worktrees.\n".to_owned();
    }
    format!("{} to drop{}, {} to keep{}.\n", count(&drop), sum(&drop), count(&keep), sum(&keep))
}

fn question(plan: &GcReport) -> String {
    let items: Vec<_> = dropped(plan).collect();
    let what = count(&items);
    let containers: usize = plan
        .stacks
        .iter()
        .filter(|stack| stack.action == GcAction::Drop)
        .map(|stack| stack.containers.len())
        .sum();
    match (items.len(), containers) {
        (0, 0) => "Release the offsets?".to_owned(),
        (0, _) => format!("Remove {containers} containers?"),
        (_, 0) => format!("Drop {what} for good?"),
        (_, _) => format!("Remove {containers} containers and drop {what} for good?"),
    }
}

/// A size for people, in decimal units as docker gives it.
pub(super) fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["kB", "MB", "GB", "TB"];
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let (mut tenths, mut unit) = (bytes / 100, "kB");
    for larger in UNITS.iter().skip(1) {
        if tenths < 10_000 {
            break;
        }
        tenths /= 1000;
        unit = larger;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// What came of it.
fn summary(plan: &GcReport, report: &GcReport) -> String {
    let done: Vec<&GcItem> = report.items.iter().filter(|item| item.done).collect();
    let sizes = |item: &&GcItem| plan.items.iter().find(|planned| planned.token == item.token)?.size;
    let sum: u64 = done.iter().filter_map(sizes).sum();
    let size = if sum == 0 { String::new() } else { format!(" ({})", size(sum)) };
    let mut lines = vec![format!("{} dropped{size}.", count(&done))];
    let planned = |item: &&GcItem| dropped(plan).any(|planned| planned.token == item.token);
    let kept = report.items.iter().filter(planned).filter(|item| !item.done);
    lines.extend(kept.map(|item| format!("{} was not dropped: {}", item.name, item.reason)));
    let other = done.iter().filter(|item| {
        plan.items.iter().any(|planned| planned.token == item.token && planned.reason != item.reason)
    });
    lines.extend(other.map(|item| format!("{}: {}", item.name, item.reason)));
    lines
        .extend(done.iter().filter_map(|it| Some(format!("{} is kept in {}", it.name, it.backup.as_ref()?))));
    let stacks = report.stacks.iter().filter(|stack| stack.done);
    lines.extend(stacks.map(|stack| format!("stack {} is removed.", stack.project)));
    let free: Vec<String> =
        report.offsets.iter().filter(|offset| offset.done).map(|offset| offset.offset.to_string()).collect();
    if !free.is_empty() {
        lines.push(format!("Free again: offset {}.", free.join(", ")));
    }
    output::lines(lines.iter().map(|line| Printable(line)))
}

/// Shows how far it is until there is a report.
fn follow(stream: Exchange) -> Result<GcReport, Error> {
    progress::follow(stream, |event, line| {
        match event {
            GcEvent::Report(report) => return Some(report),
            GcEvent::Begin { what } => line.show(&Printable(&what).to_string()),
            GcEvent::Written { bytes } => line.show(&format!("{} written", size(bytes))),
            GcEvent::Item(_) => {}
        }
        None
    })
    .map_err(|broken| match broken {
        Broken::Ended => Error::failed(
            "the daemon went away before gc had ended",
            "nothing but what was listed is dropped; run it again for the rest",
        ),
        Broken::Unreadable(why) => Error::failed(
            format!("what gc tells can't be read: {why}"),
            "look at `wtd-client gc --dry-run`, and compare the versions with `wtd-client doctor`",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_the_largest_unit_that_fits() {
        for (bytes, text) in [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.0 kB"),
            (123_456, "123.4 kB"),
            (48_700_000, "48.7 MB"),
            (1_000_000_000, "1.0 GB"),
            (5_000_000_000_000_000, "5000.0 TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
