//! An end to a test that would have none: what it waits for is killed, so that it fails by that, and the others go on.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a test may take on a machine that is busy with others; the longest take a minute on a quiet one.
const LIMIT: Duration = Duration::from_mins(8);

/// How long it may take from then on until it has failed.
const FAILING: Duration = Duration::from_mins(1);

/// Watches over a test as long as it lives.
pub(super) struct Limit {
    _ends: Sender<()>,
}

impl Limit {
    /// For the test of this thread, whose programs have `root` in their environment.
    pub(super) fn of_programs_in(root: &Path) -> Self {
        let (ends, ended) = mpsc::channel();
        let root = root.to_owned();
        let test = thread::current().name().unwrap_or("a test").to_owned();
        let soak = std::env::var("WTD_SOAK_MINUTES").ok().and_then(|minutes| minutes.parse().ok());
        let limit = LIMIT + Duration::from_mins(soak.unwrap_or(0));
        thread::spawn(move || {
            if ended.recv_timeout(limit) != Err(RecvTimeoutError::Timeout) {
                return;
            }
            eprintln!("{test} has not ended within {limit:?}; what it has started is killed:");
            kill_programs_in(&root);
            if ended.recv_timeout(FAILING) == Err(RecvTimeoutError::Timeout) {
                // What is printed in the usual way is shown when its test has ended.
                writeln!(io::stderr(), "{test} does not end; the tests do").ok();
                std::process::abort();
            }
        });
        Self { _ends: ends }
    }
}

/// Kills every process that was started in a sandbox's environment, and names it.
fn kill_programs_in(root: &Path) {
    let is_in = |environment: &[u8]| {
        let root = root.as_os_str().as_bytes();
        environment.windows(root.len()).any(|window| window == root)
    };
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) =
            process.file_name().to_str().and_then(|name| name.parse().ok()).and_then(Pid::from_raw)
        else {
            continue;
        };
        // It may have ended meanwhile.
        if fs::read(process.path().join("environ")).is_ok_and(|environment| is_in(&environment)) {
            let words = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let words: Vec<_> = words.split(|byte| *byte == 0).map(OsStr::from_bytes).collect();
            eprintln!("  {}: {}", pid.as_raw_nonzero(), words.join(OsStr::new(" ")).display());
            kill_process(pid, Signal::KILL).ok();
        }
    }
}
