//! The Compose override of a worktree: recorded, put into its git dir, and taken away again.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use wtd_env_file::block;
use wtd_protocol::compose::{
    DIGEST_LENGTH, FILE_NAME, MAX_BYTES, MAX_FILES, MAX_FURTHER_BYTES, MAX_FURTHER_FILES, digest, range,
};
use wtd_protocol::requests::ComposeRequest;
use wtd_protocol::{Problem, ProblemType, State};

use super::Service;
use crate::domain::allocation::Allocation;
use crate::domain::compose::{Compose, PortTaken};
use crate::domain::compose_override::{complaint, compose_file, inputs};
use crate::domain::draft::Draft;
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::domain::names::VolumeName;
use crate::domain::observation::Claim;
use crate::git::files::{self, ReadError};
use crate::problem;
use crate::registry::{Decision, allocation_file, compose_override};

/// The longest value of `COMPOSE_FILE`, in bytes: what the allocation file and an environment can hold with ease.
const MAX_COMPOSE_FILE_BYTES: usize = 16 * 1024;

/// The largest Compose file whose changes are noticed, in bytes.
const MAX_COMPOSE_BYTES: usize = 4 * 1024 * 1024;

/// What an override is told to be.
struct Wanted {
    compose: Compose,
    volumes: BTreeSet<VolumeName>,
}

/// What a step came to.
enum Outcome {
    Recorded,
    Taken(PortTaken),
    Gone,
}

impl Service {
    /// Records the override of the worktree that holds `path`, and puts it into its git dir. From then on
    /// `COMPOSE_FILE` is among the worktree's variables. Refused when another allocation has one of its ports.
    pub async fn set_override(&self, path: PathBuf, request: ComposeRequest) -> Result<Bytes, Problem> {
        let known = self.known(&path).await?;
        if known.id.to_string() != request.allocation {
            return Err(changed(&known));
        }
        let Wanted { compose, volumes } = wanted(&known, &request)
            .map_err(|why| Problem::new(ProblemType::BadRequest, why, "see /v1/openapi.json"))?;
        // Before the file that is there is replaced; the step below is what counts.
        let mut trial = Draft::new(&self.0.writer.snapshot().ledger);
        let trial = trial.set_override(&known, compose.clone(), &volumes);
        if let Ok(Err(taken)) = trial {
            return Err(port_taken(&self.0.writer.snapshot().ledger, &taken));
        }
        // The file first: a look that begins after the record is there has to find it.
        let written = tokio::task::block_in_place(|| compose_override::write(&known.git_dir, &request.text))
            .map_err(|error| {
                Problem::new(
                    ProblemType::PathUnreadable,
                    format!("{} can't be written: {error}", known.git_dir.join(FILE_NAME).display()),
                    "see that the git dir has room and can be written",
                )
            })?;
        let id = known.id;
        let recorded = self
            .0
            .writer
            .commit(move |ledger, _| {
                let live = |known: &&Arc<Allocation>| known.state == State::Active && known.ending.is_none();
                let Some(now) = ledger.allocation(id).filter(live) else { return Ok((None, Outcome::Gone)) };
                let mut draft = Draft::new(ledger);
                if let Err(taken) = draft.set_override(now, compose, &volumes)? {
                    return Ok((None, Outcome::Taken(taken)));
                }
                Ok((Some(decision(draft)), Outcome::Recorded))
            })
            .await;
        let problem = match recorded {
            Ok(Outcome::Recorded) => return self.told_of_override(id),
            Ok(Outcome::Taken(taken)) => port_taken(&self.0.writer.snapshot().ledger, &taken),
            Ok(Outcome::Gone) => changed(&known),
            Err(error) => problem::not_written(&error),
        };
        tokio::task::block_in_place(|| written.undo());
        Err(problem)
    }

    /// Takes the override of the worktree that holds `path` away; the project's own Compose files stand again.
    pub async fn remove_override(&self, path: PathBuf) -> Result<Bytes, Problem> {
        let known = self.known(&path).await?;
        let id = known.id;
        self.0
            .writer
            .commit(move |ledger, _| {
                let Some(now) = ledger.allocation(id) else { return Ok((None, ())) };
                let mut draft = Draft::new(ledger);
                draft.remove_override(now)?;
                Ok((Some(decision(draft)), ()))
            })
            .await
            .map_err(|error| problem::not_written(&error))?;
        tokio::task::block_in_place(|| compose_override::remove(&known.git_dir));
        self.told_of_override(id)
    }

    /// Writes the allocation file anew, and gives the answer.
    fn told_of_override(&self, id: AllocationId) -> Result<Bytes, Problem> {
        let snapshot = self.0.writer.snapshot();
        if let Some(allocation) = snapshot.ledger.allocation(id) {
            tokio::task::block_in_place(|| allocation_file::write(allocation, &Claim::None));
        }
        snapshot.answer(id).cloned().ok_or_else(problem::shutting_down)
    }
}

fn decision(draft: Draft) -> Decision {
    Decision { ledger: draft.ledger, records: draft.records, seen: None }
}

/// What to do about an override that is not what it should be.
pub(super) const REMEDY: &str =
    "run `wtd-client compose --write` there again, or `wtd-client compose --remove`";

/// What is wrong with the override of a worktree. Reads the project's Compose files.
pub(super) fn what_is_wrong(allocation: &Allocation) -> Option<String> {
    if allocation.state != State::Active {
        // Where there is no worktree there is nothing to write an override for.
        return None;
    }
    match &allocation.compose {
        Some(compose) => {
            let registered = complaint(allocation).map(str::to_owned);
            registered
                .or_else(|| changed_file(allocation, compose))
                .or_else(|| changed_further(allocation, compose))
        }
        None => {
            let file = allocation.git_dir.join(FILE_NAME);
            let is_there = file.symlink_metadata().is_ok();
            is_there.then(|| {
                format!("{} is not what was written for this worktree, and is not used", file.display())
            })
        }
    }
}

fn changed_file(allocation: &Allocation, compose: &Compose) -> Option<String> {
    let mut contents = Vec::new();
    for file in &compose.files {
        let file = allocation.path.join(file);
        match files::read_up_to(&file, MAX_COMPOSE_BYTES) {
            Ok(content) => contents.push(content),
            Err(error) => return Some(format!("the Compose file {}: {error}", file.display())),
        }
    }
    (digest(contents) != compose.files_digest)
        .then(|| "the Compose files have changed since the override was written".to_owned())
}

fn changed_further(allocation: &Allocation, compose: &Compose) -> Option<String> {
    compose.further.iter().find_map(|(file, before)| {
        let file = allocation.path.join(file);
        let now = match files::read_up_to(&file, MAX_COMPOSE_BYTES) {
            Ok(content) => block::outside(&content),
            Err(ReadError::NotFound) => Vec::new(),
            Err(error) => return Some(format!("{}, which Compose reads too: {error}", file.display())),
        };
        (digest([now]) != *before).then(|| {
            format!("{}, which Compose reads too, has changed since the override was written", file.display())
        })
    })
}

/// The override that a request tells of, or what is wrong with the request.
fn wanted(allocation: &Allocation, request: &ComposeRequest) -> Result<Wanted, String> {
    let separator = request.separator;
    if !separator.is_ascii_punctuation() || "/._-".contains(separator) {
        return Err(format!("{separator:?} can't separate paths"));
    }
    if request.files.is_empty() || request.files.len() > MAX_FILES {
        return Err(format!("an override goes with 1 to {MAX_FILES} Compose files"));
    }
    if request.files.iter().map(String::len).sum::<usize>() > MAX_COMPOSE_FILE_BYTES {
        return Err(format!("the Compose files' paths are longer than {MAX_COMPOSE_FILE_BYTES} bytes"));
    }
    let files = request.files.iter().map(|file| file_of(allocation, file)).collect::<Result<_, _>>()?;
    let further = further_of(allocation, &request.further)?;
    if request.text.len() > MAX_BYTES {
        return Err(format!("the override is larger than {MAX_BYTES} bytes"));
    }
    if request.files_digest.len() != DIGEST_LENGTH {
        return Err("files_digest is not a SHA-256 in base64".to_owned());
    }
    let mut ports = BTreeSet::new();
    for text in &request.ports {
        ports.extend(range(text).ok_or_else(|| format!("{text:?} is neither a port nor a range of ports"))?);
    }
    // Every name that ends in the offset is this allocation's alone.
    let suffix = format!("_{}", allocation.offset);
    let volume = |name: &String| match VolumeName::new(name) {
        Ok(volume) if name.ends_with(&suffix) => Ok(volume),
        Ok(_) => Err(format!("{name:?} does not end in {suffix}")),
        Err(error) => Err(error.to_string()),
    };
    let compose = Compose {
        files,
        files_digest: request.files_digest.clone(),
        further,
        separator,
        digest: Sha256::digest(&request.text).into(),
        inputs: inputs(allocation),
        ports,
    };
    let with_it = Allocation { compose: Some(compose.clone().into()), ..allocation.clone() };
    if compose_file(&with_it).is_none() {
        return Err(
            "the files' paths and that of the git dir can't be written in COMPOSE_FILE: one is not UTF-8, or \
                    they hold every character that could separate them"
                .to_owned(),
        );
    }
    Ok(Wanted { compose, volumes: request.volumes.iter().map(volume).collect::<Result<_, _>>()? })
}

/// A Compose file as it is recorded: below the worktree's root without the root, so that it moves with it.
fn file_of(allocation: &Allocation, file: &str) -> Result<PathBuf, String> {
    let path = Path::new(file);
    if !path.is_absolute() || file.contains('\0') {
        return Err(format!("{file:?} is not an absolute path"));
    }
    Ok(path.strip_prefix(&allocation.path).unwrap_or(path).to_owned())
}

fn further_of(
    allocation: &Allocation,
    further: &BTreeMap<String, String>,
) -> Result<BTreeMap<PathBuf, String>, String> {
    let bytes = further.keys().map(String::len).sum::<usize>();
    if further.len() > MAX_FURTHER_FILES || bytes > MAX_FURTHER_BYTES {
        return Err(format!(
            "further has more than {MAX_FURTHER_FILES} files, or paths of more than {MAX_FURTHER_BYTES} bytes"
        ));
    }
    if further.values().any(|digest| digest.len() != DIGEST_LENGTH) {
        return Err("a digest of further is not a SHA-256 in base64".to_owned());
    }
    further.iter().map(|(file, digest)| Ok((file_of(allocation, file)?, digest.clone()))).collect()
}

fn changed(allocation: &Allocation) -> Problem {
    Problem::new(
        ProblemType::AllocationChanged,
        format!("{} has been given another allocation meanwhile", allocation.path.display()),
        "run it again",
    )
}

fn port_taken(ledger: &Ledger, taken: &PortTaken) -> Problem {
    let holder = taken.holder.and_then(|id| ledger.allocation(id));
    let whose = holder.map_or_else(
        || "that of a server which other worktrees share".to_owned(),
        |holder| format!("taken by {} (offset {})", holder.path.display(), holder.offset),
    );
    Problem::new(
        ProblemType::PortTaken,
        format!("port {} is {whose}", taken.port),
        "`wtd-client reassign` gives the worktree another offset",
    )
}
