//! Open files that a process has from whoever started it.

use std::fs;
use std::os::fd::RawFd;

/// Closes whatever was inherited but standard input, output and error. A script that starts a daemon without knowing it
/// must not find its lock held, or the end of its pipe never come, for as long as the daemon lives.
///
/// Only at the very start, while nothing else has been opened and there is one thread.
pub fn close_inherited() {
    let Ok(entries) = fs::read_dir("/proc/self/fd") else { return };
    let names = entries.flatten().map(|entry| entry.file_name());
    let open: Vec<RawFd> = names.filter_map(|name| name.to_str()?.parse().ok()).collect();
    for descriptor in open.into_iter().filter(|descriptor| *descriptor > 2) {
        // That of the directory is closed already.
        nix::unistd::close(descriptor).ok();
    }
}
