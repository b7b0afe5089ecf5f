//! The container engine: where it is, and what it has.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bollard::Docker;
use bollard::query_parameters::{ListContainersOptions, ListContainersOptionsBuilder, ListVolumesOptions};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::config;
use crate::domain::allocation::Allocation;
use crate::domain::identity::AllocationId;
use crate::domain::left_overs::{COMPOSE_WORKING_DIR_LABEL, Resource, Resources, left_overs};

/// How long the engine may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take where its answer is a courtesy.
const SOON: Duration = Duration::from_millis(500);

/// Why the engine gave no answer. That is never the same as "nothing there".
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// There should be one, and nothing says where it listens.
    #[error("a container engine is installed but its socket was not found")]
    NoSocket,
    /// It did not answer, or not as it should.
    #[error("the container engine at {host}: {source}")]
    Failed {
        /// Where it was asked.
        host: String,
        /// What went wrong.
        source: bollard::errors::Error,
    },
    /// It did not answer in time.
    #[error("the container engine at {0} did not answer within {PATIENCE:?}")]
    TimedOut(String),
}

/// Where an engine was found.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    /// At this Docker host.
    Host(String),
    /// There is none on this machine: nothing can be left over in one.
    None,
    /// There is one, but nothing says where.
    Unknown,
}

/// The environment variables that say where an engine is, and where things are looked for.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// `DOCKER_HOST`.
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    pub docker_context: Option<String>,
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
            docker_config: variable("DOCKER_CONFIG")
                .map(PathBuf::from)
                .or_else(|| home.map(|home| home.join(".docker"))),
            runtime_dir: variable("XDG_RUNTIME_DIR").map(PathBuf::from),
            path: variable("PATH").unwrap_or_default(),
        }
    }
}

/// The engine, looked for anew whenever it is needed: it may be installed, started or moved at any time.
#[derive(Debug, Clone)]
pub struct Engine {
    configured: Arc<ArcSwap<config::Engine>>,
    environment: Environment,
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place() {
            Place::Host(host) => f.write_str(&host),
            Place::None => f.write_str("none"),
            Place::Unknown => f.write_str("not found"),
        }
    }
}

impl Engine {
    /// The engine that the configuration and the environment name.
    pub fn new(configured: config::Engine, environment: Environment) -> Self {
        Self { configured: Arc::new(ArcSwap::from_pointee(configured)), environment }
    }

    /// Has the engine looked for where the configuration says now. Holds for every clone.
    pub fn configure(&self, configured: config::Engine) {
        self.configured.store(Arc::new(configured));
    }

    /// Whether there is no engine on this machine at all.
    pub fn is_absent(&self) -> bool {
        self.place() == Place::None
    }

    fn place(&self) -> Place {
        match &**self.configured.load() {
            config::Engine::None => Place::None,
            config::Engine::Host(host) => Place::Host(host.clone()),
            config::Engine::Detect => self.environment.detect(),
        }
    }

    /// What is left of each of these allocations; those of which nothing is left are absent from the answer.
    pub async fn left_overs(
        &self,
        allocations: &[Arc<Allocation>],
    ) -> Result<HashMap<AllocationId, Vec<String>>, EngineError> {
        let host = match self.place() {
            Place::None => return Ok(HashMap::new()),
            Place::Unknown => return Err(EngineError::NoSocket),
            Place::Host(host) => host,
        };
        let resources = bounded(&host, resources(&host)).await?;
        let found = allocations.iter().map(|allocation| (allocation.id, left_overs(allocation, &resources)));
        Ok(found.filter(|(_, left)| !left.is_empty()).collect())
    }

    /// The ports that containers of Compose projects publish, each with the project's working directory. Empty when the
    /// engine does not say within [`SOON`]: this only tells whose a listener is.
    pub async fn published_ports(&self) -> HashMap<u16, PathBuf> {
        let Place::Host(host) = self.place() else { return HashMap::new() };
        match tokio::time::timeout(SOON, published_ports(&host)).await {
            Ok(Ok(ports)) => ports,
            Ok(Err(_)) | Err(_) => HashMap::new(),
        }
    }

    /// Whether the engine answers; where it is, or why not.
    pub async fn ping(&self) -> Result<String, String> {
        match self.place() {
            Place::None => Ok("there is none on this machine".to_owned()),
            Place::Unknown => Err(EngineError::NoSocket.to_string()),
            Place::Host(host) => {
                let version = async { connect(&host)?.version().await };
                let version = bounded(&host, version).await.map_err(|error| error.to_string())?;
                Ok(format!("{} {}", host, version.version.unwrap_or_default()))
            }
        }
    }
}

async fn bounded<T>(
    host: &str,
    question: impl Future<Output = Result<T, bollard::errors::Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|source| EngineError::Failed { host: host.to_owned(), source }),
        Err(_) => Err(EngineError::TimedOut(host.to_owned())),
    }
}

fn connect(host: &str) -> Result<Docker, bollard::errors::Error> {
    Docker::connect_with_host(host).map(|docker| docker.with_timeout(PATIENCE))
}

async fn resources(host: &str) -> Result<Resources, bollard::errors::Error> {
    let docker = connect(host)?.negotiate_version().await?;
    let volumes = docker.list_volumes(None::<ListVolumesOptions>).await?.volumes.unwrap_or_default();
    let all = ListContainersOptionsBuilder::default().all(true).build();
    let containers = docker.list_containers(Some(all)).await?;
    Ok(Resources {
        volumes: volumes
            .into_iter()
            .map(|volume| Resource { name: volume.name, labels: volume.labels })
            .collect(),
        containers: containers
            .into_iter()
            .map(|container| Resource {
                name: container.names.unwrap_or_default().join(","),
                labels: container.labels.unwrap_or_default(),
            })
            .collect(),
    })
}

async fn published_ports(host: &str) -> Result<HashMap<u16, PathBuf>, bollard::errors::Error> {
    let containers = connect(host)?.list_containers(None::<ListContainersOptions>).await?;
    let mut published = HashMap::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let Some(directory) = labels.get(COMPOSE_WORKING_DIR_LABEL) else { continue };
        let ports = container.ports.unwrap_or_default();
        published.extend(ports.iter().filter_map(|port| Some((port.public_port?, PathBuf::from(directory)))));
    }
    Ok(published)
}

impl Environment {
    /// `DOCKER_HOST`, the current Docker context, then the usual sockets, Podman's too.
    fn detect(&self) -> Place {
        if let Some(host) = &self.docker_host {
            return Place::Host(host.clone());
        }
        if let Some(host) = self.context_host() {
            return Place::Host(host);
        }
        if let Some(socket) = self.usual_sockets().into_iter().find(|socket| socket.exists()) {
            return Place::Host(format!("unix://{}", socket.display()));
        }
        let installed = std::env::split_paths(&self.path)
            .any(|dir| ["docker", "podman"].iter().any(|program| dir.join(program).is_file()));
        if installed { Place::Unknown } else { Place::None }
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
    fn context_host(&self) -> Option<String> {
        let config = self.docker_config.as_deref()?;
        let name = match &self.docker_context {
            Some(name) => name.clone(),
            None => read_json::<CliConfig>(&config.join("config.json"))?.current_context?,
        };
        if name == "default" {
            return None;
        }
        let digest = sha256(&name);
        let meta: ContextMeta = read_json(&config.join("contexts/meta").join(digest).join("meta.json"))?;
        meta.endpoints.docker.host
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

    #[test]
    fn a_machine_without_docker_and_podman_has_no_engine() {
        let empty = tempfile::tempdir().unwrap();
        let environment = Environment { path: empty.path().into(), ..Environment::default() };
        if !Path::new("/var/run/docker.sock").exists() && !Path::new("/run/podman/podman.sock").exists() {
            assert_eq!(environment.detect(), Place::None);
            std::fs::write(empty.path().join("podman"), "").unwrap();
            assert_eq!(environment.detect(), Place::Unknown);
        }
        let named = Environment { docker_host: Some("unix:///x.sock".into()), ..environment };
        assert_eq!(named.detect(), Place::Host("unix:///x.sock".into()));
    }

    #[test]
    fn the_current_context_is_the_clis() {
        let config = tempfile::tempdir().unwrap();
        std::fs::write(config.path().join("config.json"), r#"{"currentContext": "remote", "auths": {}}"#)
            .unwrap();
        let digest = sha256("remote");
        let meta = config.path().join("contexts/meta").join(digest);
        std::fs::create_dir_all(&meta).unwrap();
        std::fs::write(
            meta.join("meta.json"),
            r#"{"Name":"remote","Metadata":{},"Endpoints":{"docker":{"Host":"unix:///remote.sock","SkipTLSVerify":false}}}"#,
        )
        .unwrap();
        let environment =
            Environment { docker_config: Some(config.path().to_owned()), ..Environment::default() };
        assert_eq!(environment.detect(), Place::Host("unix:///remote.sock".into()));
    }

    #[tokio::test]
    async fn an_engine_that_does_not_answer_is_not_an_empty_one() {
        let engine = Engine::new(
            config::Engine::Host("unix:///nowhere/docker.sock".to_owned()),
            Environment::default(),
        );
        assert!(engine.left_overs(&[]).await.is_err());
        assert!(engine.ping().await.is_err());
    }
}
