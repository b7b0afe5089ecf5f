//! The checks behind `doctor` that only the daemon can make.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use wtd_protocol::{Allocation, Check, CheckStatus, PassedOver, State};

use super::Service;
use super::list::{All, Shown};
use crate::domain::allocation::is_mistake;
use crate::listeners;
use crate::text::{count, shell_word};

impl Service {
    /// Every check, with a remedy where one is needed.
    pub async fn checks(&self) -> Vec<Check> {
        let mut checks = vec![
            self.registry_check().await,
            self.configuration().await,
            self.watching(),
            self.container_engine().await,
        ];
        let live = HashSet::from([State::Active, State::Missing]);
        let shown = match self.shown(&live).await {
            Ok(All { worktrees, unheard }) => {
                checks.extend(unread(&worktrees));
                checks.extend(taken_ports(&worktrees, unheard.as_deref()));
                worktrees
            }
            Err(problem) => {
                checks.push(warn("worktrees", format!("unknown: {}", problem.detail), &problem.remedy));
                Vec::new()
            }
        };
        checks.extend(self.ephemeral_ports());
        checks.push(self.offsets());
        checks.extend(self.held_offsets());
        checks.extend(self.configurations());
        checks.extend(self.databases());
        checks.extend(self.trust_checks());
        checks.extend(self.env_files());
        checks.extend(shown.iter().filter_map(about_override));
        checks
    }

    /// Whether worktrees have on the servers that they share what is theirs. What was made is looked for again too, and
    /// the next `doctor` tells of it.
    fn databases(&self) -> Vec<Check> {
        let snapshot = self.0.writer.snapshot();
        let wanting = snapshot.ledger.in_state(State::Active).filter(|known| known.wanted_object().is_some());
        let wanting: Vec<_> = wanting.collect();
        let (mut there, mut checks) = (0, Vec::new());
        for allocation in wanting {
            match self.0.databases.note(allocation.id) {
                Some(note) => {
                    let (detail, remedy) = note.rsplit_once("; ").unwrap_or((&note, "wait for it"));
                    checks.push(warn(
                        "databases",
                        format!("{}: {detail}", allocation.path.display()),
                        remedy,
                    ));
                }
                None => there += usize::from(allocation.has_wanted_object()),
            }
        }
        if there > 0 {
            let detail = count(there, "worktree has its own", "worktrees have theirs");
            checks.push(ok("databases", format!("{detail} on a server that they share")));
        }
        self.0.databases.doubt();
        checks
    }

    async fn registry_check(&self) -> Check {
        match self.registry_in_place().await {
            Ok(()) => ok("registry", self.0.registry.path.display().to_string()),
            Err(why) => fail(
                "registry",
                why,
                "put the state directory back, or restart wtd; restore the file from a backup if it is lost",
            ),
        }
    }

    /// Whether the configuration in force is the one that is written.
    async fn configuration(&self) -> Check {
        let (file, difference) = match self.0.reloader.compare().await {
            Ok((config, difference)) => (config.file, difference),
            Err(why) => {
                let remedy =
                    "correct it, then `wtd-client reload`; the previous one stays in force until then";
                return fail("configuration", why.to_string(), remedy);
            }
        };
        let place = file.map_or_else(|| "what is built in".to_owned(), |file| file.display().to_string());
        if !difference.reloadable.is_empty() {
            let keys = difference.reloadable.join(", ");
            return warn("configuration", format!("{keys} of {place} not in force"), "`wtd-client reload`");
        }
        if !difference.at_restart.is_empty() {
            let keys = difference.at_restart.join(", ");
            let remedy = "restart wtd, such as with `systemctl --user restart wtd`";
            return warn("configuration", format!("{keys} of {place} not in force"), remedy);
        }
        ok("configuration", format!("{place} is in force"))
    }

    fn watching(&self) -> Check {
        let polled = self.0.reconciler.polled().len();
        let limit = self.0.reconciler.watches().and_then(crate::watch::Watches::limit);
        match (polled, limit) {
            (0, None) => ok("inotify", "every repository is watched".to_owned()),
            (0, Some(limit)) => {
                warn("inotify", "a limit was reached, and is not any more".to_owned(), &limit.to_string())
            }
            (polled, limit) => warn(
                "inotify",
                format!("{} polled, which is slower", count(polled, "repository is", "repositories are")),
                &limit.map_or_else(|| "see the daemon's log".to_owned(), |limit| limit.to_string()),
            ),
        }
    }

    async fn container_engine(&self) -> Check {
        match self.0.engine.ping().await {
            Ok(what) => ok("container engine", what),
            Err(why) => warn(
                "container engine",
                why,
                "start it, or name it under `engine` in the daemon's configuration; until it answers, stale allocations wait",
            ),
        }
    }

    /// Ports in the ephemeral range can be taken by any outgoing connection, unless the kernel is told to leave them.
    fn ephemeral_ports(&self) -> Option<Check> {
        let range = listeners::ephemeral_range()?;
        let Some(left_alone) = listeners::reserved_ports() else {
            let detail = "which ports the kernel keeps from outgoing connections is unknown".to_owned();
            let remedy = "let wtd read /proc/sys/net/ipv4/ip_local_reserved_ports";
            return Some(warn("ephemeral ports", detail, remedy));
        };
        let snapshot = self.0.writer.snapshot();
        let mut exposed: Vec<u16> = snapshot
            .ledger
            .allocations()
            .flat_map(|allocation| allocation.ports.values().map(|port| port.port))
            .filter(|port| range.contains(port) && !left_alone.iter().any(|reserved| reserved.contains(port)))
            .collect();
        exposed.sort_unstable();
        exposed.dedup();
        if exposed.is_empty() {
            return Some(ok(
                "ephemeral ports",
                "no port of a worktree can be taken by an outgoing connection".to_owned(),
            ));
        }
        let mut all: Vec<String> = left_alone
            .iter()
            .map(|reserved| match (reserved.start(), reserved.end()) {
                (start, end) if start == end => start.to_string(),
                (start, end) => format!("{start}-{end}"),
            })
            .collect();
        let list: Vec<String> = exposed.iter().map(ToString::to_string).collect();
        all.extend(list.iter().cloned());
        Some(warn(
            "ephemeral ports",
            format!("the kernel may give {} to outgoing connections", list.join(", ")),
            &format!("sysctl net.ipv4.ip_local_reserved_ports={}", all.join(",")),
        ))
    }

    fn offsets(&self) -> Check {
        let snapshot = self.0.writer.snapshot();
        let (stale, in_want) = (snapshot.ledger.count(State::Stale), snapshot.repositories_in_want().count());
        let total = snapshot.ledger.allocations().count();
        if in_want > 0 {
            return fail(
                "offsets",
                format!(
                    "worktrees of {} have none: {}, {stale} of them stale",
                    count(in_want, "repository", "repositories"),
                    count(total, "allocation", "allocations")
                ),
                "`wtd-client gc` frees the stale ones",
            );
        }
        let detail = format!("{}, {stale} of them stale", count(total, "allocation", "allocations"));
        if stale > 0 {
            warn("offsets", detail, "`wtd-client gc` frees the stale ones")
        } else {
            ok("offsets", detail)
        }
    }

    /// The offsets that lead to volumes which were restored.
    fn held_offsets(&self) -> Vec<Check> {
        let snapshot = self.0.writer.snapshot();
        let held = snapshot.ledger.held().map(|(offset, volume)| {
            ok(
                "offsets",
                format!(
                    "offset {offset} is held by volume {volume}, which was restored; `docker volume rm {volume}` frees it"
                ),
            )
        });
        held.collect()
    }

    fn configurations(&self) -> Vec<Check> {
        const REMEDY: &str = "correct the file";
        let snapshot = self.0.writer.snapshot();
        let all = snapshot.ledger.allocations().filter(|allocation| allocation.is_live());
        let told = all.flat_map(|known| known.warnings.iter().map(move |warning| (&known.path, warning)));
        let mut seen = HashSet::new();
        // Each once, in the order of the file.
        let told = told.filter(|(_, warning)| seen.insert(*warning));
        let check = |(path, warning): (&std::path::PathBuf, &String)| {
            if is_mistake(warning) {
                return warn("wtd.toml", warning.clone(), REMEDY);
            }
            // The file can be right, and this worktree not have what it asks for.
            let (why, remedy) = warning.rsplit_once("; ").unwrap_or((warning, REMEDY));
            warn("wtd.toml", format!("{}: {why}", path.display()), remedy)
        };
        told.map(check).collect()
    }
}

impl Service {
    /// What takes trust and does not have it: once for each configuration, with a worktree that has it.
    fn trust_checks(&self) -> Vec<Check> {
        let snapshot = self.0.writer.snapshot();
        let untrusted = snapshot.ledger.allocations().filter(|known| known.is_live() && known.untrusted);
        untrusted
            .map(|allocation| {
                let (path, word) = (allocation.path.display(), shell_word(&allocation.path));
                warn(
                    "trust",
                    format!("{path}: wtd.toml has templates or files that are not applied"),
                    &format!("`wtd-client trust --path {word}` shows them, and asks"),
                )
            })
            .collect()
    }

    /// Files that should be kept and can't be.
    fn env_files(&self) -> Vec<Check> {
        let snapshot = self.0.writer.snapshot();
        let files = self.0.reconciler.env_files();
        let live = snapshot.ledger.allocations().filter(|known| known.is_live() && !files.is_empty());
        live.flat_map(|allocation| {
            let path = allocation.path.display();
            let troubles = files.troubles(allocation).into_iter();
            troubles
                .map(move |trouble| warn("env files", format!("{path}: {}", trouble.what), trouble.remedy))
        })
        .collect()
    }
}

/// Repositories whose disks don't answer.
fn unread(shown: &[Shown]) -> Vec<Check> {
    let unread = shown.iter().filter(|shown| shown.is_unread);
    let repositories: BTreeSet<_> = unread.map(|shown| &shown.worktree.allocation.repository).collect();
    let line = |common_dir: &String| {
        warn(
            "worktrees",
            format!("{common_dir}: its disk does not answer, so what is there is unknown"),
            "see that what is mounted there answers, as `stat` shows",
        )
    };
    repositories.into_iter().map(line).collect()
}

/// Ports that others have; `unheard` is why that is unknown.
fn taken_ports(shown: &[Shown], unheard: Option<&str>) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Some(why) = unheard {
        checks.push(warn(
            "ports",
            format!("who listens on the ports of worktrees is unknown: {why}"),
            "let wtd read /proc/net/tcp and /proc/net/tcp6",
        ));
    }
    for worktree in shown.iter().map(|shown| &shown.worktree) {
        let allocation = &worktree.allocation;
        for conflict in &worktree.conflicts {
            checks.push(warn(
                "ports",
                format!("{} {}={}: {}", allocation.path, conflict.variable, conflict.port, conflict.reason),
                "stop that process, or run `wtd-client reassign` in the worktree",
            ));
        }
    }
    if checks.is_empty() {
        checks.push(ok("ports", "no port of a worktree is taken by others".to_owned()));
    }
    checks.extend(passed_over(shown));
    checks
}

/// A Compose override that is not what it should be.
fn about_override(shown: &Shown) -> Option<Check> {
    let why = shown.compose.as_ref()?;
    let detail = format!("{}: {why}", shown.worktree.allocation.path);
    Some(warn("compose", detail, super::compose::REMEDY))
}

/// Offsets that were not given: one line for each thing that stood in the way first, however many worktrees and further
/// offsets it was so for.
fn passed_over(shown: &[Shown]) -> Vec<Check> {
    let mut all: BTreeMap<_, (String, usize)> = BTreeMap::new();
    for allocation in shown.iter().map(|shown| &shown.worktree.allocation) {
        let Some(first) = allocation.passed_over.first() else { continue };
        let PassedOver { offset, variable, port, reason } = first;
        let (_, count) = all.entry((port, variable, reason)).or_insert_with(|| {
            let Allocation { path, offset: given, .. } = allocation;
            let told = format!(
                "{path} has offset {given}: offset {offset} was passed over, {variable}={port}: {reason}"
            );
            (told, 0)
        });
        *count += allocation.passed_over.len();
    }
    let line = |(told, count): (String, usize)| match count {
        0 | 1 => ok("ports", told),
        more => ok("ports", format!("{told}; `wtd-client list` shows {} more", more - 1)),
    };
    all.into_values().map(line).collect()
}

fn ok(check: &str, detail: String) -> Check {
    Check { check: check.to_owned(), status: CheckStatus::Ok, detail, remedy: String::new() }
}

fn warn(check: &str, detail: String, remedy: &str) -> Check {
    Check { check: check.to_owned(), status: CheckStatus::Warn, detail, remedy: remedy.to_owned() }
}

fn fail(check: &str, detail: String, remedy: &str) -> Check {
    Check { check: check.to_owned(), status: CheckStatus::Fail, detail, remedy: remedy.to_owned() }
}
