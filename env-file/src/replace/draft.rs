//! The new file on its way to the name that it is for.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::OwnedFd;

use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, RenameFlags, fchmod, fstat, openat, renameat, renameat_with, unlinkat,
};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

use super::{Current, NewFile, keep_owner_and_mode, read, refuse_read_only};
use crate::keep::Why;

/// The beginning of a draft's name; the process id of its writer follows.
const BEGIN: &str = ".wtd-";

/// The end of a draft's name.
const DRAFT: &str = ".tmp";

/// The end of the name of a draft that changes places with the file.
const SAVED: &str = ".saved";

/// How often files are exchanged to put back what others save meanwhile.
const EXCHANGES: usize = 10;

/// A file beside the one that is replaced. What goes by its name is deleted when it goes, unless that is somebody else's.
pub(super) struct Draft<'d> {
    directory: &'d OwnedFd,
    name: String,
    bytes: Vec<u8>,
    is_ours: bool,
}

impl<'d> Draft<'d> {
    /// Writes a draft with the owner and the mode of `current`, durably.
    pub(super) fn write(
        directory: &'d OwnedFd,
        name: &OsStr,
        bytes: &[u8],
        current: Option<&Current>,
        new: NewFile,
    ) -> Result<Self, Why> {
        if let Some(current) = current {
            refuse_read_only(directory, name, &current.stat)?;
        }
        let (mut draft, mut file) = Self::create(directory, new)?;
        bytes.clone_into(&mut draft.bytes);
        match current {
            Some(current) => keep_owner_and_mode(&file, &current.stat),
            None if new == NewFile::LikeDirectory => fstat(directory).and_then(|stat| {
                let execute = Mode::XUSR | Mode::XGRP | Mode::XOTH;
                let all = Mode::RWXU | Mode::RWXG | Mode::RWXO;
                fchmod(&file, Mode::from_raw_mode(stat.st_mode) & all & !execute)
            }),
            None => Ok(()),
        }
        .map_err(|errno| Why::failed("setting its mode", errno))?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        written.map_err(|source| Why::Failed { what: "writing it", source })?;
        Ok(draft)
    }

    /// Creates a file that was not there, so that whatever has its name stays as it is.
    fn create(directory: &'d OwnedFd, new: NewFile) -> Result<(Self, File), Why> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut last = Errno::EXIST;
        for number in 0..100 {
            let name = format!("{BEGIN}{}-{number}{DRAFT}", std::process::id());
            match openat(directory, &name, flags, new.create_mode(false)) {
                Ok(file) => {
                    return Ok((Self { directory, name, bytes: Vec::new(), is_ours: true }, file.into()));
                }
                Err(Errno::EXIST) => {}
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
        Err(Why::failed("making a file beside it", last))
    }

    /// Gives the draft the name that it is for, if what has that name is still `current`; false when it is not.
    /// `exchanged` is called after each exchange, with their number.
    pub(super) fn put_in_place(
        mut self,
        name: &OsStr,
        current: Option<&Current>,
        exchanged: &mut dyn FnMut(usize),
    ) -> Result<bool, Why> {
        let failed = |errno| Why::failed("replacing it", errno);
        let Some(current) = current else {
            return match renameat_with(
                self.directory,
                &self.name,
                self.directory,
                name,
                RenameFlags::NOREPLACE,
            ) {
                Ok(()) => Ok(true),
                Err(Errno::EXIST) => Ok(false),
                Err(errno) if is_unsupported(errno) => self.replace_unless_changed(name, None),
                Err(errno) => Err(failed(errno)),
            };
        };
        match self.take_lasting_name() {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(false),
            Err(errno) if is_unsupported(errno) => return self.replace_unless_changed(name, Some(current)),
            Err(errno) => return Err(failed(errno)),
        }
        match self.exchange(name) {
            Ok(()) => {}
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) if is_unsupported(errno) => return self.replace_unless_changed(name, Some(current)),
            Err(errno) => return Err(failed(errno)),
        }
        exchanged(1);
        let first = self.content();
        if matches!(&first, Ok(Some(replaced)) if replaced.bytes == current.bytes) {
            return Ok(true);
        }
        // Somebody saved it in between: their file goes back. What it then takes the place of has to be what was put there
        // before, or else it is a later save, and goes back in its turn.
        let (mut expected, mut held) = (Content::Text(self.bytes.clone()), Content::of(first.as_ref()));
        for number in 2..2 + EXCHANGES {
            if let Err(errno) = self.exchange(name) {
                // What is held is somebody's, and nothing has its name: it can only be left where it is.
                self.is_ours = false;
                return Err(failed(errno));
            }
            exchanged(number);
            let now = Content::of(self.content().as_ref());
            if now == expected {
                return first.map(|_| false);
            }
            (expected, held) = (held, now);
        }
        self.is_ours = false;
        Err(Why::Busy)
    }

    /// Takes a name that [`sweep`] leaves alone: for a moment a file that somebody has saved may go by it, and if this
    /// program is killed then, for ever.
    fn take_lasting_name(&mut self) -> Result<(), Errno> {
        let lasting = format!("{}{SAVED}", self.name.strip_suffix(DRAFT).unwrap_or(&self.name));
        renameat_with(self.directory, &self.name, self.directory, &lasting, RenameFlags::NOREPLACE)?;
        self.name = lasting;
        Ok(())
    }

    fn exchange(&self, name: &OsStr) -> Result<(), Errno> {
        renameat_with(self.directory, &self.name, self.directory, name, RenameFlags::EXCHANGE)
    }

    /// What goes by the draft's name.
    fn content(&self) -> Result<Option<Current>, Why> {
        read(self.directory, OsStr::new(&self.name))
    }

    /// As well as it can be done where the file system doesn't know the flags (rename(2)).
    fn replace_unless_changed(&self, name: &OsStr, current: Option<&Current>) -> Result<bool, Why> {
        let now = read(self.directory, name)?;
        if now.as_ref().map(|now| &now.bytes) != current.map(|current| &current.bytes) {
            return Ok(false);
        }
        renameat(self.directory, &self.name, self.directory, name)
            .map_err(|errno| Why::failed("replacing it", errno))?;
        Ok(true)
    }
}

/// What was found under a name.
#[derive(PartialEq, Eq)]
enum Content {
    /// A regular file with these bytes.
    Text(Vec<u8>),
    /// Anything else.
    Other,
}

impl Content {
    fn of(read: Result<&Option<Current>, &Why>) -> Self {
        match read {
            Ok(Some(current)) => Self::Text(current.bytes.clone()),
            _ => Self::Other,
        }
    }
}

const fn is_unsupported(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::NOSYS | Errno::NOTSUP)
}

impl Drop for Draft<'_> {
    fn drop(&mut self) {
        // It may have been renamed; and where it can't be deleted it is in nobody's way.
        if self.is_ours {
            unlinkat(self.directory, &self.name, AtFlags::empty()).ok();
        }
    }
}

/// Deletes drafts whose writers were killed. Only for whoever has the directory's lock, which every writer holds for as long
/// as it has a draft.
pub(super) fn sweep(directory: &OwnedFd) {
    let Ok(entries) = Dir::read_from(directory) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_str().is_ok_and(is_left_behind) {
            unlinkat(directory, entry.file_name(), AtFlags::empty()).ok();
        }
    }
}

/// Whether a name is that of a draft whose writer is no more.
fn is_left_behind(name: &str) -> bool {
    let middle = name.strip_prefix(BEGIN).and_then(|rest| rest.strip_suffix(DRAFT));
    let Some((pid, number)) = middle.and_then(|middle| middle.split_once('-')) else { return false };
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    let pid = pid.parse().ok().and_then(Pid::from_raw);
    is_number && pid.is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}
