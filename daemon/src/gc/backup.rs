//! Volumes are written to files, and read back, before they are dropped.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use futures_util::StreamExt as _;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tracing::warn;
use wtd_protocol::gc::GcEvent;
use wtd_protocol::{Problem, ProblemType};

use super::Gc;
use super::archive::{Manifest, head, inspect};
use crate::domain::allocation::Allocation;
use crate::domain::gc::Volume;
use crate::domain::names::VolumeName;
use crate::engine::{Connection, EngineError};
use crate::problem;

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How often it is told how much has been written, in bytes.
const TELL_EVERY: u64 = 16 * 1024 * 1024;

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
    /// The daemon is about to end.
    #[error("the daemon is shutting down")]
    Ending,
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

/// What is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    /// The engine that has it.
    pub(super) connection: &'a Connection,
    /// Whose it is.
    pub(super) allocation: &'a Allocation,
    /// The volume as it was seen.
    pub(super) volume: &'a Volume,
    /// Its name.
    pub(super) name: &'a VolumeName,
}

impl BackupError {
    pub(super) fn problem(&self) -> Problem {
        match self {
            Self::Engine(error) => problem::no_engine(error),
            Self::Ending => problem::shutting_down(),
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
    gc: &Gc,
    source: &Source<'_>,
    directory: &Path,
    events: &mpsc::Sender<GcEvent>,
) -> Result<PathBuf, BackupError> {
    let Source { connection, allocation, volume, name } = *source;
    if !connection.tells_owners() {
        return Err(BackupError::NoOwners(name.clone()));
    }
    let manifest = Manifest {
        volume: volume.name.clone(),
        labels: volume.labels.clone(),
        worktree: allocation.path.to_string_lossy().into_owned(),
        engine: connection.id().to_string(),
    };
    let held = connection.hold(name, true, &gc.0.owner).await?;
    let written = async {
        // Had it been removed meanwhile, holding it has made an empty one.
        if !connection.is_still(volume, name).await? {
            let why = "the volume was removed meanwhile".to_owned();
            return Err(BackupError::Unlike { path: directory.to_owned(), why });
        }
        let mut draft = tokio::task::block_in_place(|| Draft::begin(directory, &volume.name, manifest))?;
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
    let written = tokio::select! {
        written = written => written,
        // What is half written goes with its future.
        () = gc.ending() => Err(BackupError::Ending),
    };
    let let_go = connection.let_go(held).await;
    let file = written?;
    let_go?;
    Ok(file)
}

/// A file in the making: under another name, so that what is half written is never taken for a backup. It goes with this.
struct Draft {
    file: File,
    /// Where it is written.
    here: PathBuf,
    /// Where it will be.
    path: PathBuf,
    manifest: Manifest,
    digest: Sha256,
    bytes: u64,
}

impl Drop for Draft {
    fn drop(&mut self) {
        // It is there unless it has been given its name.
        if let Err(error) = std::fs::remove_file(&self.here)
            && error.kind() != io::ErrorKind::NotFound
        {
            warn!(file = %self.here.display(), why = %error, "half a backup is left");
        }
    }
}

impl Draft {
    fn begin(directory: &Path, volume: &str, manifest: Manifest) -> Result<Self, BackupError> {
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
        let this = Self { file, here, path, manifest, digest: Sha256::new(), bytes: 0 };
        let head = head(&this.manifest).map_err(failed(&this.here))?;
        this.add(&head)
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
        if content.manifest.as_ref() != Some(&self.manifest) {
            return Err(unlike("it does not say which volume it was".to_owned()));
        }
        if content.entries == 0 {
            return Err(unlike("there is not even the volume's own directory in it".to_owned()));
        }
        std::fs::rename(&self.here, &self.path).map_err(failed)?;
        let directory = self.path.parent().unwrap_or(&self.path);
        File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)?;
        Ok(self.path.clone())
    }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

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
        let draft =
            Draft::begin(&directory.path().join("deep/er"), "db_data_10000", manifest.clone()).unwrap();
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
            let draft = Draft::begin(&path, "v", manifest_of_a_test()).unwrap();
            let ended = draft.add(&whole[..length]).unwrap().finish();
            assert!(ended.is_err(), "{length} of {}", whole.len());
            let names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|it| it.unwrap().path()).collect();
            assert!(names.is_empty(), "half a file is left: {names:?}");
        }
    }

    #[test]
    fn a_backup_that_does_not_say_which_volume_it_was_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut manifest = manifest_of_a_test();
        // More than is read of it.
        manifest.labels.insert("long".to_owned(), "x".repeat(2 * 1024 * 1024));
        let ended = Draft::begin(directory.path(), "v", manifest).unwrap().add(&tar_of(3)).unwrap().finish();
        assert!(matches!(ended, Err(BackupError::Unlike { .. })), "{ended:?}");
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
