//! Where a container engine is.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::EngineError;

/// The longest path of a Unix socket (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// A Docker host that wtd can speak to: a Unix socket, or plain HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Host(String);

impl Host {
    /// The host of this address. It may come from a repository's `.envrc`, so nothing but an address passes.
    pub fn new(address: &str) -> Result<Self, EngineError> {
        let refuse = |why| EngineError::Address { address: address.chars().take(200).collect(), why };
        if let Some(path) = address.strip_prefix("unix://") {
            let is_path = path.starts_with('/') && !path.contains(char::is_control) && !path.contains("://");
            return match is_path {
                true if path.len() <= MAX_SOCKET_PATH => Ok(Self(address.to_owned())),
                true => Err(refuse("the socket's path is too long")),
                false => Err(refuse("the socket's path has to be absolute")),
            };
        }
        if let Some(authority) = ["tcp://", "http://"].iter().find_map(|scheme| address.strip_prefix(scheme))
        {
            let authority = authority.strip_suffix('/').unwrap_or(authority);
            let of_an_authority =
                |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
            let is_authority = !authority.is_empty() && authority.chars().all(of_an_authority);
            let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            return match (is_authority, has_port) {
                (true, true) => Ok(Self(format!("tcp://{authority}"))),
                (true, false) => Ok(Self(format!("tcp://{authority}:2375"))),
                (false, _) => Err(refuse("it is not a host and port")),
            };
        }
        Err(refuse(if address.starts_with("ssh://") || address.starts_with("https://") {
            "wtd speaks to Unix sockets and plain TCP only; forward a socket, and name that"
        } else {
            "it has to begin with unix:// or tcp://"
        }))
    }

    /// The address.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Where an engine was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    /// At this Docker host.
    Host(Host),
    /// There is none on this machine, or the configuration says so: nothing can be left over in one.
    None {
        /// Whether the configuration says so.
        is_configured: bool,
    },
}

/// The environment variables that say where an engine is, and where things are looked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
    /// `DOCKER_TLS_VERIFY`.
    pub wants_tls: bool,
    /// `DOCKER_CONFIG`, else `~/.docker`.
    pub docker_config: Option<PathBuf>,
    /// Directory of the user's own sockets (`XDG_RUNTIME_DIR`).
    pub runtime_dir: Option<PathBuf>,
    /// `PATH`.
    pub path: OsString,
}

impl Environment {
    /// Reads them through `variable`.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let text = |name| {
            variable(name).and_then(|value| value.into_string().ok()).filter(|value| !value.is_empty())
        };
        let home = variable("HOME").map(PathBuf::from);
        Self {
            docker_host: text("DOCKER_HOST"),
            docker_context: text("DOCKER_CONTEXT"),
            wants_tls: text("DOCKER_TLS_VERIFY").is_some(),
            docker_config: variable("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".docker"))),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            path: variable("PATH").unwrap_or_default(),
        }
    }

    /// This environment as a person's shell has it: what that says of an engine stands before what the daemon was
    /// started with.
    #[must_use]
    pub fn of_person(&self, docker_host: Option<&str>, docker_context: Option<&str>) -> Self {
        let named = |value: Option<&str>| value.filter(|value| !value.is_empty()).map(str::to_owned);
        match (named(docker_host), named(docker_context)) {
            (None, None) => self.clone(),
            (docker_host, docker_context) => Self { docker_host, docker_context, ..self.clone() },
        }
    }

    /// `DOCKER_HOST`, the current Docker context, then the usual sockets, Podman's too.
    pub(super) fn detect(&self) -> Result<Place, EngineError> {
        let named = match &self.docker_host {
            Some(host) => Some(Host::new(host)?),
            None => self.context_host()?,
        };
        if let Some(host) = named {
            if self.wants_tls && host.as_str().starts_with("tcp://") {
                return Err(EngineError::Tls(host));
            }
            return Ok(Place::Host(host));
        }
        if let Some(socket) = self.usual_sockets().into_iter().find(|socket| socket.exists()) {
            return Ok(Place::Host(Host::new(&format!("unix://{}", socket.display()))?));
        }
        let installed = std::env::split_paths(&self.path)
            .any(|dir| ["docker", "podman"].iter().any(|program| dir.join(program).is_file()));
        if installed { Err(EngineError::NoSocket) } else { Ok(Place::None { is_configured: false }) }
    }

    fn usual_sockets(&self) -> Vec<PathBuf> {
        let mut sockets = vec![PathBuf::from("/var/run/docker.sock")];
        sockets.extend(self.runtime_dir.iter().map(|dir| dir.join("docker.sock")));
        sockets.extend(self.docker_config.iter().map(|dir| dir.join("run/docker.sock")));
        sockets.extend(self.runtime_dir.iter().map(|dir| dir.join("podman/podman.sock")));
        sockets.push("/run/podman/podman.sock".into());
        sockets
    }

    /// The host of the current Docker context, as the docker CLI keeps it: `contexts/meta/<sha256 of the name>`.
    /// A context that is named and can't be read is an error: the next best engine would be the wrong one.
    fn context_host(&self) -> Result<Option<Host>, EngineError> {
        let Some(config) = self.docker_config.as_deref() else { return Ok(None) };
        let current = || read_json::<CliConfig>(&config.join("config.json"))?.current_context;
        let name = self.docker_context.clone().or_else(current);
        let Some(name) = name.filter(|name| !name.is_empty() && name != "default") else { return Ok(None) };
        let digest = sha256(&name);
        let meta: Option<ContextMeta> =
            read_json(&config.join("contexts/meta").join(&digest).join("meta.json"));
        let Some(host) = meta.and_then(|meta| meta.endpoints.docker.host) else {
            return Err(EngineError::Context(name.chars().take(200).collect()));
        };
        let host = Host::new(&host)?;
        let has_keys = config.join("contexts/tls").join(digest).exists();
        if has_keys && host.as_str().starts_with("tcp://") {
            Err(EngineError::Tls(host))
        } else {
            Ok(Some(host))
        }
    }
}

/// The SHA-256 of a text, in hexadecimal.
fn sha256(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[derive(Deserialize)]
struct CliConfig {
    #[serde(rename = "currentContext")]
    current_context: Option<String>,
}

#[derive(Deserialize)]
struct ContextMeta {
    #[serde(rename = "Endpoints")]
    endpoints: Endpoints,
}

#[derive(Deserialize)]
struct Endpoints {
    docker: Endpoint,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(rename = "Host")]
    host: Option<String>,
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Option<T> {
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(address: &str) -> Place {
        Place::Host(Host::new(address).unwrap())
    }

    #[test]
    fn a_machine_without_docker_and_podman_has_no_engine() {
        let empty = tempfile::tempdir().unwrap();
        let environment = Environment { path: empty.path().into(), ..Environment::default() };
        if !Path::new("/var/run/docker.sock").exists() && !Path::new("/run/podman/podman.sock").exists() {
            assert_eq!(environment.detect().unwrap(), Place::None { is_configured: false });
            std::fs::write(empty.path().join("podman"), "").unwrap();
            assert!(matches!(environment.detect(), Err(EngineError::NoSocket)));
        }
        let named = Environment { docker_host: Some("unix:///x.sock".into()), ..environment };
        assert_eq!(named.detect().unwrap(), host("unix:///x.sock"));
    }

    fn with_context(name: &str, endpoint: &str) -> (tempfile::TempDir, Environment) {
        let config = tempfile::tempdir().unwrap();
        std::fs::write(config.path().join("config.json"), r#"{"currentContext": "remote", "auths": {}}"#)
            .unwrap();
        let meta = config.path().join("contexts/meta").join(sha256(name));
        std::fs::create_dir_all(&meta).unwrap();
        let content = format!(
            r#"{{"Name":"{name}","Metadata":{{}},"Endpoints":{{"docker":{{"Host":"{endpoint}","SkipTLSVerify":false}}}}}}"#
        );
        std::fs::write(meta.join("meta.json"), content).unwrap();
        let environment =
            Environment { docker_config: Some(config.path().to_owned()), ..Environment::default() };
        (config, environment)
    }

    #[test]
    fn the_current_context_is_the_clis() {
        let (_config, environment) = with_context("remote", "unix:///remote.sock");
        assert_eq!(environment.detect().unwrap(), host("unix:///remote.sock"));
    }

    #[test]
    fn a_persons_word_stands_before_the_daemons_environment() {
        let (_config, environment) = with_context("remote", "unix:///remote.sock");
        let environment = Environment { docker_host: Some("unix:///daemon.sock".into()), ..environment };
        let place = |host, context| environment.of_person(host, context).detect();
        assert_eq!(place(None, None).unwrap(), host("unix:///daemon.sock"));
        assert_eq!(place(Some(""), Some("")).unwrap(), host("unix:///daemon.sock"));
        assert_eq!(place(Some("unix:///mine.sock"), None).unwrap(), host("unix:///mine.sock"));
        assert_eq!(place(None, Some("remote")).unwrap(), host("unix:///remote.sock"));
        assert!(matches!(place(None, Some("other")), Err(EngineError::Context(_))), "never another engine");
    }

    #[test]
    fn a_context_with_keys_is_refused_and_not_spoken_to_in_the_clear() {
        let (config, environment) = with_context("remote", "tcp://engine:2376");
        assert_eq!(environment.detect().unwrap(), host("tcp://engine:2376"));
        let in_shell = Environment { wants_tls: true, ..environment.clone() };
        assert!(matches!(in_shell.detect(), Err(EngineError::Tls(_))));
        std::fs::create_dir_all(config.path().join("contexts/tls").join(sha256("remote"))).unwrap();
        assert!(matches!(environment.detect(), Err(EngineError::Tls(_))));
    }

    #[test]
    fn only_an_address_is_an_address() {
        for good in ["unix:///run/docker.sock", "tcp://127.0.0.1:2375", "http://[::1]:80/", "tcp://engine"] {
            assert!(Host::new(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "unix://",
            "unix://relative.sock",
            "unix:///a\nb",
            "unix:///x/unix:///y",
            "fd://",
            "file:///etc/passwd",
            "ssh://-oProxyCommand=touch x",
            "https://engine:2376",
            "npipe:////./pipe/x",
            "/var/run/docker.sock",
            "tcp://",
            "tcp://a b",
            "tcp://user@host:1",
            "tcp://host:1/../v1",
            "tcp://host:1?x",
            "tcp://host:1#x",
        ] {
            assert!(Host::new(bad).is_err(), "{bad:?}");
        }
        assert!(Host::new(&format!("unix:///{}", "x".repeat(107))).is_err());
    }
}
