//! Whether a port can be had now.
//!
//! A probe is advice at the moment an offset is given; the registry is what keeps worktrees apart.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::listeners::Listeners;

/// Tells who has a port.
pub trait PortProbe {
    /// Who, outside the worktree at `worktree_root` (without symbolic links), has `port` now, in words that can follow the
    /// port; none when it is free or the worktree's own.
    fn busy(&self, port: u16, worktree_root: &Path) -> Option<String>;
}

/// The working directory of the Compose project whose container publishes a port
/// (`com.docker.compose.project.working_dir`), if one does.
type Containers = dyn Fn(u16) -> Option<PathBuf> + Send + Sync;

/// A probe of this machine: it binds the port, and if that fails looks for who listens.
pub struct SystemProbe {
    containers: Box<Containers>,
}

impl SystemProbe {
    /// A probe that asks `containers` for the working directory of the Compose project whose container
    /// publishes a port: the process that listens on a container's behalf works elsewhere.
    pub fn new(containers: impl Fn(u16) -> Option<PathBuf> + Send + Sync + 'static) -> Self {
        Self { containers: Box::new(containers) }
    }
}

/// A probe of a machine without containers.
impl Default for SystemProbe {
    fn default() -> Self {
        Self::new(|_| None)
    }
}

impl std::fmt::Debug for SystemProbe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemProbe").finish_non_exhaustive()
    }
}

impl PortProbe for SystemProbe {
    fn busy(&self, port: u16, worktree_root: &Path) -> Option<String> {
        match bind(port) {
            Ok(()) => return None,
            Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                return Some(format!("it can't be bound: {error}"));
            }
            Err(_) => {}
        }
        let listeners = Listeners::read().unwrap_or_default();
        if listeners.listening(port) {
            listeners.outsider_beside_containers(port, worktree_root, &self.containers)
        } else {
            unheard(port, &listeners)
        }
    }
}

/// Who has a port that could not be bound and on which nothing listens.
fn unheard(port: u16, listeners: &Listeners) -> Option<String> {
    if listeners.connected(port) {
        return Some("a connection has it as its local port".to_owned());
    }
    // What had it may be gone by now: another probe's bind lasts for a moment only.
    bind(port).err().map(|_| "something is bound to it".to_owned())
}

/// Binds a port on every address, as a server would, and lets it go.
fn bind(port: u16) -> io::Result<()> {
    let everywhere = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
    match bind_to(everywhere) {
        Err(error) if lacks_ipv6(&error) => bind_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?,
        bound => bound?,
    }
    if cfg!(target_os = "linux") {
        return Ok(());
    }
    // BSDs let a wildcard address be bound beside another socket's particular one.
    for address in
        [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), SocketAddr::from((Ipv6Addr::LOCALHOST, port))]
    {
        match bind_to(address) {
            Err(error) if lacks_ipv6(&error) => {}
            bound => bound?,
        }
    }
    Ok(())
}

/// `SO_REUSEADDR`, since connections that linger in `TIME_WAIT` don't hinder a server; and listening, since two
/// sockets with that option can both be bound, and only one of them can listen.
fn bind_to(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(1)
}

fn lacks_ipv6(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::AFNOSUPPORT | Errno::ADDRNOTAVAIL))
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::io::Read;
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::fd::OwnedFd;
    use std::process::{Child, Command, Stdio};

    use super::*;

    const NOWHERE: &str = "/nonexistent";

    /// A listener on a port that the kernel picks; none where the address family is missing.
    fn hold(address: &str, only_v6: bool, reuse: bool) -> Option<(Socket, u16)> {
        let address: SocketAddr = address.parse().unwrap();
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
        if address.is_ipv6() {
            socket.set_only_v6(only_v6).unwrap();
        }
        socket.set_reuse_address(reuse).unwrap();
        socket.bind(&address.into()).ok()?;
        socket.listen(1).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        Some((socket, port))
    }

    /// Whether a port is found free for a worktree. A child that another test starts has every socket of this
    /// process open for the moment between fork and exec, so one look is not enough.
    fn is_free_for(port: u16, root: &Path) -> bool {
        (0..1000).any(|_| SystemProbe::default().busy(port, root).is_none())
    }

    /// A process that works in `directory` and has a listener open, which this process has not.
    struct Elsewhere(Child, u16);

    impl Elsewhere {
        fn new(directory: &Path) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let port = listener.local_addr().unwrap().port();
            let child = Command::new("sleep")
                .arg("60")
                .current_dir(directory)
                .stdin(Stdio::from(OwnedFd::from(listener)))
                .spawn()
                .unwrap();
            Self(child, port)
        }
    }

    impl Drop for Elsewhere {
        fn drop(&mut self) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }

    #[test]
    fn every_listener_is_seen_whatever_it_is_bound_to() {
        let mut seen = 0;
        for (address, only_v6) in [
            ("127.0.0.1:0", false),
            ("127.0.0.2:0", false),
            ("0.0.0.0:0", false),
            ("[::1]:0", true),
            ("[::]:0", true),
            ("[::]:0", false),
        ] {
            for reuse in [true, false] {
                let Some((_holder, port)) = hold(address, only_v6, reuse) else { continue };
                let reason = SystemProbe::default().busy(port, Path::new(NOWHERE));
                let expected = format!("(pid {}) listens on it", std::process::id());
                assert!(
                    reason.as_ref().is_some_and(|reason| reason.ends_with(&expected)),
                    "{address} {reason:?}"
                );
                seen += 1;
            }
        }
        assert!(seen >= 6, "IPv4 at least");
    }

    #[test]
    fn a_port_that_nobody_has_is_free() {
        // The kernel may hand the port to somebody else as soon as it is let go.
        let free = (0..5).any(|_| {
            let (holder, port) = hold("127.0.0.1:0", false, false).unwrap();
            drop(holder);
            SystemProbe::default().busy(port, Path::new(NOWHERE)).is_none()
        });
        assert!(free);
    }

    #[test]
    fn connections_that_linger_do_not_count() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        let mut client = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let (accepted, _) = server.accept().unwrap();
        // Who closes first keeps the connection in TIME_WAIT.
        accepted.shutdown(Shutdown::Both).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        drop((client, accepted, server));
        let lingers = || {
            let entries = procfs::net::tcp().unwrap();
            let own = entries.iter().filter(|entry| entry.local_address.port() == port);
            own.map(|entry| entry.state.clone()).collect::<Vec<_>>() == [procfs::net::TcpState::TimeWait]
        };
        while !lingers() {
            std::thread::yield_now();
        }
        // On a machine that hands out ports quickly somebody else can have got this one meanwhile.
        assert_eq!(SystemProbe::default().busy(port, Path::new(NOWHERE)), None);
    }

    #[test]
    fn a_port_without_a_listener_is_busy_when_it_cannot_be_bound() {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let port = socket.local_addr().unwrap().as_socket().unwrap().port();
        assert_eq!(
            SystemProbe::default().busy(port, Path::new(NOWHERE)).as_deref(),
            Some("something is bound to it")
        );

        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
        let port = client.local_addr().unwrap().port();
        let reason = SystemProbe::default().busy(port, Path::new(NOWHERE));
        assert_eq!(reason.as_deref(), Some("a connection has it as its local port"));
    }

    #[test]
    fn what_listens_from_within_the_worktree_is_its_own() {
        let home = tempfile::tempdir().unwrap();
        for directory in ["app/api", "app-evil", "other"] {
            std::fs::create_dir_all(home.path().join(directory)).unwrap();
        }
        std::os::unix::fs::symlink("app", home.path().join("alias")).unwrap();
        let path = |below: &str| home.path().join(below);

        let server = Elsewhere::new(&path("app/api"));
        for own in ["app", "app/api"] {
            assert!(is_free_for(server.1, &path(own)), "{own}");
        }
        // A disk that hangs would hold up whoever is given an offset, so none is asked what a path leads to.
        assert!(SystemProbe::default().busy(server.1, &path("alias")).is_some());
        let told = || Listeners::read().unwrap().outsider(server.1, &path("alias"));
        assert!((0..1000).any(|_| told().is_none()), "where it may take its time it is");
        let reason = SystemProbe::default().busy(server.1, &path("other"));
        assert_eq!(reason, Some(format!("sleep (pid {}) listens on it", server.0.id())));

        let neighbour = Elsewhere::new(&path("app-evil"));
        assert!(
            SystemProbe::default().busy(neighbour.1, &path("app")).is_some(),
            "app-evil is not below app"
        );
    }

    #[test]
    fn one_stranger_among_those_who_listen_is_enough() {
        let home = tempfile::tempdir().unwrap();
        let (holder, port) = hold("127.0.0.1:0", false, true).unwrap();
        let mut child = Command::new("sleep")
            .arg("60")
            .current_dir(home.path())
            .stdin(Stdio::from(OwnedFd::from(holder.try_clone().unwrap())))
            .spawn()
            .unwrap();
        let with_this_process = SystemProbe::default().busy(port, home.path());
        drop(holder);
        let alone = is_free_for(port, home.path());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(with_this_process.is_some_and(|reason| reason.contains(&std::process::id().to_string())));
        assert!(alone);
    }

    #[test]
    fn a_container_belongs_to_its_compose_projects_directory() {
        let (_holder, port) = hold("0.0.0.0:0", false, true).unwrap();
        let published = move |asked| (asked == port).then(|| PathBuf::from("/w/app/deploy"));
        let probe = SystemProbe::new(published);
        assert_eq!(probe.busy(port, Path::new("/w/app")), None);
        assert_eq!(
            probe.busy(port, Path::new("/w/ap")).as_deref(),
            Some("a container of the Compose project in /w/app/deploy listens on it")
        );
    }

    #[test]
    fn without_ipv6_the_probe_binds_ipv4() {
        let missing = io::Error::from(Errno::AFNOSUPPORT);
        assert!(lacks_ipv6(&missing) && !lacks_ipv6(&io::Error::from(Errno::ADDRINUSE)));
        let (_holder, port) = hold("127.0.0.1:0", false, true).unwrap();
        let error = bind_to(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }
}
