//! Which Compose files a project has: those that a person names, else those that Compose itself would read.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use wtd_env_file::block;
use wtd_protocol::compose::{self, SEPARATOR, digest, is_ours};
use wtd_protocol::variable::{COMPOSE_FILE, COMPOSE_PATH_SEPARATOR};

use super::docker::{Docker, memory};
use crate::daemon::text_variable;
use crate::environment::absolute;
use crate::error::Error;

/// The names that Compose looks for, best first, and those of files that go on top of what it finds (Compose
/// specification, "The Compose file"; compose-go, `cli/options.go`).
const NAMES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// The largest Compose file, in bytes.
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The project's Compose files.
#[derive(Debug)]
pub(crate) struct Files {
    /// Absolute paths, in the order in which Compose reads them.
    pub(crate) paths: Vec<PathBuf>,
    /// [`compose::digest`] of what they hold.
    pub(crate) digest: String,
}

impl Files {
    /// The files that `named` names; else those of the person's own `COMPOSE_FILE`, in the environment or in `.env`; else
    /// those that an override was written for before; else what Compose finds in `directory` and above, up to `root`.
    pub(crate) fn find(
        root: &Path,
        directory: &Path,
        named: &[PathBuf],
        written: &[String],
        docker: &Docker,
    ) -> Result<Self, Error> {
        if !named.is_empty() {
            return Self::read(named.iter().map(|file| absolute(Some(file))).collect::<Result<_, _>>()?);
        }
        if let Some(files) = from_environment() {
            return Self::read(files.iter().map(|file| absolute(Some(file))).collect::<Result<_, _>>()?);
        }
        if !written.is_empty() {
            return Self::read(written.iter().map(PathBuf::from).collect());
        }
        if let Some(files) = from_dotenv(directory, docker)? {
            return Self::read(files.iter().map(|file| directory.join(file)).collect());
        }
        let found = directory
            .ancestors()
            .take_while(|above| above.starts_with(root))
            .find_map(in_directory)
            .ok_or_else(|| {
                Error::failed(
                    format!("there is no Compose file in {}", directory.display()),
                    "name the project's with --file",
                )
            })?;
        Self::read(found)
    }

    fn read(paths: Vec<PathBuf>) -> Result<Self, Error> {
        if paths.len() > compose::MAX_FILES {
            return Err(Error::failed(
                format!("there are more than {} Compose files", compose::MAX_FILES),
                "name fewer",
            ));
        }
        let contents = paths.iter().map(|path| content(path)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { digest: digest(contents), paths })
    }

    /// The directory that Compose takes relative paths in the files to be in.
    pub(crate) fn directory(&self) -> &Path {
        self.paths.first().and_then(|first| first.parent()).unwrap_or(Path::new("/"))
    }
}

/// The content of a file that Compose reads.
pub(super) fn content(path: &Path) -> Result<Vec<u8>, Error> {
    let failed = |why: String| {
        Error::failed(format!("the Compose file {}: {why}", path.display()), "name the project's with --file")
    };
    if !path.metadata().map_err(|error| failed(error.to_string()))?.is_file() {
        return Err(failed("it is not a file".to_owned()));
    }
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| failed(error.to_string()))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(failed(format!("it is larger than {MAX_BYTES} bytes")));
    }
    Ok(bytes)
}

/// What separates paths in the person's `COMPOSE_FILE`.
pub(crate) fn separator() -> char {
    separator_of(text_variable(COMPOSE_PATH_SEPARATOR))
}

/// What separates them where `COMPOSE_PATH_SEPARATOR` has this value.
pub(crate) fn separator_of(set: Option<String>) -> char {
    set.and_then(|text| text.chars().next()).filter(char::is_ascii_punctuation).unwrap_or(SEPARATOR)
}

/// The person's own `COMPOSE_FILE`. One with an override of wtd's in it was set by wtd, maybe for another worktree.
fn from_environment() -> Option<Vec<PathBuf>> {
    let files = text_variable(COMPOSE_FILE)?;
    (!is_ours(&files, separator())).then(|| split(&files, separator()))
}

fn split(files: &str, separator: char) -> Vec<PathBuf> {
    files.split(separator).filter(|file| !file.is_empty()).map(PathBuf::from).collect()
}

/// `COMPOSE_FILE` of the `.env` file in `directory`, as Compose reads it. One in a block of wtd's, which may have been copied
/// from another worktree, is nobody's choice; one outside of it still is.
fn from_dotenv(directory: &Path, docker: &Docker) -> Result<Option<Vec<PathBuf>>, Error> {
    let dotenv = directory.join(".env");
    if !dotenv.metadata().is_ok_and(|found| found.is_file() && found.len() <= MAX_BYTES) {
        return Ok(None);
    }
    let content = content(&dotenv)?;
    let mentions = |text: &[u8]| text.windows(COMPOSE_FILE.len()).any(|text| text == COMPOSE_FILE.as_bytes());
    if !mentions(&content) {
        return Ok(None);
    }
    let (mut named, mut separator) = named_for(docker)?;
    if is_ours(&named, separator) {
        let outside = block::outside(&content);
        if !mentions(&outside) {
            return Ok(None);
        }
        let file = memory(&outside).map_err(|error| {
            Error::failed(format!("{} can't be read: {error}", dotenv.display()), "try again")
        })?;
        (named, separator) = named_for(&docker.with_env_file(&file))?;
    }
    let files = split(&named, separator);
    Ok((!files.is_empty() && !is_ours(&named, separator)).then_some(files))
}

/// `COMPOSE_FILE` as Compose reads it from its env file, and what separates the paths in it.
fn named_for(docker: &Docker) -> Result<(String, char), Error> {
    let question = "services: {x: {image: x}}\n\
                    x-wtd: {files: \"${COMPOSE_FILE-}\", separator: \"${COMPOSE_PATH_SEPARATOR-}\"}\n";
    let answer = docker.config(&[], &[], Some(question))?.output()?;
    let answer: serde_json::Value = serde_json::from_slice(&answer).unwrap_or_default();
    let text = |key: &str| answer.pointer(&format!("/x-wtd/{key}")).and_then(serde_json::Value::as_str);
    let separator = text("separator").and_then(|text| text.chars().next()).unwrap_or(SEPARATOR);
    Ok((text("files").unwrap_or_default().replace("$$", "$"), separator))
}

/// What Compose finds in one directory.
fn in_directory(directory: &Path) -> Option<Vec<PathBuf>> {
    let first = |names: &[&str]| names.iter().map(|name| directory.join(name)).find(|file| file.exists());
    let base = first(&NAMES)?;
    Some(std::iter::once(base).chain(first(&OVERRIDES)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_has_one_base_and_one_override() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(in_directory(directory.path()), None);
        for name in ["docker-compose.override.yml", "docker-compose.yml", "compose.yml"] {
            std::fs::write(directory.path().join(name), "").unwrap();
        }
        let found = in_directory(directory.path()).unwrap();
        assert_eq!(
            found,
            ["compose.yml", "docker-compose.override.yml"].map(|name| directory.path().join(name))
        );
    }
}
