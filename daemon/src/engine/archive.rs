//! A volume's content as a tar stream, in and out.
//!
//! The engine gives the content of volumes through containers only. One is made that mounts the volume and is never
//! started, from an image without a single file, so that nothing of anybody's is run, copied into the volume or pulled.

use std::collections::HashMap;

use bollard::models::{ContainerCreateBody, CreateImageInfo, HostConfig, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptions, CreateImageOptionsBuilder, DownloadFromContainerOptionsBuilder,
    ListContainersOptionsBuilder, ListImagesOptionsBuilder, RemoveContainerOptions, RemoveImageOptions,
    UploadToContainerOptionsBuilder,
};
use futures_util::{Stream, StreamExt};

use super::connection::{Connection, ContainerId, PATIENCE, bounded};
use super::{EngineError, Host};
use crate::domain::gc::Volume;
use crate::domain::names::VolumeName;

/// Marks what is made for reading or writing a volume with whose it is, so that what a crash left is found again.
pub const HELPER_LABEL: &str = "dev.wtd.helper";

/// Where the volume is in the container.
pub(super) const MOUNT: &str = "/wtd-volume";

/// The end of a tar archive, and so an archive of nothing (POSIX pax, "ustar Interchange Format").
const EMPTY_TAR: [u8; 1024] = [0; 1024];

/// A container that holds a volume and is never started.
#[derive(Debug)]
pub struct Held {
    container: ContainerId,
    image: String,
}

impl Held {
    pub(super) fn container(&self) -> &ContainerId {
        &self.container
    }
}

impl Connection {
    /// Mounts a volume in a container that is never started. The engine would make the volume if it were not there, so
    /// the caller has to see afterwards that it still is the one it meant. `owner`: letters and digits that stand for this
    /// registry; other daemons use the engine too.
    pub async fn hold(&self, volume: &VolumeName, read_only: bool, owner: &str) -> Result<Held, EngineError> {
        let image = self.empty_image(owner).await?;
        let mode = if read_only { ":ro" } else { "" };
        let body = ContainerCreateBody {
            image: Some(image.clone()),
            cmd: Some(vec!["/never-started".to_owned()]),
            labels: Some(HashMap::from([(HELPER_LABEL.to_owned(), owner.to_owned())])),
            host_config: Some(HostConfig {
                binds: Some(vec![format!("{volume}:{MOUNT}{mode}")]),
                network_mode: Some("none".to_owned()),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let created = self.docker.create_container(None::<CreateContainerOptions>, body);
        let created = bounded(&self.host, created).await?;
        let container = ContainerId::new(&created.id).ok_or_else(|| EngineError::NoId(self.host.clone()))?;
        Ok(Held { container, image })
    }

    /// Removes the container, and the image that it was made from.
    pub async fn let_go(&self, held: Held) -> Result<(), EngineError> {
        let removal = self.docker.remove_container(held.container.as_str(), None::<RemoveContainerOptions>);
        bounded(&self.host, removal).await?;
        self.remove_image(&held.image).await;
        Ok(())
    }

    /// Removes what an earlier process of the same owner made with [`Connection::hold`] and did not live to let go of.
    pub async fn let_go_of_left_overs(&self, owner: &str) -> Result<(), EngineError> {
        let label = format!("{HELPER_LABEL}={owner}");
        let filters = HashMap::from([("label", vec![label.as_str()]), ("status", vec!["created"])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        for found in bounded(&self.host, self.docker.list_containers(Some(options))).await? {
            if let Some(id) = found.id.as_deref().and_then(ContainerId::new) {
                let removal = self.docker.remove_container(id.as_str(), None::<RemoveContainerOptions>);
                bounded(&self.host, removal).await?;
            }
        }
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        let options = ListImagesOptionsBuilder::default().all(true).filters(&filters).build();
        for image in bounded(&self.host, self.docker.list_images(Some(options))).await? {
            self.remove_image(&image.id).await;
        }
        Ok(())
    }

    /// The content of the volume as a tar stream, its files' names relative to the volume's root.
    pub fn read(&self, held: &Held) -> impl Stream<Item = Result<bytes::Bytes, EngineError>> + use<> {
        let options = DownloadFromContainerOptionsBuilder::default().path(&format!("{MOUNT}/.")).build();
        let stream = self.docker.download_from_container(held.container.as_str(), Some(options));
        timed(self.host.clone(), stream)
    }

    /// Unpacks a tar stream into the volume, with the owners that it gives. `patience` bounds the whole.
    pub async fn write(
        &self,
        held: &Held,
        tar: impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static,
        patience: std::time::Duration,
    ) -> Result<(), EngineError> {
        self.write_at(held, MOUNT, tar, patience).await
    }

    /// As [`Connection::write`], into a directory of the container.
    pub(super) async fn write_at(
        &self,
        held: &Held,
        path: &str,
        tar: impl Stream<Item = Result<bytes::Bytes, std::io::Error>> + Send + 'static,
        patience: std::time::Duration,
    ) -> Result<(), EngineError> {
        // Without `copyUIDGID`, which would give everything to the container's user: on Podman always, on Docker where it
        // has one.
        let options = UploadToContainerOptionsBuilder::default().path(path).build();
        let docker = self.docker.clone().with_timeout(patience);
        let body = bollard::body_try_stream(tar);
        docker
            .upload_to_container(held.container.as_str(), Some(options), body)
            .await
            .map_err(|source| EngineError::of(&self.host, source))
    }

    /// Makes a volume. Engines answer the same when there is one already, so the caller has to look before and after.
    pub async fn create_volume(
        &self,
        name: &VolumeName,
        labels: HashMap<String, String>,
    ) -> Result<(), EngineError> {
        let request = VolumeCreateRequest {
            name: Some(name.to_string()),
            labels: Some(labels),
            ..VolumeCreateRequest::default()
        };
        bounded(&self.host, self.docker.create_volume(request)).await.map(drop)
    }

    /// Whether the volume is there, and is the one that was meant.
    pub async fn is_still(&self, volume: &Volume, name: &VolumeName) -> Result<bool, EngineError> {
        let now = self.volume(name).await?;
        Ok(now.is_some_and(|now| (&now.labels, &now.created) == (&volume.labels, &volume.created)))
    }

    async fn empty_image(&self, owner: &str) -> Result<String, EngineError> {
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .changes(vec![format!("LABEL {HELPER_LABEL}={owner}")])
            .build();
        let body = bollard::body_full(EMPTY_TAR.to_vec().into());
        let answers = self.docker.create_image(Some(options), Some(body), None);
        let answers = async { answers.collect::<Vec<_>>().await.into_iter().collect::<Result<Vec<_>, _>>() };
        let answers = bounded(&self.host, answers).await?;
        let id = |answer: CreateImageInfo| answer.status.filter(|status| status.starts_with("sha256:"));
        answers.into_iter().filter_map(id).next_back().ok_or_else(|| EngineError::NoId(self.host.clone()))
    }

    /// An image of nothing that stays behind costs nothing, and the next run finds it.
    async fn remove_image(&self, id: &str) {
        let is_id = id.strip_prefix("sha256:").is_some_and(|hex| ContainerId::new(hex).is_some());
        if is_id {
            let removal = self.docker.remove_image(id, None::<RemoveImageOptions>, None);
            drop(bounded(&self.host, removal).await);
        }
    }
}

/// A stream whose every piece has to come in time.
pub(super) fn timed<T, S>(host: Host, stream: S) -> impl Stream<Item = Result<T, EngineError>>
where
    S: Stream<Item = Result<T, bollard::errors::Error>>,
{
    let stream = Box::pin(stream);
    futures_util::stream::unfold((host, Some(stream)), |(host, stream)| async move {
        let mut stream = stream?;
        match tokio::time::timeout(PATIENCE, stream.next()).await {
            Ok(None) => None,
            Ok(Some(Ok(piece))) => Some((Ok(piece), (host, Some(stream)))),
            Ok(Some(Err(source))) => Some((Err(EngineError::of(&host, source)), (host, None))),
            Err(_) => Some((Err(EngineError::TimedOut(host.clone())), (host, None))),
        }
    })
}
