//! `doctor`: every check with its remedy; what only the client can see, and what the daemon finds.

use std::process::{Command, Stdio};

use anstyle::{AnsiColor, Style};
use wtd_protocol::variable::WTD_WORKTREE;
use wtd_protocol::{Check, CheckStatus, Health, VERSION, routes};

use crate::cli::JsonArgs;
use crate::daemon::{Daemon, variable};
use crate::error::Error;
use crate::hook::{DIRENV_DIFF, State, WTD_HOOK, changed_by_direnv};
use crate::output::{self, Printable};
use crate::shell::{self, Hooked, Shell};
use crate::start;

/// Prints the checks; false when one of them fails.
pub(crate) fn run(daemon: &Daemon, args: &JsonArgs) -> Result<bool, Error> {
    let checks = checks(daemon);
    if args.json {
        output::json(&checks)?;
    } else {
        output::styled(&output::lines(checks.iter().flat_map(lines)))?;
    }
    Ok(checks.iter().all(|check| check.status != CheckStatus::Fail))
}

/// The checks: the client's, and those of the daemon that the client has not made itself.
fn checks(daemon: &Daemon) -> Vec<Check> {
    let health = daemon.health();
    let mut checks = match &health {
        Ok(health) => vec![reachable(health), version(&health.version)],
        Err(error) => vec![failed("daemon", error)],
    };
    checks.extend([units(), git(), hook()]);
    if health.is_ok() {
        match daemon.get::<Vec<Check>>(routes::CHECKS) {
            Ok(mut theirs) => {
                // One check can have several findings: only what this program looked at itself is left out.
                theirs.retain(|check| !checks.iter().any(|own| own.check == check.check));
                checks.append(&mut theirs);
            }
            Err(error) => checks.push(failed("daemon's checks", &error)),
        }
    }
    checks
}

fn check(check: &str, status: CheckStatus, detail: impl Into<String>, remedy: impl Into<String>) -> Check {
    Check { check: check.to_owned(), status, detail: detail.into(), remedy: remedy.into() }
}

/// A check that an error stands in the way of.
fn failed(name: &str, error: &Error) -> Check {
    let error = error.to_string();
    let (detail, remedy) = error.split_once("; ").unwrap_or((&error, ""));
    check(name, CheckStatus::Fail, detail, remedy)
}

fn reachable(health: &Health) -> Check {
    let detail = format!("wtd {} (pid {}) answers on {}", health.version, health.pid, health.socket);
    if health.degraded.is_empty() {
        check("daemon", CheckStatus::Ok, detail, "")
    } else {
        let detail = format!("{detail}, degraded: {}", health.degraded.join("; "));
        check("daemon", CheckStatus::Warn, detail, "see the checks below")
    }
}

/// Versions that are one minor version apart work together.
fn version(daemon: &str) -> Check {
    let detail = format!("the client is {VERSION}, the daemon is {daemon}");
    if daemon == VERSION {
        return check("version", CheckStatus::Ok, detail, "");
    }
    let remedy = "install the same version of both, and restart wtd";
    let status = match (major_minor(VERSION), major_minor(daemon)) {
        (Some((ours, minor)), Some((theirs, other))) if ours == theirs && minor.abs_diff(other) <= 1 => {
            CheckStatus::Warn
        }
        _ => CheckStatus::Fail,
    };
    check("version", status, detail, remedy)
}

fn major_minor(version: &str) -> Option<(u64, u64)> {
    let mut parts = version.split('.').map(str::parse);
    Some((parts.next()?.ok()?, parts.next()?.ok()?))
}

fn units() -> Check {
    let name = "systemd units";
    match (start::UserManager::find().is_some(), start::installed_unit()) {
        (true, Some(unit)) => check(name, CheckStatus::Ok, format!("{} is installed", unit.display()), ""),
        (true, None) => check(
            name,
            CheckStatus::Warn,
            "a user manager runs, and wtd.socket is not installed: each client starts the daemon if need be",
            "run `make install`",
        ),
        (false, _) => {
            check(name, CheckStatus::Ok, "no user manager runs: the client starts the daemon if need be", "")
        }
    }
}

fn git() -> Check {
    let git = Command::new("git")
        .arg("--version")
        .current_dir("/")
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    match git {
        Ok(output) if output.status.success() => {
            check("git", CheckStatus::Ok, String::from_utf8_lossy(&output.stdout).trim(), "")
        }
        Ok(output) => check(
            "git",
            CheckStatus::Fail,
            format!("git --version fails: {}", output.status),
            "run it by hand to see why",
        ),
        Err(error) => check("git", CheckStatus::Fail, format!("git can't be run: {error}"), "install git"),
    }
}

/// Whether the variables follow the shell from directory to directory.
fn hook() -> Check {
    let name = "shell hook";
    let shell = shell::detect().unwrap_or(Shell::Sh);
    let worktree = variable(WTD_WORKTREE);
    let has = match &worktree {
        Some(worktree) => format!("the shell has the variables of {}", worktree.to_string_lossy()),
        None => "the shell has no worktree's variables".to_owned(),
    };
    let state = variable(WTD_HOOK).and_then(|value| State::parse(&value));
    let is_active = state.is_some_and(|state| shell::process() == Some(state.shell));
    let direnv = variable(DIRENV_DIFF).map(|record| changed_by_direnv(&record)).unwrap_or_default();
    match Hooked::of(shell) {
        _ if is_active => check(name, CheckStatus::Ok, format!("the hook is active; {has}"), ""),
        _ if direnv.contains(WTD_WORKTREE) => check(name, CheckStatus::Ok, format!("{has}, by direnv"), ""),
        Some(hooked) => {
            let (line, file) = hooked.rc_line();
            let detail = format!("the hook is not active in this {}; {has}", shell.name());
            let remedy = format!("add `{line}` to {file}, and open a new shell");
            check(name, CheckStatus::Warn, detail, remedy)
        }
        None => {
            let status = if worktree.is_some() { CheckStatus::Ok } else { CheckStatus::Warn };
            let detail = format!("there is no hook for {}; {has}", shell.name());
            check(name, status, detail, "in a worktree, evaluate what `wtd-client env` prints")
        }
    }
}

/// One line for the check, and one for the remedy where there is something to do.
fn lines(check: &Check) -> impl Iterator<Item = String> {
    let (word, colour) = match check.status {
        CheckStatus::Ok => ("ok", AnsiColor::Green),
        CheckStatus::Warn => ("warn", AnsiColor::Yellow),
        CheckStatus::Fail => ("FAIL", AnsiColor::Red),
    };
    let style = Style::new().fg_color(Some(colour.into()));
    let finding =
        format!("{style}{word:<4}{style:#} {}: {}", Printable(&check.check), Printable(&check.detail));
    let has_remedy = !check.remedy.is_empty() && check.status != CheckStatus::Ok;
    let remedy = has_remedy.then(|| format!("     {}", Printable(&check.remedy)));
    std::iter::once(finding).chain(remedy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_minor_version_apart_works_and_is_said() {
        let (major, minor) = major_minor(VERSION).unwrap();
        let status = |minor: u64| version(&format!("{major}.{minor}.9")).status;
        assert_eq!(version(VERSION).status, CheckStatus::Ok);
        assert_eq!(status(minor), CheckStatus::Warn);
        assert_eq!(status(minor + 1), CheckStatus::Warn);
        assert_eq!(status(minor + 2), CheckStatus::Fail);
        assert_eq!(version("x").status, CheckStatus::Fail);
    }
}
