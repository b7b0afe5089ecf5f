//! What the figures were measured on; not the machine's name.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;

pub(crate) fn describe(scratch: &Path) -> anyhow::Result<Vec<(String, String)>> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(['=', ':'])
            .map(|(_, value)| value.trim().trim_matches('"').to_owned())
            .unwrap_or_default()
    };
    let memory_kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .split(' ')
        .next()
        .unwrap_or_default()
        .parse()
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().context("cores")?;
    let described = [
        ("CPU", field(&read("/proc/cpuinfo"), "model name")),
        ("cores", cores.to_string()),
        ("memory", format!("{} GiB", memory_kib.div_ceil(1024 * 1024))),
        (
            "system",
            format!(
                "{}, Linux {}",
                field(&read("/etc/os-release"), "PRETTY_NAME"),
                read("/proc/sys/kernel/osrelease").split(['-', '\n']).next().unwrap_or_default()
            ),
        ),
        ("file system", said(Command::new("stat").args(["-f", "-c", "%T"]).arg(scratch))),
        ("Rust", said(Command::new("rustc").arg("--version"))),
        ("git", said(Command::new("git").arg("--version"))),
        ("wtd", wtd_protocol::VERSION.to_owned()),
        ("load before", read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")),
    ];
    Ok(described.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// What a program prints, or `unknown`.
fn said(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).trim().to_owned(),
        _ => "unknown".to_owned(),
    }
}
