//! Speaking to an engine: the calls that gc needs, each with an end, each with names that can't be anything else.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bollard::errors::Error;
use bollard::models::{ContainerSummary, MountPoint, SystemVersion};
use bollard::query_parameters::{
    ListContainersOptions, ListContainersOptionsBuilder, ListVolumesOptions, RemoveContainerOptions,
    RemoveVolumeOptions, StopContainerOptions,
};
use bollard::{API_DEFAULT_VERSION, ClientVersion, Docker};
use jiff::Timestamp;

use super::{EngineError, Host, sizes};
use crate::domain::gc::belongings::COMPOSE_WORKING_DIR_LABEL;
use crate::domain::gc::{Container, EngineId, EngineView, Volume};
use crate::domain::names::VolumeName;

/// How long the engine may take for one answer.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// How long it may take to stop a container: what it gives the container's process, and as long again.
const STOPPING: Duration = Duration::from_secs(30);

/// The version of the API from which on `CreatedAt` is the time when a volume was made: that of Docker 24.
const TELLS_CREATION: (usize, usize) = (1, 43);

/// The oldest version of the API with which anything is dropped: that of Docker 20.10 and of Podman 4.
const OLDEST: (usize, usize) = (1, 41);

/// An engine that answers, and which one it is.
#[derive(Debug, Clone)]
pub struct Connection {
    pub(super) docker: Docker,
    pub(super) host: Host,
    id: EngineId,
    version: String,
    tells_creation: bool,
    tells_owners: bool,
    /// When it was made, by the engine's own clock.
    pub(super) made: Option<Timestamp>,
}

/// What came of having something removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, by this request.
    Now,
    /// It was gone already.
    Before,
    /// The engine refuses, since something uses it; in its words.
    InUse(String),
}

impl Connection {
    /// Reaches the engine at `host`, and learns which one it is.
    pub async fn open(host: Host) -> Result<Self, EngineError> {
        let version = bounded(&host, async { connect(&host, None)?.version().await }).await?;
        let (api, is_podman) = (api_version(&version), is_podman(&version));
        let Some(api) = api.filter(|api| *api >= OLDEST) else {
            return Err(EngineError::TooOld { host, version: version.api_version.unwrap_or_default() });
        };
        let newest = (API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version);
        let docker =
            connect(&host, Some(api.min(newest))).map_err(|source| EngineError::of(&host, source))?;
        let info = bounded(&host, docker.info()).await?;
        // Docker's id alone would not do: before 23 it is that of /etc/docker/key.json, which two engines of one machine
        // share. Podman makes up another id for each answer; the machine and the place of its storage have to do.
        let id = match (info.id, info.name, info.docker_root_dir) {
            (_, Some(name), Some(root)) if is_podman => format!("podman {name} {root}"),
            (Some(id), _, Some(root)) if !is_podman && !id.is_empty() => format!("docker {id} {root}"),
            _ => return Err(EngineError::NoId(host)),
        };
        Ok(Self {
            docker,
            host,
            id: EngineId::new(&id),
            version: version.version.unwrap_or_default(),
            tells_creation: is_podman || api >= TELLS_CREATION,
            tells_owners: !is_podman,
            made: info.system_time.and_then(|now| now.parse().ok()),
        })
    }

    /// Whether it tells who owns the files of a volume. Podman's API gives them all to the user that serves it, so what was
    /// read there would not come back as it was.
    pub fn tells_owners(&self) -> bool {
        self.tells_owners
    }

    /// Where it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Which one it is.
    pub fn id(&self) -> &EngineId {
        &self.id
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// All volumes and containers.
    pub async fn view(&self) -> Result<EngineView, EngineError> {
        let found = self.all_volumes().await?;
        let places: Vec<Place> = found.iter().map(Place::of).collect();
        let containers = self.containers(&HashMap::new(), &places).await?;
        Ok(self.view_of(found.into_iter().map(volume).collect(), containers))
    }

    /// What was seen of this engine.
    pub fn view_of(&self, volumes: Vec<Volume>, containers: Vec<Container>) -> EngineView {
        EngineView { id: self.id.clone(), tells_creation: self.tells_creation, volumes, containers }
    }

    /// All volumes, by name: the engine gives them as they come.
    pub async fn volumes(&self) -> Result<Vec<Volume>, EngineError> {
        Ok(self.all_volumes().await?.into_iter().map(volume).collect())
    }

    async fn all_volumes(&self) -> Result<Vec<bollard::models::Volume>, EngineError> {
        let listed = bounded(&self.host, self.docker.list_volumes(None::<ListVolumesOptions>)).await?;
        // A driver that could not be asked may have anything: the list is not one of all volumes then.
        if let Some(why) = listed.warnings.unwrap_or_default().into_iter().find(|why| !why.is_empty()) {
            return Err(EngineError::Incomplete { host: self.host.clone(), why });
        }
        let mut volumes = listed.volumes.unwrap_or_default();
        volumes.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(volumes)
    }

    /// The volume of this name; none when the engine says that there is none.
    pub async fn volume(&self, name: &VolumeName) -> Result<Option<Volume>, EngineError> {
        Ok(self.inspect_volume(name).await?.map(volume))
    }

    async fn inspect_volume(
        &self,
        name: &VolumeName,
    ) -> Result<Option<bollard::models::Volume>, EngineError> {
        match bounded(&self.host, self.docker.inspect_volume(name.as_str())).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if status(&error) == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The containers that use a volume: those of which the engine says so, and those that have the volume's directory,
    /// of which it does not know.
    pub async fn users(&self, name: &VolumeName) -> Result<Vec<Container>, EngineError> {
        let place: Vec<Place> = self.inspect_volume(name).await?.iter().map(Place::of).collect();
        let filters = HashMap::from([("volume", vec![name.as_str()])]);
        let mut found = self.containers(&filters, &place).await?;
        let known: HashSet<String> = found.iter().map(|user| user.id.clone()).collect();
        let has_it = |it: &Container| it.volumes.iter().any(|volume| volume == name.as_str());
        let all = self.containers(&HashMap::new(), &place).await?.into_iter();
        found.extend(all.filter(|it| has_it(it) && !known.contains(&it.id)));
        Ok(found)
    }

    /// Containers. Without `all` the engine would not tell of one that was never started.
    pub(super) async fn containers(
        &self,
        filters: &HashMap<&str, Vec<&str>>,
        places: &[Place],
    ) -> Result<Vec<Container>, EngineError> {
        let options = ListContainersOptionsBuilder::default().all(true).filters(filters).build();
        let found = bounded(&self.host, self.docker.list_containers(Some(options))).await?;
        Ok(found.into_iter().map(|found| container(found, places)).collect())
    }

    /// Has a volume removed, without force: the engine refuses while a container uses it.
    pub async fn remove_volume(&self, name: &VolumeName) -> Result<Removed, EngineError> {
        let removal = self.docker.remove_volume(name.as_str(), None::<RemoveVolumeOptions>);
        removed(bounded(&self.host, removal).await)
    }

    /// Stops a container and has it removed, its anonymous volumes not.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<Removed, EngineError> {
        // The library's own end would come before the one that the engine gives a process.
        let patient = self.docker.clone().with_timeout(STOPPING);
        let stop = patient.stop_container(&id.0, None::<StopContainerOptions>);
        let stopped = match tokio::time::timeout(STOPPING, stop).await {
            Ok(stopped) => stopped.map_err(|source| self.failed(source)),
            Err(_) => Err(EngineError::TimedOut(self.host.clone())),
        };
        match stopped {
            // 304: it does not run.
            Err(error) if !matches!(status(&error), Some(304 | 404)) => return Err(error),
            _ => {}
        }
        let removal = self.docker.remove_container(&id.0, None::<RemoveContainerOptions>);
        removed(bounded(&self.host, removal).await)
    }

    /// The sizes of volumes in bytes, as far as the engine tells them.
    pub async fn sizes(&self) -> HashMap<String, u64> {
        match tokio::time::timeout(PATIENCE, sizes::of_volumes(&self.host)).await {
            Ok(Ok(sizes)) => sizes,
            Ok(Err(_)) | Err(_) => HashMap::new(),
        }
    }

    fn failed(&self, source: Error) -> EngineError {
        EngineError::of(&self.host, source)
    }
}

/// A container's id: hexadecimal, so that it can't lead anywhere else in a URL.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContainerId(String);

impl ContainerId {
    /// The container of this id.
    pub fn new(id: &str) -> Option<Self> {
        let is_id = (12..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_id.then(|| Self(id.to_owned()))
    }

    /// The id.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The status of the engine's answer, where it answered.
pub(super) fn status(error: &EngineError) -> Option<u16> {
    match error {
        EngineError::Failed { source: Error::DockerResponseServerError { status_code, .. }, .. } => {
            Some(*status_code)
        }
        _ => None,
    }
}

fn removed(answer: Result<(), EngineError>) -> Result<Removed, EngineError> {
    match answer {
        Ok(()) => Ok(Removed::Now),
        Err(EngineError::Failed {
            source: Error::DockerResponseServerError { status_code: 404, .. },
            ..
        }) => Ok(Removed::Before),
        Err(EngineError::Failed {
            source: Error::DockerResponseServerError { status_code: 409, message },
            ..
        }) => Ok(Removed::InUse(message)),
        Err(error) => Err(error),
    }
}

pub(super) async fn bounded<T>(
    host: &Host,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, EngineError> {
    match tokio::time::timeout(PATIENCE, question).await {
        Ok(answer) => answer.map_err(|source| EngineError::of(host, source)),
        Err(_) => Err(EngineError::TimedOut(host.clone())),
    }
}

fn connect(host: &Host, api: Option<(usize, usize)>) -> Result<Docker, Error> {
    let (major_version, minor_version) =
        api.unwrap_or((API_DEFAULT_VERSION.major_version, API_DEFAULT_VERSION.minor_version));
    let version = ClientVersion { major_version, minor_version };
    let seconds = PATIENCE.as_secs();
    match host.as_str().strip_prefix("unix://") {
        Some(path) => Docker::connect_with_unix(path, seconds, &version),
        None => Docker::connect_with_http(host.as_str(), seconds, &version),
    }
}

fn api_version(version: &SystemVersion) -> Option<(usize, usize)> {
    let (major, minor) = version.api_version.as_deref()?.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn is_podman(version: &SystemVersion) -> bool {
    version.components.iter().flatten().any(|component| component.name == "Podman Engine")
}

fn volume(found: bollard::models::Volume) -> Volume {
    Volume {
        is_local: found.scope.is_none_or(|scope| scope.to_string() == "local"),
        name: found.name,
        driver: found.driver,
        options: found.options.into_iter().collect(),
        labels: found.labels.into_iter().collect(),
        created: found.created_at.unwrap_or_default(),
    }
}

/// Where the engine keeps what a volume holds.
pub(super) struct Place {
    volume: String,
    directory: PathBuf,
}

impl Place {
    fn of(volume: &bollard::models::Volume) -> Self {
        Self { volume: volume.name.clone(), directory: PathBuf::from(&volume.mountpoint) }
    }

    /// Whether who has this directory of the machine has the volume's content, or part of it, and not that of all volumes:
    /// that is its business who looks after them, and would hold every one for ever.
    fn is_of(&self, source: &Path) -> bool {
        // Docker keeps it in `<name>/_data`.
        let own = self.directory.parent().filter(|it| it.file_name() == Some(OsStr::new(&self.volume)));
        !self.directory.as_os_str().is_empty()
            && (source.starts_with(&self.directory) || own.is_some_and(|own| source == own))
    }
}

fn container(found: ContainerSummary, places: &[Place]) -> Container {
    let names = found.names.unwrap_or_default();
    let name = names.first().map(|name| name.trim_start_matches('/').to_owned());
    let id = found.id.unwrap_or_default();
    let of_mount = |mount: MountPoint| match (mount.name, mount.source) {
        (Some(name), _) if !name.is_empty() => vec![name],
        (_, Some(source)) => {
            let source = Path::new(&source);
            places.iter().filter(|place| place.is_of(source)).map(|place| place.volume.clone()).collect()
        }
        (_, None) => Vec::new(),
    };
    Container {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        state: found.state.map(|state| state.to_string()).unwrap_or_default(),
        labels: found.labels.map(|labels| labels.into_iter().collect::<BTreeMap<_, _>>()).unwrap_or_default(),
        volumes: found.mounts.unwrap_or_default().into_iter().flat_map(of_mount).collect(),
    }
}

pub(super) async fn published_ports(host: &Host) -> Result<HashMap<u16, PathBuf>, Error> {
    let containers = connect(host, None)?.list_containers(None::<ListContainersOptions>).await?;
    let mut published = HashMap::new();
    for container in containers {
        let labels = container.labels.unwrap_or_default();
        let Some(directory) = labels.get(COMPOSE_WORKING_DIR_LABEL) else { continue };
        let ports = container.ports.unwrap_or_default();
        published.extend(ports.iter().filter_map(|port| Some((port.public_port?, PathBuf::from(directory)))));
    }
    Ok(published)
}
