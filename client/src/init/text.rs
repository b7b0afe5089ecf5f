//! The text of a `wtd.toml`.

use std::collections::BTreeMap;
use wtd_protocol::contract::VOLUME_STEM;

use super::declared::{Declared, Port};
use crate::compose::yaml::quoted;

/// Where the file's content comes from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// From these Compose files.
    Files(&'a str),
    /// From nothing, for this reason.
    Nothing(&'a str),
}

/// The file. What is in a comment can be used by taking the `#` away.
/// `directory` is the main worktree's.
pub(crate) fn wtd_toml(declared: &Declared, directory: &str, source: &Source<'_>) -> String {
    let mut lines = vec![
        "# What this repository's worktrees have of their own; see `wtd-client list`.".to_owned(),
        match source {
            Source::Files(files) => format!("# Made by `wtd-client init` from {}.", plain(files)),
            Source::Nothing(why) => format!("# Made by `wtd-client init` as a template: {}.", plain(why)),
        },
        String::new(),
    ];
    let project = declared.project.clone();
    let own = wtd_protocol::names::project_name(directory);
    lines.push(entry(
        project.is_some(),
        &format!("project = {}", quoted(project.as_deref().unwrap_or(&own))),
        "what names begin with; else the main worktree's directory",
    ));
    lines.push(entry(
        false,
        "shared = [\"pip_cache\"]",
        "volumes of the Compose files that all worktrees use",
    ));

    lines.extend(
        ["", "# A worktree's port is the one here plus the worktree's offset (0, 10000, 20000 …)."]
            .map(str::to_owned),
    );
    lines.push("[ports]".to_owned());
    if !declared.ports.iter().any(|port| port.variable == "DB_HOST_PORT") {
        lines.push(entry(false, "DB_HOST_PORT = 5432", "there unless it is changed"));
    }
    lines.extend(declared.ports.iter().map(port));
    if declared.ports.is_empty() {
        lines.push(entry(false, "UI_PORT = 3000", ""));
    }

    lines.extend(["", "[database]"].map(str::to_owned));
    lines.push(entry(
        false,
        "mode = \"isolated\"",
        "or \"database\", \"schema\", \"shared\": one server for all worktrees",
    ));
    let (name, is_same) = declared.database.clone().unwrap_or((own, false));
    lines.push(entry(
        declared.database.is_some(),
        &format!("name = {}", quoted(&name)),
        "what POSTGRES_DB begins with",
    ));
    if is_same {
        lines.push(entry(
            true,
            "name_per_worktree = false",
            "the Compose file gives it this name in every worktree",
        ));
    } else {
        lines.push(entry(false, "name_per_worktree = false", "the same name in each worktree's own server"));
    }
    let volume = declared.volume.as_deref();
    lines.push(entry(
        volume.is_some(),
        &format!("volume = {}", quoted(volume.unwrap_or(VOLUME_STEM))),
        "what DB_VOLUME begins with",
    ));

    lines.extend(["", "# Further volumes, one for each worktree."].map(str::to_owned));
    lines.push("[volumes]".to_owned());
    lines.extend(declared.volumes.iter().map(|(variable, stem)| format!("{variable} = {}", quoted(stem))));
    if declared.volumes.is_empty() {
        lines.push(entry(false, "REDIS_VOLUME = \"redis_data\"", ""));
    }

    let templates =
        ["", "# Further variables, and files that are kept with all of them. They take `wtd-client trust`."];
    lines.extend(templates.map(str::to_owned));
    lines.extend(env(&declared.aliases));
    lines.push(entry(false, "[files]", ""));
    lines.push(entry(false, "env = [\"env/wtd.env\"]", ""));
    crate::output::lines(lines)
}

fn env(aliases: &BTreeMap<String, String>) -> Vec<String> {
    if aliases.is_empty() {
        return vec![
            entry(false, "[env]", ""),
            entry(false, "DATABASE_URL = \"postgresql://localhost:{DB_HOST_PORT}/{POSTGRES_DB}\"", ""),
        ];
    }
    let template = |(own, other): (&String, &String)| format!("{own} = {}", quoted(&format!("{{{other}}}")));
    std::iter::once("[env]".to_owned()).chain(aliases.iter().map(template)).collect()
}

fn port(port: &Port) -> String {
    let Port { variable, base, service, is_guess, is_low } = port;
    let mut remark = plain(service);
    if *is_guess {
        remark.push_str(": the container's port; the Compose file does not say the host's");
    }
    if *is_low {
        remark
            .push_str(": below 1024, so `wtd-client compose` moves it, but nobody is given an offset for it");
    }
    entry(!is_low, &format!("{variable} = {base}"), &remark)
}

/// A line, or one that is only mentioned, with a remark.
fn entry(is_used: bool, text: &str, remark: &str) -> String {
    let text = if is_used { text.to_owned() } else { format!("# {text}") };
    if remark.is_empty() { text } else { format!("{text:<31} # {remark}") }
}

/// Text of strangers in a comment: one line.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
