//! Containers that do something for a copy: run from an image that a container of the project runs from, so that nothing
//! is pulled, and removed with it. Also what is looked at in the project's own containers.

use std::collections::HashMap;
use std::io;
use std::path::Component;
use std::pin::Pin;

use bollard::models::{ContainerCreateBody, ContainerInspectResponse, HostConfig, MountPoint};
use bollard::query_parameters::{
    AttachContainerOptionsBuilder, CreateContainerOptions, DownloadFromContainerOptionsBuilder,
    InspectContainerOptions, RemoveContainerOptionsBuilder, StartContainerOptions,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};

use super::archive::{HELPER_LABEL, MOUNT, timed};
use super::connection::{Connection, ContainerId, bounded, status};
use super::{EngineError, Held};
use crate::domain::gc::Container;
use crate::domain::names::VolumeName;
use crate::domain::seed::User;

/// The most that is read of a file whose owner is to be known, in bytes.
const MAX_OWNED: usize = 64 * 1024;

/// A container that is to do one thing.
#[derive(Debug)]
pub struct Helper<'a> {
    /// The id of an image that is there.
    pub image: &'a str,
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Variables beside those of the image.
    pub env: Vec<String>,
    /// Whose files it makes.
    pub owner: Owner,
    /// The volume, and where it is mounted.
    pub volume: (&'a VolumeName, &'a str),
    /// The container whose network it is in; none: it has no network.
    pub network_of: Option<&'a ContainerId>,
}

/// Owner and mode of a file, as the container numbers them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub uid: u64,
    /// The group.
    pub gid: u64,
    /// The permission bits.
    pub mode: u32,
}

/// What a helper prints, as it does.
pub type Output = Pin<Box<dyn Stream<Item = Result<String, EngineError>> + Send>>;

impl Connection {
    /// The containers that use a volume, with what copying it has to know of them.
    pub async fn detailed_users(&self, volume: &VolumeName) -> Result<Vec<User>, EngineError> {
        let mut users = Vec::new();
        for found in self.users(volume).await? {
            let Some(id) = ContainerId::new(&found.id) else { continue };
            let details = self.docker.inspect_container(id.as_str(), None::<InspectContainerOptions>);
            match bounded(&self.host, details).await {
                Ok(details) => users.push(user(details)),
                // It went meanwhile.
                Err(error) if status(&error) == Some(404) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(users)
    }

    /// Starts a helper; gives its id, and what it prints until it ends. `owner` as for [`Connection::hold`].
    pub async fn start_helper(
        &self,
        helper: Helper<'_>,
        owner: &str,
    ) -> Result<(ContainerId, Output), EngineError> {
        let (volume, mount) = helper.volume;
        let network = helper.network_of.map(|container| format!("container:{}", container.as_str()));
        let (program, arguments) =
            helper.command.split_first().map(|(it, rest)| (it.clone(), rest.to_vec())).unwrap_or_default();
        let body = ContainerCreateBody {
            image: Some(helper.image.to_owned()),
            entrypoint: Some(vec![program]),
            cmd: Some(arguments),
            env: Some(helper.env),
            user: Some(format!("{}:{}", helper.owner.uid, helper.owner.gid)),
            labels: Some(HashMap::from([(HELPER_LABEL.to_owned(), owner.to_owned())])),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            host_config: Some(HostConfig {
                // What the image has at that place is not to be copied into the volume.
                binds: Some(vec![format!("{volume}:{mount}:nocopy")]),
                network_mode: Some(network.unwrap_or_else(|| "none".to_owned())),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        };
        let created = self.docker.create_container(None::<CreateContainerOptions>, body);
        let created = bounded(&self.host, created).await?;
        let id = ContainerId::new(&created.id).ok_or_else(|| EngineError::NoId(self.host.clone()))?;
        let options = AttachContainerOptionsBuilder::default().stdout(true).stderr(true).stream(true).build();
        let attached = bounded(&self.host, self.docker.attach_container(id.as_str(), Some(options))).await?;
        let start = self.docker.start_container(id.as_str(), None::<StartContainerOptions>);
        bounded(&self.host, start).await?;
        let host = self.host.clone();
        let output = attached.output.map(move |piece| match piece {
            Ok(piece) => Ok(String::from_utf8_lossy(&piece.into_bytes()).into_owned()),
            Err(source) => Err(EngineError::of(&host, source)),
        });
        Ok((id, Box::pin(output)))
    }

    /// How a helper ended; none while it runs.
    pub async fn exit_code(&self, id: &ContainerId) -> Result<Option<i64>, EngineError> {
        let details = self.docker.inspect_container(id.as_str(), None::<InspectContainerOptions>);
        let state = bounded(&self.host, details).await?.state.unwrap_or_default();
        Ok(if state.running.unwrap_or(false) { None } else { Some(state.exit_code.unwrap_or(-1)) })
    }

    /// Every helper of this owner.
    pub async fn helpers(&self, owner: &str) -> Result<Vec<Container>, EngineError> {
        let label = format!("{HELPER_LABEL}={owner}");
        let filters = HashMap::from([("label", vec![label.as_str()])]);
        self.containers(&filters, &[]).await
    }

    /// Removes every helper of this owner, whatever it does, with the volumes without a name that its image made it have.
    pub async fn remove_helpers(&self, owner: &str) -> Result<(), EngineError> {
        for found in self.helpers(owner).await? {
            let Some(id) = ContainerId::new(&found.id) else { continue };
            let options = RemoveContainerOptionsBuilder::default().force(true).v(true).build();
            match bounded(&self.host, self.docker.remove_container(id.as_str(), Some(options))).await {
                Err(error) if status(&error) != Some(404) => return Err(error),
                _ => {}
            }
        }
        // Its images.
        self.let_go_of_left_overs(owner).await
    }

    /// Who owns a small file in a container; none where it isn't there.
    pub async fn owner_of(&self, id: &ContainerId, path: &str) -> Result<Option<Owner>, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(path).build();
        let stream = self.docker.download_from_container(id.as_str(), Some(options));
        let mut stream = std::pin::pin!(timed(self.host.clone(), stream));
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            match piece {
                Ok(piece) => bytes.extend_from_slice(&piece),
                Err(error) if status(&error) == Some(404) => return Ok(None),
                Err(error) => return Err(error),
            }
            if bytes.len() >= MAX_OWNED {
                break;
            }
        }
        Ok(owner_in(&bytes))
    }

    /// Who owns a file of the volume, which is named relative to the volume's root; none where it isn't there.
    pub async fn owner_in_volume(&self, held: &Held, name: &str) -> Result<Option<Owner>, EngineError> {
        self.owner_of(held.container(), &format!("{MOUNT}/{name}")).await
    }

    /// Whether there is nothing in the volume.
    pub async fn is_empty(&self, held: &Held) -> Result<bool, EngineError> {
        self.has_entries(held.container(), &format!("{MOUNT}/.")).await.map(|has| !has)
    }

    /// Whether there is something in a directory of a container. Reads no more than it takes to know; what can't be
    /// understood is an error, never an empty directory.
    pub async fn has_entries(&self, id: &ContainerId, directory: &str) -> Result<bool, EngineError> {
        let options = DownloadFromContainerOptionsBuilder::default().path(directory).build();
        let stream = self.docker.download_from_container(id.as_str(), Some(options));
        let mut stream = std::pin::pin!(timed(self.host.clone(), stream));
        let mut bytes = Vec::new();
        while let Some(piece) = stream.next().await {
            bytes.extend_from_slice(&piece?);
            // The directory itself comes first, and nothing comes after an empty one but an archive's end.
            if bytes.len() >= MAX_OWNED {
                return Ok(true);
            }
        }
        let unclear = || EngineError::Unclear { host: self.host.clone(), directory: directory.to_owned() };
        has_entries_in(&bytes).ok_or_else(unclear)
    }

    /// Gives the volume's own directory an owner and a mode: an engine that unpacks into it passes over them.
    pub async fn own(&self, held: &Held, owner: Owner) -> Result<(), EngineError> {
        let name = format!("{}/", MOUNT.trim_start_matches('/'));
        self.put(held, "/", archive_of(&name, &[], tar::EntryType::Directory, owner)).await
    }

    /// Puts a file into the volume, in place of one that is there.
    pub async fn put_file(
        &self,
        held: &Held,
        name: &str,
        content: &[u8],
        owner: Owner,
    ) -> Result<(), EngineError> {
        self.put(held, MOUNT, archive_of(name, content, tar::EntryType::Regular, owner)).await
    }

    async fn put(&self, held: &Held, path: &str, tar: io::Result<Vec<u8>>) -> Result<(), EngineError> {
        // A name that no archive can have ends the request as a file that can't be read does.
        let whole = futures_util::stream::once(async { tar.map(Bytes::from) });
        self.write_at(held, path, whole, super::connection::PATIENCE).await
    }
}

/// An archive of one entry, whose name may be longer than a header has room for.
fn archive_of(name: &str, content: &[u8], kind: tar::EntryType, owner: Owner) -> io::Result<Vec<u8>> {
    let mut header = header(kind, owner);
    header.set_size(content.len() as u64);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content)?;
    archive.into_inner()
}

fn header(kind: tar::EntryType, owner: Owner) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.set_uid(owner.uid);
    header.set_gid(owner.gid);
    header.set_mode(owner.mode);
    header.set_size(0);
    header
}

/// The owner of the first entry of an archive.
fn owner_in(tar: &[u8]) -> Option<Owner> {
    let mut archive = tar::Archive::new(tar);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let header = entry.header();
    Some(Owner { uid: header.uid().ok()?, gid: header.gid().ok()?, mode: header.mode().ok()? & 0o7777 })
}

/// Whether there is more in an archive of a directory than the directory itself; none when it is no whole archive.
fn has_entries_in(tar: &[u8]) -> Option<bool> {
    let mut archive = tar::Archive::new(tar);
    let mut entries = archive.entries().ok()?;
    let root = entries.next()?.ok()?;
    if !root.header().entry_type().is_dir() || root.size() != 0 {
        return None;
    }
    let content = usize::try_from(root.raw_file_position()).ok()?;
    match entries.next() {
        Some(second) => second.ok().map(|_| true),
        // Two blocks of zeros end an archive; without them more may have been meant to follow.
        None => {
            let end = tar.get(content..)?;
            (end.len() >= 1024 && end.iter().all(|byte| *byte == 0)).then_some(false)
        }
    }
}

/// The owner of a volume's own directory, which is what an archive of the volume begins with.
pub fn root_owner_in(tar: &[u8]) -> Option<Owner> {
    let mut archive = tar::Archive::new(tar);
    let entry = archive.entries().ok()?.next()?.ok()?;
    let is_root = entry.path().is_ok_and(|path| path.components().all(|part| part == Component::CurDir));
    if is_root { owner_in(tar) } else { None }
}

fn user(found: ContainerInspectResponse) -> User {
    let config = found.config.unwrap_or_default();
    let variables = config.env.unwrap_or_default().into_iter();
    let state = found.state.unwrap_or_default();
    let mounts = found.mounts.unwrap_or_default().into_iter();
    User {
        id: found.id.unwrap_or_default(),
        name: found.name.unwrap_or_default().trim_start_matches('/').to_owned(),
        image: found.image.unwrap_or_default(),
        is_running: state.running.unwrap_or(false) || state.restarting.unwrap_or(false),
        is_paused: state.paused.unwrap_or(false),
        env: variables
            .filter_map(|variable| {
                variable.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()))
            })
            .collect(),
        mounts: mounts
            .filter_map(|MountPoint { name, destination, .. }| Some((name?, destination?)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive as an engine gives it of a directory with so many files.
    fn archive(files: usize) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        let owner = Owner { uid: 0, gid: 0, mode: 0o755 };
        builder.append_data(&mut header(tar::EntryType::Directory, owner), "./", &[][..]).unwrap();
        for n in 0..files {
            builder
                .append_data(&mut header(tar::EntryType::Regular, owner), format!("./{n}"), &[][..])
                .unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_name_of_any_length_is_that_of_the_entry() {
        let owner = Owner { uid: 70, gid: 70, mode: 0o600 };
        for length in [1, 99, 100, 101, 255, 3000] {
            let name = "n".repeat(length);
            let tar = archive_of(&name, b"content", tar::EntryType::Regular, owner).unwrap();
            let mut read = tar::Archive::new(tar.as_slice());
            let entries: Vec<_> =
                read.entries().unwrap().map(|it| it.unwrap().path_bytes().into_owned()).collect();
            assert_eq!(entries, [name.as_bytes()]);
            assert_eq!(owner_in(&tar), Some(owner));
        }
        let directory = archive_of("wtd-volume/", &[], tar::EntryType::Directory, owner).unwrap();
        assert!(
            tar::Archive::new(directory.as_slice())
                .entries()
                .unwrap()
                .next()
                .unwrap()
                .unwrap()
                .path_bytes()
                .ends_with(b"/")
        );
        archive_of("../escape", b"", tar::EntryType::Regular, owner).unwrap_err();
    }

    #[test]
    fn a_directory_is_empty_when_a_whole_archive_of_it_says_so() {
        assert_eq!(has_entries_in(&archive(0)), Some(false));
        assert_eq!(has_entries_in(&archive(1)), Some(true));
        assert_eq!(has_entries_in(&archive(3)[..1536]), Some(true), "the second header is enough");
    }

    #[test]
    fn what_can_not_be_understood_is_not_an_empty_directory() {
        assert_eq!(has_entries_in(&[]), None);
        assert_eq!(has_entries_in(&[0; 1024]), None);
        assert_eq!(has_entries_in(&[b'x'; 2048]), None);
        for length in [100, 512, 1000, 1024, 1535] {
            assert_eq!(has_entries_in(&archive(0)[..length]), None, "{length}");
        }
        assert_eq!(has_entries_in(&archive(1)[..800]), None);
        let mut broken = archive(1);
        broken[512..600].fill(0xff);
        assert_eq!(has_entries_in(&broken), None);
        let mut file = archive(0);
        file[156] = b'0';
        assert_eq!(has_entries_in(&file), None);
    }
}
