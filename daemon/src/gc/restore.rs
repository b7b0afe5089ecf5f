//! Brings a volume back from a file that a backup wrote.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Duration;

use axum::body::Bytes;
use wtd_protocol::gc::Restored;
use wtd_protocol::{Problem, ProblemType};

use super::archive::{Content, inspect};
use crate::domain::names::VolumeName;
use crate::engine::{Connection, EngineError, root_owner_in};
use crate::problem;

/// How much is read at once, in bytes.
const PIECE: usize = 256 * 1024;

/// How long unpacking a volume may take.
const UNPACKING: Duration = Duration::from_hours(2);

/// How much has the whole header of an archive's first entry, which is the volume's own directory, in bytes.
const ROOT_ENTRY: u64 = 8 * 1024;

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
            .map_err(|_| problem::shutting_down())?
            .map_err(|error| bad(error.to_string()))?;
        let Some(manifest) = &content.manifest else {
            return Err(bad("it does not say which volume it was".to_owned()));
        };
        let name = VolumeName::new(volume.unwrap_or(&manifest.volume)).map_err(|error| {
            Problem::new(ProblemType::BadRequest, error.to_string(), "name another with --volume")
        })?;
        let found = connection.volume(&name).await.map_err(|error| problem::no_engine(&error))?;
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
        let failed = |error: EngineError| problem::no_engine(&error);
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
        let failed = |error: EngineError| problem::no_engine(&error);
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
        let pieces = futures_util::stream::unfold(Some(file), |file| async {
            let mut file = file?;
            let read = tokio::task::spawn_blocking(move || {
                let mut piece = vec![0; PIECE];
                let length = file.read(&mut piece)?;
                piece.truncate(length);
                Ok::<_, io::Error>((file, piece))
            });
            // What ends early must never look whole, so whatever goes wrong is an error of the stream.
            match read.await.map_err(io::Error::other).flatten() {
                Ok((_, piece)) if piece.is_empty() => None,
                Ok((file, piece)) => Some((Ok(Bytes::from(piece)), Some(file))),
                Err(error) => Some((Err(error), None)),
            }
        });
        let written = self.connection.write(&held, pieces, UNPACKING).await.map_err(failed);
        let let_go = self.connection.let_go(held).await.map_err(failed);
        written.and(let_go)
    }
}
