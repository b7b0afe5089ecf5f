//! Connecting to the daemon's socket: only to a socket, only to a server of the same user, and never longer than
//! the deadline.

use std::os::fd::OwnedFd;
use std::path::Path;

use nix::sys::socket::sockopt::PeerCredentials;
use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect as connect_to, socket_with,
};
use wtd_protocol::socket::MAX_PATH_BYTES;

use crate::deadline::Deadline;

/// Why there is no connection to a socket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ConnectError {
    /// There is no such socket.
    #[error("no daemon answers there")]
    Absent,
    /// There is a socket, and nobody listens on it.
    #[error("no daemon answers there")]
    Refused,
    /// There is something else.
    #[error("it is {0}, not a socket")]
    NotASocket(&'static str),
    /// A symbolic link to nothing.
    #[error("it is a symbolic link to nothing")]
    DanglingSymlink,
    /// The path does not fit into a socket's address (unix(7)).
    #[error("its path has {0} bytes, and a socket's can have {MAX_PATH_BYTES}")]
    TooLong(usize),
    /// Another user's process serves it.
    #[error("the server there runs as uid {0}, not as you")]
    OtherUser(u32),
    /// The server takes no connection within the time allowed.
    #[error("the server there takes no connection within the time allowed")]
    TimedOut,
    /// Any other failure.
    #[error("{0}")]
    Other(Errno),
}

impl ConnectError {
    /// Whether a daemon that is started now could serve this socket.
    pub(crate) const fn is_vacant(&self) -> bool {
        matches!(self, Self::Absent | Self::Refused)
    }
}

/// Connects to the socket at `path`, and makes sure that its server runs as the same user.
pub(crate) fn connect(path: &Path, deadline: Deadline) -> Result<OwnedFd, ConnectError> {
    let length = path.as_os_str().len();
    if length > MAX_PATH_BYTES {
        return Err(ConnectError::TooLong(length));
    }
    let address = SocketAddrUnix::new(path).map_err(ConnectError::Other)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).map_err(ConnectError::Other)?;
    match connect_to(&socket, &address) {
        Ok(()) => {}
        Err(Errno::AGAIN) => wait_for_room(&socket, &address, deadline)?,
        Err(errno) => return Err(explain(path, errno)),
    }
    let server = server_uid(&socket).map_err(ConnectError::Other)?;
    if server == rustix::process::geteuid().as_raw() {
        Ok(socket)
    } else {
        Err(ConnectError::OtherUser(server))
    }
}

/// The user that the server runs as, at the time of its listen(2): of the process that holds the name (unix(7)).
/// Asked through nix, since rustix has no value for the process id 0 that comes with it when the server is outside
/// of the client's PID namespace, as it is in a sandbox.
fn server_uid(socket: &OwnedFd) -> Result<u32, Errno> {
    nix::sys::socket::getsockopt(socket, PeerCredentials)
        .map(|credentials| credentials.uid())
        .map_err(|errno| Errno::from_raw_os_error(errno as i32))
}

/// Connects when the listener's queue was full. A Unix socket can't be polled for room there; a connect that
/// blocks waits for it, as long as the sending timeout says (unix(7), socket(7)).
fn wait_for_room(socket: &OwnedFd, address: &SocketAddrUnix, deadline: Deadline) -> Result<(), ConnectError> {
    let blocking = |on: bool| rustix::io::ioctl_fionbio(socket, !on).map_err(ConnectError::Other);
    blocking(true)?;
    loop {
        if deadline.is_over() {
            return Err(ConnectError::TimedOut);
        }
        set_socket_timeout(socket, Timeout::Send, deadline.remaining()).map_err(ConnectError::Other)?;
        match connect_to(socket, address) {
            Ok(()) => return blocking(false),
            Err(Errno::AGAIN) => return Err(ConnectError::TimedOut),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(ConnectError::Other(errno)),
        }
    }
}

/// What stands at `path`, when connecting to it failed with `errno`. The kernel says ECONNREFUSED of anything
/// that is no socket.
fn explain(path: &Path, errno: Errno) -> ConnectError {
    use std::os::unix::fs::FileTypeExt;
    match errno {
        Errno::NOENT if path.is_symlink() => ConnectError::DanglingSymlink,
        Errno::NOENT => ConnectError::Absent,
        Errno::CONNREFUSED => match std::fs::metadata(path).map(|found| found.file_type()) {
            Ok(kind) if kind.is_dir() => ConnectError::NotASocket("a directory"),
            Ok(kind) if kind.is_fifo() => ConnectError::NotASocket("a FIFO"),
            Ok(kind) if kind.is_file() => ConnectError::NotASocket("a file"),
            Ok(kind) if !kind.is_socket() => ConnectError::NotASocket("a device"),
            _ => ConnectError::Refused,
        },
        errno => ConnectError::Other(errno),
    }
}
