//! Faults that the kernel seems to make: system calls of a running program that fail, or that it does not survive
//! (strace(1), "Tampering").

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{Daemon, require};

/// A program whose system calls are tampered with for as long as this lives.
pub(crate) struct Tampering(Child);

impl Tampering {
    /// Whether this can be done here.
    pub(crate) fn is_possible() -> bool {
        require::program("strace")
            && require::part(
                require::works(Command::new("strace").args(["-qq", "-o", "/dev/null", "true"])),
                "tracing processes is not permitted",
            )
    }

    /// The options of strace(1) that tamper with `calls` as `how` says: `error=EIO`, `signal=KILL:when=2`.
    pub(crate) fn options(calls: &str, how: &str) -> [String; 4] {
        ["-e".into(), format!("trace={calls}"), "-e".into(), format!("inject={calls}:{how}")]
    }

    /// Tampers with a running daemon, from now on.
    pub(crate) fn with(daemon: &Daemon<'_>, calls: &str, how: &str) -> Self {
        Self::attach(daemon, &Self::options(calls, how))
    }

    /// As [`Tampering::with`], with those of the calls that concern one file.
    pub(crate) fn at(daemon: &Daemon<'_>, file: &str, calls: &str, how: &str) -> Self {
        let options = Self::options(calls, how);
        Self::attach(daemon, &[&["-P".to_owned(), file.to_owned()], &options[..]].concat())
    }

    fn attach(daemon: &Daemon<'_>, options: &[String]) -> Self {
        let mut child = Command::new("strace")
            .args(["-f", "-o", "/dev/null", "-p", &daemon.pid().to_string()])
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stderr = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        // It tells first what a path leads to.
        while !said.contains("attached") {
            assert_ne!(stderr.read_line(&mut said).unwrap(), 0, "{said}");
        }
        // It says more about each thread that comes and goes, and must not be held up by that.
        std::thread::spawn(move || drop(stderr.read_to_end(&mut Vec::new())));
        Self(child)
    }
}

impl Drop for Tampering {
    fn drop(&mut self) {
        // It lets go of what it traces.
        let ended = kill_process(Pid::from_child(&self.0), Signal::TERM);
        assert!(ended.is_ok() || std::thread::panicking(), "{ended:?}");
        drop(self.0.wait());
    }
}
