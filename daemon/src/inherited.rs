//! What a process has from whoever started it.

use std::fs;
use std::os::fd::RawFd;

use nix::sys::signal::SigSet;

/// Lets go of what the caller of a daemon that is started on the way means for itself: its open files, and the signals
/// that it blocks.
///
/// Only at the very start, while nothing else has been opened and there is one thread.
pub fn let_go() {
    close_files();
    // With SIGTERM blocked the daemon would not end.
    SigSet::all().thread_unblock().ok();
}

/// Closes all descriptors but standard input, output and error. A script that starts a daemon without knowing it must
/// not find its lock held, or the end of its pipe never come, for as long as the daemon lives.
fn close_files() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let names = entries.flatten().map(|entry| entry.file_name());
    let open: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // That of the directory is closed already.
        nix::unistd::close(descriptor).ok();
    }
}
