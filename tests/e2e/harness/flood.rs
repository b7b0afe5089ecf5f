//! More events than the kernel keeps (inotify(7)).

use std::fs::{self, File};
use std::io;
use std::path::Path;

use super::require;

/// How many events a watch of ours gets for a file that is made and deleted: create, open, close, delete.
const EVENTS: usize = 4;

/// How many events the kernel keeps for one who doesn't read them; none where filling the queue would take too long.
fn queue_length() -> Option<usize> {
    let limit = fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").ok()?;
    limit.trim().parse().ok().filter(|limit| *limit <= 100_000)
}

/// Whether [`overflow_queue`] can be done here; where it can't, the test is skipped.
pub(crate) fn can_overflow_queue() -> bool {
    require::part(queue_length().is_some(), "the event queue of this machine is too long to fill")
}

/// Makes more events in a watched directory than the kernel keeps for a daemon that stands still.
pub(crate) fn overflow_queue(directory: &Path) -> Result<(), String> {
    let flood = || -> io::Result<()> {
        let noise = directory.join("noise");
        for _ in 0..=queue_length().unwrap_or(0) / EVENTS {
            File::create(&noise)?;
            fs::remove_file(&noise)?;
        }
        Ok(())
    };
    flood().map_err(|error| format!("{}: {error}", directory.display()))
}
