//! Which file systems are mounted. With a file system that goes, the kernel drops every watch on it, and `notify` says
//! nothing of that; when it is mounted again, every name is there as before, and nothing of it is watched.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The kernel's list; `poll` tells of every change to it (`proc_pid_mountinfo(5)`).
const TABLE: &str = "/proc/self/mountinfo";

/// `STATX_MNT_ID_UNIQUE` (Linux 6.8): a number that no later mount has. The numbers in the table are given again at once.
const UNIQUE: StatxFlags = StatxFlags::from_bits_retain(0x4000);

/// The mount points, as they were when last looked at.
#[derive(Debug)]
pub struct Mounts {
    table: AsyncFd<File>,
    /// With the number of what is mounted there, where it was asked for and the kernel has one.
    known: BTreeMap<PathBuf, Option<u64>>,
    number: fn(&Path) -> Option<u64>,
    tells_apart: bool,
}

impl Mounts {
    /// Listens from now on. Within a runtime.
    pub fn listen() -> io::Result<Self> {
        // The kernel calls the file always readable; its news are told out of band.
        #[expect(deprecated, reason = "what replaces it is unsafe code, for the sake of others than `File`")]
        let table = AsyncFd::with_interest(File::open(TABLE)?, Interest::PRIORITY)?;
        // Read after it was opened: what changes from then on is told.
        let known = Self::read()?.into_iter().map(|point| (point, None)).collect();
        Ok(Self { table, known, number, tells_apart: true })
    }

    /// Whether at the last look the kernel told one mount of interest from the next at the same place. Where it can't,
    /// every mount anywhere is taken for one at each place of interest.
    pub fn tells_apart(&self) -> bool {
        self.tells_apart
    }

    /// Resolves when something was mounted or unmounted.
    pub async fn changed(&self) -> io::Result<()> {
        self.table.ready(Interest::PRIORITY).await?.clear_ready();
        Ok(())
    }

    /// The mount points at which something else is mounted than at the last look, among those in which somebody is
    /// interested. Where the kernel can't tell, it is taken to be something else. Blocks.
    pub fn differing(&mut self, is_of_interest: impl Fn(&Path) -> bool) -> io::Result<Vec<PathBuf>> {
        let now = Self::read()?;
        let known = std::mem::take(&mut self.known);
        let mut differing = Vec::new();
        self.tells_apart = true;
        for point in now.iter().chain(known.keys().filter(|point| !now.contains(*point))) {
            let is_there = now.contains(point);
            let is_of_interest = is_of_interest(point);
            let number = if is_there && is_of_interest { (self.number)(point) } else { None };
            self.tells_apart &= number.is_some() || !is_there || !is_of_interest;
            let before = known.get(point).copied().flatten();
            if is_of_interest && (number.is_none() || number != before) {
                differing.push(point.clone());
            }
            if is_there {
                self.known.insert(point.clone(), number);
            }
        }
        Ok(differing)
    }

    /// All mount points but the root, which nobody unmounts under us.
    fn read() -> io::Result<BTreeSet<PathBuf>> {
        let table = std::fs::read(TABLE)?;
        let points = table.split(|byte| *byte == b'\n').filter_map(mount_point);
        Ok(points.filter(|point| point != Path::new("/")).collect())
    }
}

/// The fifth field of a line.
fn mount_point(line: &[u8]) -> Option<PathBuf> {
    let field = line.split(|byte| *byte == b' ').nth(4)?;
    let mut path = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((first, after)) = rest.split_first() {
        // White space and backslashes are three octal digits.
        let escaped = (*first == b'\\').then(|| after.split_at_checked(3)).flatten();
        let byte = escaped.and_then(|(digits, after)| {
            let digits = std::str::from_utf8(digits).ok()?;
            Some((u8::from_str_radix(digits, 8).ok()?, after))
        });
        let (byte, after) = byte.unwrap_or((*first, after));
        path.push(byte);
        rest = after;
    }
    Some(PathBuf::from(OsString::from_vec(path)))
}

/// The number of what is mounted at `point`.
fn number(point: &Path) -> Option<u64> {
    let flags = AtFlags::NO_AUTOMOUNT | AtFlags::SYMLINK_NOFOLLOW | AtFlags::STATX_DONT_SYNC;
    let there = statx(CWD, point, flags, UNIQUE).ok()?;
    StatxFlags::from_bits_retain(there.stx_mask).contains(UNIQUE).then_some(there.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_point_is_read_whatever_its_name() {
        let line = b"36 35 98:0 /mnt1 /mnt/a\\040b\\134c\\011d rw,noatime master:1 - ext3 /dev/root rw";
        assert_eq!(mount_point(line).unwrap(), Path::new("/mnt/a b\\c\td"));
        assert_eq!(mount_point(b"36 35 98:0 /mnt1 /mnt\\9x rw").unwrap(), Path::new("/mnt\\9x"));
        assert_eq!(mount_point(b""), None);
    }

    #[tokio::test]
    async fn what_is_of_no_interest_is_not_asked_for_and_what_was_not_asked_for_differs_once() {
        let mut mounts = Mounts { number: |_| Some(1), ..Mounts::listen().unwrap() };
        assert_eq!(mounts.differing(|_| false).unwrap(), Vec::<PathBuf>::new());
        let proc = Path::new("/proc");
        assert_eq!(mounts.differing(|point| point == proc).unwrap(), [proc]);
        assert_eq!(mounts.differing(|point| point == proc).unwrap(), Vec::<PathBuf>::new());
        mounts.number = |_| Some(2);
        assert_eq!(mounts.differing(|point| point == proc).unwrap(), [proc]);
        assert!(mounts.tells_apart());
    }

    #[tokio::test]
    async fn without_numbers_each_look_is_taken_for_a_change_and_that_is_known() {
        let mut mounts = Mounts { number: |_| None, ..Mounts::listen().unwrap() };
        assert_eq!(mounts.differing(|_| false).unwrap(), Vec::<PathBuf>::new());
        assert!(mounts.tells_apart(), "nobody wanted to know");
        let proc = Path::new("/proc");
        for _ in 0..2 {
            assert_eq!(mounts.differing(|point| point == proc).unwrap(), [proc]);
            assert!(!mounts.tells_apart());
        }
    }
}
