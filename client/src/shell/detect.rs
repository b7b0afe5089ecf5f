//! Which shell runs the client.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Refused, Shell};
use crate::daemon::variable;

/// Programs that stand between a shell and the client without being what the person types into.
const BETWEEN: [&[u8]; 12] = [
    b"make", b"gmake", b"sudo", b"doas", b"env", b"timeout", b"time", b"nice", b"nohup", b"setsid",
    b"stdbuf", b"strace",
];

/// How many ancestors are looked at.
const ANCESTORS: usize = 8;

/// The shell that runs the client: the nearest ancestor, past those that merely run commands; else what `$SHELL`
/// names; else a POSIX shell.
pub(crate) fn detect() -> Result<Shell, Refused> {
    ancestor()
        .map(|(shell, _)| shell)
        .or_else(|| {
            let shell = variable("SHELL")?;
            Shell::of_program(Path::new(&shell).file_name()?.as_bytes())
        })
        .unwrap_or(Ok(Shell::Sh))
}

/// The process id of the shell that runs the client; none where it is run by something else.
pub(crate) fn process() -> Option<u32> {
    ancestor().and_then(|(_, pid)| pid.try_into().ok())
}

/// The shell among the ancestors, and its process id.
fn ancestor() -> Option<(Result<Shell, Refused>, i32)> {
    let mut pid = rustix::process::getppid().map(|pid| pid.as_raw_nonzero().get())?;
    for _ in 0..ANCESTORS {
        let mut stat = [0; 512];
        let length = File::open(format!("/proc/{pid}/stat")).ok()?.read(&mut stat).ok()?;
        let (command, parent) = parse(stat.get(..length)?)?;
        if !BETWEEN.contains(&command) {
            return Shell::of_program(command).map(|shell| (shell, pid));
        }
        pid = parent;
    }
    None
}

/// The command and the parent's process id in `/proc/<pid>/stat` (proc(5)): `<pid> (<command>) <state> <parent> …`.
/// The command can hold anything, parentheses included, so its end is the last one.
fn parse(stat: &[u8]) -> Option<(&[u8], i32)> {
    let begin = stat.iter().position(|byte| *byte == b'(')? + 1;
    let end = stat.iter().rposition(|byte| *byte == b')')?;
    let parent = stat.get(end + 1..)?.split(|byte| *byte == b' ').nth(2)?;
    Some((stat.get(begin..end)?, std::str::from_utf8(parent).ok()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_hold_parentheses_and_spaces() {
        assert_eq!(parse(b"12 (bash) S 34 12 12 0"), Some((&b"bash"[..], 34)));
        assert_eq!(parse(b"12 (a) S 1 (b) R 34 12"), Some((&b"a) S 1 (b"[..], 34)));
        assert_eq!(parse(b"12 (bash"), None);
        assert_eq!(parse(b""), None);
    }

    #[test]
    fn programs_are_known_by_name() {
        assert_eq!(Shell::of_program(b"dash"), Some(Ok(Shell::Sh)));
        assert_eq!(Shell::of_program(b"tcsh"), Some(Err(Refused)));
        assert_eq!(Shell::of_program(b"python3"), None);
        for shell in Shell::ALL {
            assert_eq!(Shell::from_name(shell.name()), Ok(shell));
        }
    }
}
