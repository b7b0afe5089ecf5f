//! Which TCP ports are listened on, by whom, and what the kernel does with ports by itself (procfs(5), tcp(7)).
//!
//! Only Linux tells. Elsewhere nothing is known to listen, and the probe has to do without a name.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::fs;
use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::domain::port_ranges::PortRanges;
use crate::text::plain;

/// The listening TCP sockets of this network namespace, at one moment.
#[derive(Debug, Default)]
pub struct Listeners {
    sockets: Vec<ListeningSocket>,
    /// Ports that are the local end of a connection.
    connected: BTreeSet<u16>,
    /// The processes that have each listening socket open; looked up when first asked for.
    holders: OnceLock<HashMap<u64, Vec<u32>>>,
}

#[derive(Debug, Clone, Copy)]
struct ListeningSocket {
    port: u16,
    inode: u64,
    uid: u32,
}

impl ListeningSocket {
    fn unseen_holder(&self) -> Holder {
        if self.uid == rustix::process::geteuid().as_raw() { Holder::Hidden } else { Holder::OtherUser }
    }
}

/// Who has a listening socket.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Holder {
    /// This process.
    Process {
        /// Its id.
        pid: u32,
        /// Its name, as `ps` shows it: one line, printable.
        name: String,
        /// Its working directory; none when that can't be told.
        directory: Option<PathBuf>,
    },
    /// A process of another user; who that is can't be told.
    OtherUser,
    /// A process of this user that can't be looked at: in another PID namespace, or protected.
    Hidden,
}

impl Holder {
    /// Whether this is a process that works in a directory or below it.
    pub fn works_in(&self, root: &Path) -> bool {
        matches!(self, Self::Process { directory: Some(directory), .. } if directory.starts_with(root))
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name, .. } => write!(f, "{name} (pid {pid})"),
            Self::OtherUser => f.write_str("a process of another user"),
            Self::Hidden => f.write_str("a process that can't be seen"),
        }
    }
}

impl Listeners {
    /// What listens now, over IPv4 and IPv6.
    #[cfg(target_os = "linux")]
    pub fn read() -> io::Result<Self> {
        use procfs::net::TcpState;

        let mut listeners = Self::default();
        for table in [procfs::net::tcp(), procfs::net::tcp6()] {
            let entries = match table {
                // Without IPv6 there is no table of it.
                Err(procfs::ProcError::NotFound(_)) => continue,
                table => table.map_err(io::Error::other)?,
            };
            for entry in entries {
                let port = entry.local_address.port();
                match entry.state {
                    TcpState::Listen => {
                        listeners.sockets.push(ListeningSocket { port, inode: entry.inode, uid: entry.uid });
                    }
                    TcpState::TimeWait => {}
                    _ => listeners.connected.extend([port]),
                }
            }
        }
        Ok(listeners)
    }

    /// Nothing, since this system doesn't tell.
    #[cfg(not(target_os = "linux"))]
    pub fn read() -> io::Result<Self> {
        Ok(Self::default())
    }

    /// Whether anything listens on a port.
    pub fn listening(&self, port: u16) -> bool {
        self.sockets.iter().any(|socket| socket.port == port)
    }

    /// Every port that is listened on.
    pub fn ports(&self) -> BTreeSet<u16> {
        self.sockets.iter().map(|socket| socket.port).collect()
    }

    /// Whether a port is the local end of a connection: one that was accepted on it, or an outgoing one that
    /// the kernel gave it to.
    pub fn connected(&self, port: u16) -> bool {
        self.connected.contains(&port)
    }

    /// Everyone who listens on a port, in order of process id. Looking processes up costs a walk through
    /// `/proc`, once for all ports.
    pub fn who(&self, port: u16) -> Vec<Holder> {
        let mut found = BTreeSet::new();
        for socket in self.sockets.iter().filter(|socket| socket.port == port) {
            match self.holders().get(&socket.inode) {
                Some(pids) => found.extend(pids.iter().map(|pid| process(*pid))),
                None => found.extend([socket.unseen_holder()]),
            }
        }
        found.into_iter().collect()
    }

    /// Who listens on a port from outside the worktree at `root`, in words that can follow the port; none when
    /// nobody does. For a machine without containers; see [`Listeners::outsider_beside_containers`].
    pub fn outsider(&self, port: u16, root: &Path) -> Option<String> {
        if !self.listening(port) {
            return None;
        }
        let real_root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
        self.outsider_beside_containers(port, &real_root, |_| None)
    }

    /// As [`Listeners::outsider`], where the process that listens may do so on a container's behalf and work
    /// elsewhere. No disk is asked: `root` has no symbolic links in it, as the working directories have none that the
    /// kernel tells. `published_by` tells the working directory of the Compose project whose container publishes
    /// a port (`com.docker.compose.project.working_dir`); it is asked only when the processes don't settle it.
    pub fn outsider_beside_containers(
        &self,
        port: u16,
        root: &Path,
        published_by: impl Fn(u16) -> Option<PathBuf>,
    ) -> Option<String> {
        if !self.listening(port) {
            return None;
        }
        let who = self.who(port);
        let stranger = who.iter().find(|holder| !holder.works_in(root))?;
        match published_by(port) {
            Some(directory) if directory.starts_with(root) => None,
            Some(directory) => {
                let directory = plain(&directory.to_string_lossy());
                Some(format!("a container of the Compose project in {directory} listens on it"))
            }
            None => Some(format!("{stranger} listens on it")),
        }
    }

    fn holders(&self) -> &HashMap<u64, Vec<u32>> {
        self.holders.get_or_init(|| {
            let mut holders: HashMap<u64, Vec<u32>> =
                self.sockets.iter().map(|socket| (socket.inode, Vec::new())).collect();
            for pid in process_ids() {
                for inode in socket_inodes(pid) {
                    if let Some(pids) = holders.get_mut(&inode)
                        && pids.last() != Some(&pid)
                    {
                        pids.push(pid);
                    }
                }
            }
            holders.retain(|_, pids| !pids.is_empty());
            holders
        })
    }
}

fn process_ids() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The sockets that a process has open; none if it is gone or can't be looked at.
fn socket_inodes(pid: u32) -> impl Iterator<Item = u64> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
    })
}

fn process(pid: u32) -> Holder {
    let name = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
    let name = plain(String::from_utf8_lossy(&name).trim_end_matches('\n'));
    Holder::Process {
        pid,
        name: if name.is_empty() { "a process".to_owned() } else { name },
        directory: fs::read_link(format!("/proc/{pid}/cwd")).ok(),
    }
}

/// The ports that the kernel gives to outgoing connections (`net.ipv4.ip_local_port_range`, ip(7)).
pub fn ephemeral_range() -> Option<RangeInclusive<u16>> {
    parse_range(&fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}

fn parse_range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.trim().split_once(char::is_whitespace)?;
    Some(first.parse().ok()?..=last.trim().parse().ok()?)
}

/// The ports that the kernel keeps for those who ask for them by number
/// (`net.ipv4.ip_local_reserved_ports`, ip(7)); none where it doesn't tell.
pub fn reserved_ports() -> Option<Vec<RangeInclusive<u16>>> {
    let list = fs::read_to_string("/proc/sys/net/ipv4/ip_local_reserved_ports").ok()?;
    Some(list.trim().parse::<PortRanges>().ok()?.ranges().to_vec())
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            let listeners = Listeners::read().unwrap();
            assert!(listeners.listening(port) && listeners.ports().contains(&port));
            let who = listeners.who(port);
            // A child of another test that has yet to become its program has the socket too.
            let own = who.iter().find_map(|holder| match holder {
                Holder::Process { pid, name, directory } if *pid == std::process::id() => {
                    Some((holder, pid, name, directory))
                }
                _ => None,
            });
            let Some((holder, pid, name, directory)) = own else { panic!("{who:?}") };
            assert!(!name.is_empty());
            assert_eq!(directory.as_deref(), std::env::current_dir().ok().as_deref());
            assert_eq!(holder.to_string(), format!("{name} (pid {pid})"));
        }
    }

    #[test]
    fn a_connection_is_not_a_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let port = stream.local_addr().unwrap().port();
        let listeners = Listeners::read().unwrap();
        assert!(!listeners.listening(port) && listeners.connected(port));
        assert_eq!(listeners.who(port), []);
    }

    #[test]
    fn a_socket_without_a_process_in_sight_is_somebodys() {
        let own = rustix::process::geteuid().as_raw();
        let sockets = vec![
            ListeningSocket { port: 1, inode: u64::MAX, uid: own },
            ListeningSocket { port: 2, inode: u64::MAX - 1, uid: own + 1 },
        ];
        let listeners = Listeners { sockets, ..Listeners::default() };
        assert_eq!(listeners.who(1), [Holder::Hidden]);
        assert_eq!(listeners.who(2), [Holder::OtherUser]);
        assert!(!listeners.who(2)[0].works_in(Path::new("/")));
    }

    #[test]
    fn working_in_a_directory_is_by_components() {
        let directory = Some(PathBuf::from("/w/app/api"));
        let holder = Holder::Process { pid: 1, name: "node".into(), directory };
        assert!(holder.works_in(Path::new("/w/app")) && holder.works_in(Path::new("/w/app/api")));
        assert!(!holder.works_in(Path::new("/w/ap")) && !holder.works_in(Path::new("/w/app/api/v1")));
    }

    #[test]
    fn the_kernels_ranges_are_read() {
        assert_eq!(parse_range("32768\t60999\n"), Some(32768..=60999));
        assert_eq!(parse_range("x"), None);
        assert!(ephemeral_range().is_some_and(|range| range.start() < range.end()));
        assert!(reserved_ports().unwrap().iter().all(|range| range.start() <= range.end()));
    }
}
