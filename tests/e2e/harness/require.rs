//! Parts that a test needs and a machine may lack. A test without them is skipped by name; `WTD_TEST_REQUIRE=all`
//! makes that a failure.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where a program is on PATH.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// Whether a command succeeds.
pub(crate) fn works(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// Whether a test may go on. Where `is_there` is false it is counted as skipped: in a line on standard error, past
/// the test runner's capture, and in the file that `WTD_TEST_SKIPPED` names.
pub(crate) fn part(is_there: bool, why: &str) -> bool {
    if is_there {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("skipped: {test}: {why}\n");
    assert!(std::env::var_os("WTD_TEST_REQUIRE").is_none_or(|value| value != "all"), "{line}");
    drop(std::io::stderr().write_all(line.as_bytes()));
    if let Some(file) = std::env::var_os("WTD_TEST_SKIPPED") {
        let mut file = OpenOptions::new().append(true).create(true).open(file).unwrap();
        file.write_all(line.as_bytes()).unwrap();
    }
    false
}

/// As [`part`], for what no machine is asked to have: said, and never a failure.
pub(crate) fn wish(is_there: bool, why: &str) -> bool {
    if !is_there {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        drop(std::io::stderr().write_all(format!("passed over: {test}: {why}\n").as_bytes()));
    }
    is_there
}

/// Whether a program is installed.
pub(crate) fn program(name: &str) -> bool {
    part(find(name).is_some(), &format!("{name} is not installed"))
}

/// Whether `docker compose` is there, and new enough to replace lists (2.24.4). No engine is needed.
pub(crate) fn compose() -> bool {
    let version = Command::new("docker").args(["compose", "version", "--short"]).output();
    let text =
        version.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default();
    let mut numbers = text
        .trim_start_matches('v')
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|part| part.parse::<u32>().ok());
    let version = [numbers.next(), numbers.next(), numbers.next()].map(Option::unwrap_or_default);
    part(version >= [2, 24, 4], &format!("docker compose 2.24.4 or newer is not installed ({text})"))
}

/// Whether git is at least of this version. Which one a system has is not ours to ask.
pub(crate) fn git(major: u32, minor: u32) -> bool {
    let output = Command::new("git").arg("version").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let mut numbers =
        text.trim_start_matches("git version ").split('.').map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    wish(
        version >= (major, minor),
        &format!("git {major}.{minor} or newer is not installed ({})", text.trim()),
    )
}

/// Whether this process is root, and so can become another user.
pub(crate) fn root() -> bool {
    let can = rustix::process::geteuid().is_root()
        && works(Command::new("setpriv").args(["--reuid=65534", "--regid=65534", "--clear-groups", "true"]));
    part(can, "becoming another user takes root and setpriv")
}

/// Whether there is a user without privileges: this one, or one that root can become.
pub(crate) fn unprivileged() -> bool {
    !rustix::process::geteuid().is_root() || root()
}

/// Whether a file system can be mounted at `directory`.
pub(crate) fn mounts(directory: &Path) -> bool {
    let can = works(Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(directory))
        && works(Command::new("umount").arg(directory));
    part(can, "mounting is not permitted")
}

/// Whether a user namespace can be made.
pub(crate) fn user_namespaces() -> bool {
    part(works(Command::new("unshare").args(["-Ur", "true"])), "user namespaces are not permitted")
}
