//! The daemon's configuration: flags, else `WTD_*` variables, else the configuration file, else what is built in.

mod values;

use std::ffi::OsString;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use serde::Deserialize;
use wtd_protocol::contract::DEFAULT_STEP;

use crate::domain::port_ranges::PortRanges;
use crate::text::line_of;

/// The largest configuration file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

const DEFAULT_LOG: &str = "info";
const DEFAULT_RESYNC: Duration = Duration::from_mins(5);

/// The flags that bear on the configuration.
#[derive(Debug, Clone, clap::Args)]
#[expect(clippy::doc_markdown, reason = "these comments are the help text, where a backtick is a backtick")]
pub struct Flags {
    /// Configuration file [env: WTD_CONFIG] [default: $XDG_CONFIG_HOME/wtd/config.toml]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Directory of the registry [env: WTD_STATE_DIR] [default: $XDG_STATE_HOME/wtd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,

    /// Unix socket to answer on [env: WTD_SOCKET] [default: $XDG_RUNTIME_DIR/wtd/wtd.sock]
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// The keys of the configuration file, as flags.
    #[command(flatten)]
    pub settings: Settings,
}

/// What one source (flags, environment or file) says; none where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, clap::Args, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(clippy::doc_markdown, reason = "these comments are the help text, where a backtick is a backtick")]
pub struct Settings {
    /// Directory under which repositories are found by themselves; may be repeated [env: WTD_ROOTS, with colons]
    #[arg(long, value_name = "DIR", alias = "root")]
    #[serde(deserialize_with = "values::roots_in_file")]
    pub roots: Option<Vec<PathBuf>>,

    /// Ports that are never given, such as 8080,9000-9010; may be repeated [env: WTD_RESERVED_PORTS]
    #[arg(long, value_name = "PORTS")]
    #[serde(deserialize_with = "values::ports_in_file")]
    pub reserved_ports: Option<Vec<PortRanges>>,

    /// Whether offsets are passed over when something listens on a port [env: WTD_PROBE] [default: true]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          default_missing_value = "true")]
    pub probe: Option<bool>,

    /// Docker host, such as unix:///run/docker.sock, or none [env: WTD_ENGINE] [default: as docker finds it]
    #[arg(long, value_name = "HOST", value_parser = values::engine)]
    #[serde(deserialize_with = "values::engine_in_file")]
    pub engine: Option<Engine>,

    /// Time between looks at every repository, such as 5m; at least 1s [env: WTD_RESYNC] [default: 5m]
    #[arg(long, value_name = "TIME", value_parser = values::resync)]
    #[serde(deserialize_with = "values::resync_in_file")]
    pub resync: Option<Duration>,

    /// What is logged, as tracing's filter directives: info, or warn,wtd=debug [env: WTD_LOG] [default: info]
    #[arg(long, value_name = "FILTER", value_parser = values::log)]
    #[serde(deserialize_with = "values::log_in_file")]
    pub log: Option<String>,

    /// Distance between offsets, 1 to 60000 [env: WTD_STEP] [default: 10000]
    #[arg(long, value_name = "PORTS", value_parser = values::step)]
    #[serde(deserialize_with = "values::step_in_file")]
    pub step: Option<NonZeroU16>,

    /// Whether ports in the kernel's ephemeral range are passed over [env: WTD_AVOID_EPHEMERAL] [default: false]
    #[arg(long, value_name = "BOOL", value_parser = BoolishValueParser::new(), num_args = 0..=1,
          default_missing_value = "true")]
    pub avoid_ephemeral: Option<bool>,

    /// Loopback address to answer on over TCP as well, such as 127.0.0.1:7878 [env: WTD_LISTEN] [default: none]
    #[arg(long, value_name = "ADDRESS", value_parser = values::listen)]
    #[serde(deserialize_with = "values::listen_in_file")]
    pub listen: Option<SocketAddr>,
}

/// Where the container engine is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Engine {
    /// Wherever `DOCKER_HOST`, the current Docker context or the usual sockets say.
    Detect,
    /// There is none on this machine.
    None,
    /// At this Docker host.
    Host(String),
}

/// The daemon's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// The configuration file that was read, if there is one.
    pub file: Option<PathBuf>,
    /// The directory of the registry; absolute.
    pub state_dir: PathBuf,
    /// The socket that was asked for; none when it is to be where clients look first.
    pub socket: Option<PathBuf>,
    /// Directories under which repositories are found; absolute.
    pub roots: Vec<PathBuf>,
    /// Ports that are never given.
    pub reserved_ports: PortRanges,
    /// Whether ports are probed.
    pub probe: bool,
    /// Where the container engine is.
    pub engine: Engine,
    /// The time between looks at every repository.
    pub resync: Duration,
    /// What is logged: directives that `tracing_subscriber::EnvFilter` takes.
    pub log: String,
    /// The distance between the offsets that are tried first: 1 to 60000.
    pub step: NonZeroU16,
    /// Whether ports in the kernel's ephemeral range are passed over.
    pub avoid_ephemeral: bool,
    /// The loopback address to answer on over TCP as well.
    pub listen: Option<SocketAddr>,
}

/// Why there is no configuration to start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("{}: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: io::Error,
    },
    /// The file says something that can't be.
    #[error("{}:{line}: {reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// Why.
        reason: String,
    },
    /// An environment variable says something that can't be.
    #[error("environment variable {name}: {reason}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// Why.
        reason: String,
    },
    /// A path begins with `~`, and there is no home directory.
    #[error("{}: HOME is not set; write the path in full", .0.display())]
    NoHome(PathBuf),
    /// There is nowhere to keep the registry.
    #[error("no state directory: HOME is not set; give --state-dir or WTD_STATE_DIR")]
    NoStateDir,
    /// A relative path, and no working directory.
    #[error("{}: {source}", path.display())]
    NoWorkingDirectory {
        /// The path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Where the configuration comes from. The file is read anew by each [`Sources::load`].
#[derive(Debug, Clone)]
pub struct Sources {
    flags: Flags,
    variable: fn(&str) -> Option<OsString>,
    /// What relative paths in flags and variables are relative to: the daemon itself goes to `/`.
    directory: PathBuf,
}

impl Sources {
    /// The command line, the environment and the file that they name. Relative paths start from where the process
    /// is now.
    pub fn new(flags: Flags, variable: fn(&str) -> Option<OsString>) -> Self {
        // A working directory that is gone is an error to a relative path only.
        Self { flags, variable, directory: std::env::current_dir().unwrap_or_default() }
    }

    /// The configuration that they make now.
    pub fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags, &self.directory, self.variable)
    }

    /// The environment.
    pub fn variable(&self, name: &str) -> Option<OsString> {
        (self.variable)(name)
    }
}

impl Config {
    /// The configuration that flags, environment and file make together. `variable` looks up the environment; paths
    /// in both may be relative to `directory`.
    pub fn load(
        flags: &Flags,
        directory: &Path,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let home = variable("HOME").map(PathBuf::from);
        let place = |path: &Path| absolute(path, home.as_deref(), directory);
        let place_of = |flag: &Option<PathBuf>, name: &str| {
            flag.clone().or_else(|| variable(name).map(PathBuf::from)).map(|path| place(&path)).transpose()
        };

        let asked_for = place_of(&flags.config, "WTD_CONFIG")?;
        let (file, in_file) = read_file(asked_for, default_file(&variable))?;
        let settings = flags.settings.clone().or(values::from_environment(&variable)?).or(in_file);

        let state_dir = match place_of(&flags.state_dir, "WTD_STATE_DIR")? {
            Some(dir) => dir,
            None => wtd_protocol::socket::state_dir(variable).ok_or(ConfigError::NoStateDir)?,
        };
        let roots = settings.roots.unwrap_or_default();
        let mut reserved_ports = PortRanges::default();
        settings.reserved_ports.into_iter().flatten().for_each(|ports| reserved_ports.extend(ports));
        Ok(Self {
            file,
            state_dir,
            socket: place_of(&flags.socket, "WTD_SOCKET")?,
            roots: roots.iter().map(|root| place(root)).collect::<Result<_, _>>()?,
            reserved_ports,
            probe: settings.probe.unwrap_or(true),
            engine: settings.engine.unwrap_or(Engine::Detect),
            resync: settings.resync.unwrap_or(DEFAULT_RESYNC),
            log: settings.log.unwrap_or_else(|| DEFAULT_LOG.to_owned()),
            step: settings.step.unwrap_or(DEFAULT_STEP),
            avoid_ephemeral: settings.avoid_ephemeral.unwrap_or(false),
            listen: settings.listen,
        })
    }
}

impl Settings {
    /// These, and where they say nothing, what `lower` says.
    fn or(self, lower: Self) -> Self {
        Self {
            roots: self.roots.or(lower.roots),
            reserved_ports: self.reserved_ports.or(lower.reserved_ports),
            probe: self.probe.or(lower.probe),
            engine: self.engine.or(lower.engine),
            resync: self.resync.or(lower.resync),
            log: self.log.or(lower.log),
            step: self.step.or(lower.step),
            avoid_ephemeral: self.avoid_ephemeral.or(lower.avoid_ephemeral),
            listen: self.listen.or(lower.listen),
        }
    }
}

/// `$XDG_CONFIG_HOME/wtd/config.toml`, else `~/.config/wtd/config.toml`; a base directory that is not absolute
/// is ignored, as the XDG Base Directory Specification says.
fn default_file(variable: &impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let directory = |name: &str| variable(name).map(PathBuf::from).filter(|path| path.is_absolute());
    directory("XDG_CONFIG_HOME")
        .or_else(|| directory("HOME").map(|home| home.join(".config")))
        .map(|base| base.join("wtd/config.toml"))
}

/// The file that was asked for, which has to be there, or the default one, which need not be.
fn read_file(
    asked_for: Option<PathBuf>,
    default: Option<PathBuf>,
) -> Result<(Option<PathBuf>, Settings), ConfigError> {
    let must_exist = asked_for.is_some();
    let Some(path) = asked_for.or(default) else { return Ok((None, Settings::default())) };
    match read_text(&path) {
        Ok(text) => {
            let settings = parse(&path, &text)?;
            Ok((Some(path), settings))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound && !must_exist => {
            Ok((None, Settings::default()))
        }
        Err(why) => Err(ConfigError::Unreadable { path, why }),
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "the file is larger than 1 MiB"));
    }
    Ok(text)
}

pub(crate) fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    toml::from_str(text).map_err(|error| ConfigError::Invalid {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_of(text.as_bytes(), span.start)),
        reason: error.message().replace('\n', " "),
    })
}

/// A path with `~/` replaced, and made absolute by `directory`.
fn absolute(path: &Path, home: Option<&Path>, directory: &Path) -> Result<PathBuf, ConfigError> {
    let path = match (path.strip_prefix("~"), home) {
        (Ok(below), Some(home)) => home.join(below),
        (Ok(_), None) => return Err(ConfigError::NoHome(path.to_owned())),
        (Err(_), _) => directory.join(path),
    };
    std::path::absolute(&path).map_err(|source| ConfigError::NoWorkingDirectory { path, source })
}

#[cfg(test)]
mod tests;
