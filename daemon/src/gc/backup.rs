//! Volumes as tar files: written and read back before a volume is dropped, and brought back from.
//!
//! A file is an ordinary tar archive that every tar reads. Its first entry is a pax global header (POSIX pax, "pax
//! Extended Header") that says which volume it was, so that one file is all that has to be kept.

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Bytes;
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;
use wtd_protocol::gc::{GcEvent, Restored};
use wtd_protocol::{Problem, ProblemType};

use super::engine_problem;
use crate::domain::allocation::Allocation;
use crate::domain::gc::Volume;
use crate::domain::names::VolumeName;
use crate::engine::{Connection, EngineError, root_owner_in};

/// The name of our record in the pax header: a vendor's name in capitals, then a keyword (POSIX pax).
const KEYWORD: &str = "WTD.volume";

/// How much is read and written at once.
const PIECE: usize = 256 * 1024;

/// How often it is told how much has been written, in bytes.
const TELL_EVERY: u64 = 16 * 1024 * 1024;

/// How long unpacking a volume may take.
const UNPACKING: Duration = Duration::from_hours(2);

/// Which volume a file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    /// The volume's name.
    volume: String,
    /// Its labels.
    labels: BTreeMap<String, String>,
    /// The worktree's path, as text.
    worktree: String,
    /// The engine that had it.
    engine: String,
}

/// Why there is no backup.
#[derive(Debug, thiserror::Error)]
pub(super) enum BackupError {
    /// The file can't be written or read.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// What was written is not what is read back.
    #[error("{}: what was read back is not what was written: {why}", path.display())]
    Unlike {
        /// The file.
        path: PathBuf,
        /// What differs.
        why: String,
    },
    /// The engine gives files without their owners.
    #[error(
        "Podman's API does not tell who owns the files of volume {0}, so a backup of it would not be whole; `podman volume \
         export {0}` writes one"
    )]
    NoOwners(VolumeName),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl BackupError {
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Engine(error) => engine_problem(error),
            Self::NoOwners(_) => {
                Problem::new(ProblemType::EngineUnavailable, self.to_string(), "gc without --backup drops it")
            }
            Self::File { .. } | Self::Unlike { .. } => Problem::new(
                ProblemType::PathUnreadable,
                self.to_string(),
                "see that the directory can be written and has room; the volume is kept",
            ),
        }
    }
}

/// Writes a volume into a file of its own in `directory`, and reads it back; gives the file.
pub(super) async fn write(
    owner: &str,
    connection: &Connection,
    allocation: &Allocation,
    volume: &Volume,
    name: &VolumeName,
    directory: &Path,
    events: &mpsc::Sender<GcEvent>,
) -> Result<PathBuf, BackupError> {
    if !connection.tells_owners() {
        return Err(BackupError::NoOwners(name.clone()));
    }
    let manifest = Manifest {
        volume: volume.name.clone(),
        labels: volume.labels.clone(),
        worktree: allocation.path.to_string_lossy().into_owned(),
        engine: connection.id().to_string(),
    };
    let held = connection.hold(name, true, owner).await?;
    let written = async {
        // Had it been removed meanwhile, holding it has made an empty one.
        if !connection.is_still(volume, name).await? {
            let why = "the volume was removed meanwhile".to_owned();
            return Err(BackupError::Unlike { path: directory.to_owned(), why });
        }
        let mut draft = Draft::begin(directory, &volume.name, &manifest)?;
        let mut stream = std::pin::pin!(connection.read(&held));
        let mut told = 0;
        while let Some(piece) = stream.next().await {
            let piece = piece?;
            draft = tokio::task::block_in_place(|| draft.add(&piece))?;
            if draft.bytes - told >= TELL_EVERY {
                told = draft.bytes;
                // Whether anybody listens is asked before the volume is dropped.
                drop(events.try_send(GcEvent::Written { bytes: told }));
            }
        }
        tokio::task::block_in_place(|| draft.finish())
    };
    let written = written.await;
    connection.let_go(held).await?;
    written
}

/// A file in the making: under another name, so that what is half written is never taken for a backup.
struct Draft {
    file: File,
    /// Where it is written.
    here: PathBuf,
    /// Where it will be.
    path: PathBuf,
    digest: Sha256,
    bytes: u64,
}

impl Draft {
    fn begin(directory: &Path, volume: &str, manifest: &Manifest) -> Result<Self, BackupError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| BackupError::File { path, source }
        };
        std::fs::create_dir_all(directory).map_err(failed(directory))?;
        let now = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
        let path = directory.join(format!("{volume}-{now}.tar"));
        let here = path.with_extension("tar.part");
        let file =
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&here).map_err(failed(&here))?;
        let this = Self { file, here, path, digest: Sha256::new(), bytes: 0 };
        this.add(&head(manifest))
    }

    fn add(mut self, piece: &[u8]) -> Result<Self, BackupError> {
        self.file.write_all(piece).map_err(|source| BackupError::File { path: self.here.clone(), source })?;
        self.digest.update(piece);
        self.bytes += piece.len() as u64;
        Ok(self)
    }

    /// Has it on disk, reads it back, and gives it its name.
    fn finish(self) -> Result<PathBuf, BackupError> {
        let failed = |source| BackupError::File { path: self.here.clone(), source };
        self.file.sync_all().map_err(failed)?;
        let unlike = |why: String| BackupError::Unlike { path: self.here.clone(), why };
        let (read, digest) = digest_of(&self.here).map_err(failed)?;
        if (read, digest) != (self.bytes, self.digest.clone().finalize().into()) {
            return Err(unlike(format!("{read} bytes of {}", self.bytes)));
        }
        let content = inspect(&self.here).map_err(|error| unlike(error.to_string()))?;
        if content.entries == 0 {
            return Err(unlike("there is not even the volume's own directory in it".to_owned()));
        }
        std::fs::rename(&self.here, &self.path).map_err(failed)?;
        let directory = self.path.parent().unwrap_or(&self.path);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(self.path)
    }
}

/// The pax global header with the manifest: a header block, and the record filled up to whole blocks.
fn head(manifest: &Manifest) -> Vec<u8> {
    let json = serde_json::to_string(manifest).unwrap_or_default();
    // `LENGTH KEYWORD=VALUE\n`, where LENGTH counts its own digits.
    let rest = format!(" {KEYWORD}={json}\n");
    let mut length = rest.len();
    while length != rest.len() + length.to_string().len() {
        length = rest.len() + length.to_string().len();
    }
    let record = format!("{length}{rest}");
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(tar::EntryType::XGlobalHeader);
    header.set_size(record.len() as u64);
    header.set_mode(0o600);
    // It can't fail: the name is short.
    drop(header.set_path("pax_global_header"));
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend_from_slice(record.as_bytes());
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// What a file holds.
#[derive(Debug)]
pub(super) struct Content {
    /// The manifest; none in a file of somebody else's.
    manifest: Option<Manifest>,
    /// Where the archive proper begins.
    begins: u64,
    /// Entries: files, directories, links.
    entries: u64,
}

/// Reads a file from its beginning to its end: every entry, and the end that an archive has to have.
fn inspect(path: &Path) -> io::Result<Content> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut archive = tar::Archive::new(BufReader::with_capacity(PIECE, file));
    let mut content = Content { manifest: None, begins: 0, entries: 0 };
    let mut end = 0;
    for entry in archive.entries()? {
        let mut entry = entry?;
        let size = io::copy(&mut entry, &mut io::sink())?;
        if size != entry.size() {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "an entry is cut off"));
        }
        end = (entry.raw_file_position() + size).next_multiple_of(512);
        if entry.header().entry_type() == tar::EntryType::XGlobalHeader {
            if content.entries == 0 && content.manifest.is_none() {
                content.manifest = manifest(path, entry.raw_file_position(), size)?;
                content.begins = end;
            }
        } else {
            content.entries += 1;
        }
    }
    // Two blocks of zeros end an archive; without them more may have been meant to follow.
    if length < end + EMPTY_END {
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it has no end"));
    }
    Ok(content)
}

/// How much has the whole header of an archive's first entry, which is the volume's own directory, in bytes.
const ROOT_ENTRY: u64 = 8 * 1024;

/// How much ends an archive, in bytes.
const EMPTY_END: u64 = 1024;

/// The manifest in the records of a pax header.
fn manifest(path: &Path, at: u64, size: u64) -> io::Result<Option<Manifest>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(at))?;
    let mut records = Vec::new();
    file.take(size.min(1024 * 1024)).read_to_end(&mut records)?;
    let Some(record) = records.split(|byte| *byte == b'\n').find_map(|line| {
        let line = std::str::from_utf8(line).ok()?;
        line.split_once(' ')?.1.strip_prefix(KEYWORD)?.strip_prefix('=')
    }) else {
        return Ok(None);
    };
    Ok(Some(serde_json::from_str(record)?))
}

fn digest_of(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = File::open(path)?;
    let (mut digest, mut bytes, mut piece) = (Sha256::new(), 0, vec![0; PIECE]);
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            return Ok((bytes, digest.finalize().into()));
        }
        digest.update(piece.get(..read).unwrap_or_default());
        bytes += read as u64;
    }
}

/// A file that is to be brought back, looked at.
#[derive(Debug)]
pub struct Restore {
    connection: Connection,
    path: PathBuf,
    content: Content,
    name: VolumeName,
    labels: HashMap<String, String>,
    owner: String,
}

impl Restore {
    /// Reads the file, and sees that the engine has no volume of that name.
    pub(super) async fn prepare(
        owner: &str,
        connection: Connection,
        path: PathBuf,
        volume: Option<&str>,
    ) -> Result<Self, Problem> {
        let bad = |why: String| {
            Problem::new(
                ProblemType::PathUnreadable,
                format!("{}: {why}", path.display()),
                "give a file that `wtd-client gc --backup` wrote",
            )
        };
        let to_read = path.clone();
        let content = tokio::task::spawn_blocking(move || inspect(&to_read))
            .await
            .map_err(|_| super::shutting_down())?
            .map_err(|error| bad(error.to_string()))?;
        let Some(manifest) = &content.manifest else {
            return Err(bad("it does not say which volume it was".to_owned()));
        };
        let name = VolumeName::new(volume.unwrap_or(&manifest.volume)).map_err(|error| {
            Problem::new(ProblemType::BadRequest, error.to_string(), "name another with --volume")
        })?;
        let found = connection.volume(&name).await.map_err(|error| engine_problem(&error))?;
        if found.is_some() {
            return Err(Problem::new(
                ProblemType::VolumeExists,
                format!("volume {name} exists"),
                "name another with --volume; nothing is ever put into a volume that is there",
            ));
        }
        let labels = manifest.labels.clone().into_iter().collect();
        Ok(Self { connection, path, content, name, labels, owner: owner.to_owned() })
    }

    /// Makes the volume and fills it. What can't be filled is removed again.
    pub async fn run(self) -> Result<Restored, Problem> {
        let failed = |error: EngineError| engine_problem(&error);
        self.connection.create_volume(&self.name, self.labels.clone()).await.map_err(failed)?;
        let filled = self.fill().await;
        if filled.is_err() {
            // Ours, and half filled. Where that fails too, it is told of by its name.
            drop(self.connection.remove_volume(&self.name).await);
        }
        filled?;
        Ok(Restored {
            volume: self.name.to_string(),
            engine: self.connection.host().to_string(),
            entries: self.content.entries,
            failure: None,
        })
    }

    async fn fill(&self) -> Result<(), Problem> {
        let failed = |error: EngineError| engine_problem(&error);
        let unreadable = |error: io::Error| {
            Problem::new(ProblemType::PathUnreadable, error.to_string(), "see that the file can be read")
        };
        let held = self.connection.hold(&self.name, false, &self.owner).await.map_err(failed)?;
        let mut file = File::open(&self.path).map_err(unreadable)?;
        let begins = SeekFrom::Start(self.content.begins);
        file.seek(begins).map_err(unreadable)?;
        let mut first = Vec::new();
        (&mut file).take(ROOT_ENTRY).read_to_end(&mut first).map_err(unreadable)?;
        file.seek(begins).map_err(unreadable)?;
        if let Some(root) = root_owner_in(&first) {
            self.connection.own(&held, root).await.map_err(failed)?;
        }
        let pieces = futures_util::stream::unfold(file, |mut file| async {
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let read = file.read(&mut piece);
                (file, read.map(|length| piece.drain(..length).collect::<Vec<_>>()))
            });
            match read.await {
                Ok((_, Ok(piece))) if piece.is_empty() => None,
                Ok((file, piece)) => Some((piece.map(Bytes::from), file)),
                Err(_) => None,
            }
        });
        let written = self.connection.write(&held, pieces, UNPACKING).await.map_err(failed);
        let let_go = self.connection.let_go(held).await.map_err(failed);
        written.and(let_go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest_of_a_test() -> Manifest {
        Manifest {
            volume: "db_data_10000".to_owned(),
            labels: BTreeMap::from([("a".to_owned(), "b=c\n d".to_owned())]),
            worktree: "/w/ä\n".to_owned(),
            engine: "docker X".to_owned(),
        }
    }

    /// A tar file as an engine would write it, with some files.
    fn tar_of(files: u32) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for n in 0..files {
            let content = vec![7; 1000 * n as usize];
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o644);
            builder.append_data(&mut header, format!("./{}{n}", "d/".repeat(80)), &content[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_backup_is_a_tar_that_says_which_volume_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let manifest = manifest_of_a_test();
        let draft = Draft::begin(&directory.path().join("deep/er"), "db_data_10000", &manifest).unwrap();
        let path = draft.add(&tar_of(5)).unwrap().finish().unwrap();
        let content = inspect(&path).unwrap();
        assert_eq!(content.manifest, Some(manifest));
        assert_eq!(content.entries, 5);
        assert_eq!(std::fs::read(&path).unwrap()[usize::try_from(content.begins).unwrap()..], tar_of(5));
        let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().unwrap();
        assert!(listed.status.success(), "{listed:?}");
        assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().count(), 5);
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
    }

    #[test]
    fn what_is_cut_off_is_no_backup() {
        let directory = tempfile::tempdir().unwrap();
        let whole = tar_of(3);
        for length in [0, 100, 512, 1000, whole.len() / 2, whole.len() - 1024, whole.len() - 1] {
            let path = directory.path().join(length.to_string());
            let draft = Draft::begin(&path, "v", &manifest_of_a_test()).unwrap();
            let ended = draft.add(&whole[..length]).unwrap().finish();
            assert!(ended.is_err(), "{length} of {}", whole.len());
            let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()).collect();
            assert!(names.iter().all(|it| it.extension().is_some_and(|end| end == "part")), "{names:?}");
        }
    }

    #[test]
    fn a_tar_of_somebody_elses_is_not_brought_back() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("x.tar");
        std::fs::write(&path, tar_of(2)).unwrap();
        assert_eq!(inspect(&path).unwrap().manifest, None);
        std::fs::write(&path, "no tar at all, and long enough to be a header block ".repeat(40)).unwrap();
        assert!(inspect(&path).is_err());
    }
}
