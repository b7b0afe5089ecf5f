//! The daemon's socket: passed by systemd, or made here.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use listenfd::ListenFd;
use wtd_protocol::socket::{FILE_NAME, MAX_PATH_BYTES, candidates};

/// A symbolic link in place of the lock is not followed (open(2)): a person may have put the socket where others can
/// write.
#[allow(clippy::cast_possible_wrap, reason = "the flag is a small number")]
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// A Unix socket's address holds no longer path (unix(7)).
    #[error("the socket's path {} has {length} bytes, and {MAX_PATH_BYTES} are the most; set WTD_SOCKET to a shorter one", path.display())]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// The directory is not one that only we can write.
    #[error("{} is not a directory of ours alone ({why}); remove it, or set WTD_SOCKET", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// Something else is in the socket's place.
    #[error("{} exists and is not a socket; remove it, or set WTD_SOCKET", .0.display())]
    NotASocket(PathBuf),
    /// Another daemon serves it.
    #[error("the socket {} is served by another wtd; stop that one first", .0.display())]
    Served(PathBuf),
    /// The system refused.
    #[error("the socket {}: {source}", path.display())]
    Io {
        /// The socket, or what goes with it.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Systemd passed something else than one Unix socket.
    #[error(
        "systemd passed no listening Unix socket as the first descriptor: {0}; see `systemctl --user cat wtd.socket`"
    )]
    Inherited(String),
}

/// The listening socket.
#[derive(Debug)]
pub struct Socket {
    /// The listener, non-blocking.
    pub listener: UnixListener,
    /// Where it is.
    pub path: PathBuf,
    /// Whether systemd made it. Such a socket is never unlinked.
    pub inherited: bool,
    /// Device and inode of the socket's file, to unlink no other one.
    file: Option<(u64, u64)>,
    /// Held as long as we serve.
    lock: Option<File>,
}

impl Socket {
    /// Takes the socket that systemd passed, if it passed one (`sd_listen_fds(3)`).
    pub fn inherited(passed: &mut ListenFd) -> Result<Option<Self>, SocketError> {
        if passed.len() == 0 {
            return Ok(None);
        }
        let refused = |why: String| SocketError::Inherited(why);
        let listener = passed
            .take_unix_listener(0)
            .map_err(|error| refused(error.to_string()))?
            .ok_or_else(|| refused("it is missing".to_owned()))?;
        listener.set_nonblocking(true).map_err(|error| refused(error.to_string()))?;
        let address = listener.local_addr().map_err(|error| refused(error.to_string()))?;
        let path = address.as_pathname().map(Path::to_owned).unwrap_or_default();
        Ok(Some(Self { listener, path, inherited: true, file: None, lock: None }))
    }

    /// Where [`Socket::bind`] makes a socket: at `wanted`, or where clients look first.
    pub fn place(
        wanted: Option<&Path>,
        variable: impl Fn(&str) -> Option<OsString>,
        state_dir: &Path,
    ) -> PathBuf {
        let uid = rustix::process::geteuid().as_raw();
        wanted.map_or_else(|| place(variable, uid, state_dir), Path::to_owned)
    }

    /// Makes a socket at `path`; its directory has to be ours alone unless the path is `wanted` by a person. The umask
    /// has to be 077 already.
    pub fn bind(path: PathBuf, wanted: bool) -> Result<Self, SocketError> {
        let uid = rustix::process::geteuid().as_raw();
        let length = path.as_os_str().as_bytes().len();
        if length > MAX_PATH_BYTES {
            return Err(SocketError::TooLong { path, length });
        }
        let directory = path.parent().unwrap_or(Path::new("/"));
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| SocketError::Io { path, source }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed(directory))?;
        if !wanted {
            check_directory(directory, uid)?;
        }
        let lock = lock(&path)?;
        match path.symlink_metadata() {
            Ok(there) if !there.file_type().is_socket() => return Err(SocketError::NotASocket(path)),
            // Its owner is gone, since we have the lock.
            Ok(_) => std::fs::remove_file(&path).map_err(failed(&path))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(source) => return Err(SocketError::Io { path, source }),
        }
        let listener = UnixListener::bind(&path).map_err(failed(&path))?;
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed(&path))?;
        listener.set_nonblocking(true).map_err(failed(&path))?;
        let file = path.symlink_metadata().map(|there| (there.dev(), there.ino())).map_err(failed(&path))?;
        Ok(Self { listener, path, inherited: false, file: Some(file), lock: Some(lock) })
    }
}

/// Removes a socket's file when the daemon ends, unless systemd made it or it is another's by now.
#[derive(Debug)]
pub struct Unlink {
    path: PathBuf,
    file: Option<(u64, u64)>,
    /// Let go of after the file is removed.
    #[expect(dead_code, reason = "held, not used")]
    lock: Option<File>,
}

impl Socket {
    /// Parts the listener from what has to outlive it.
    pub fn into_parts(self) -> (UnixListener, Unlink) {
        (self.listener, Unlink { path: self.path, file: self.file, lock: self.lock })
    }
}

impl Unlink {
    /// Whether clients still find the socket; of one that systemd made, systemd knows. An error: it can't be told.
    pub fn is_in_place(&self) -> io::Result<bool> {
        self.file.map_or(Ok(true), |file| self.is(file))
    }

    fn is(&self, file: (u64, u64)) -> io::Result<bool> {
        match self.path.symlink_metadata() {
            Ok(there) => Ok((there.dev(), there.ino()) == file),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}

impl Drop for Unlink {
    fn drop(&mut self) {
        if self.file.is_some_and(|file| self.is(file).unwrap_or(false))
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            tracing::debug!(error = &error as &dyn std::error::Error, "socket not removed");
        }
    }
}

/// The first place that clients look at and that can be had: a runtime directory is made by the system, not by us.
fn place(variable: impl Fn(&str) -> Option<OsString>, uid: u32, state_dir: &Path) -> PathBuf {
    let mut places = candidates(variable, uid);
    let in_state_dir = state_dir.join(FILE_NAME);
    if places.last().is_none_or(|last| *last != in_state_dir) {
        places.push(in_state_dir.clone());
    }
    let has_base = |place: &&PathBuf| place.parent().and_then(Path::parent).is_some_and(Path::is_dir);
    places.iter().find(has_base).unwrap_or(&in_state_dir).clone()
}

fn check_directory(path: &Path, uid: u32) -> Result<(), SocketError> {
    let refused = |why: String| SocketError::Directory { path: path.to_owned(), why };
    let there =
        path.symlink_metadata().map_err(|source| SocketError::Io { path: path.to_owned(), source })?;
    if !there.is_dir() {
        return Err(refused("it is a link or a file".to_owned()));
    }
    if there.uid() != uid {
        return Err(refused(format!("uid {} owns it", there.uid())));
    }
    if there.mode() & 0o077 != 0 {
        return Err(refused(format!("its mode is {:o}", there.mode() & 0o7777)));
    }
    Ok(())
}

fn lock(socket: &Path) -> Result<File, SocketError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let failed = |source| SocketError::Io { path: path.clone(), source };
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(&path)
        .map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SocketError::Served(socket.to_owned())),
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_that_cannot_be_looked_at_is_not_taken_for_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (real, link) = (dir.path().join("real"), dir.path().join("link"));
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let (_listener, unlink) = Socket::bind(link.join("wtd.sock"), true).unwrap().into_parts();
        assert!(unlink.is_in_place().unwrap());

        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("link", &link).unwrap();
        assert!(unlink.is_in_place().is_err(), "the link leads to itself");

        std::fs::remove_file(&link).unwrap();
        assert!(!unlink.is_in_place().unwrap());
    }
}
