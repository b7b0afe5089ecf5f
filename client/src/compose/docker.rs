//! Running `docker compose config`, and nothing else of Docker's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open};

use crate::daemon::variable;
use crate::deadline::{Deadline, Waited};
use crate::error::Error;
use crate::start::is_executable;

/// How long one run may take: Compose reads files, and fetches those that `include` names elsewhere.
const PATIENCE: Duration = Duration::from_mins(1);

/// The most that is read of what a run prints, in bytes.
const MAX_OUTPUT: u64 = 64 * 1024 * 1024;

/// The variable that names other env files than `.env`.
pub(super) const COMPOSE_ENV_FILES: &str = "COMPOSE_ENV_FILES";

/// The oldest Compose that replaces lists where an override says so (`!override`; Docker's manual, "Merge").
const NEEDED: &str = "2.24.4";

/// `docker`, to be run for one project.
#[derive(Debug)]
pub(crate) struct Docker {
    program: PathBuf,
    /// Where it is run: Compose reads `.env` there.
    directory: PathBuf,
    /// Variables that a run gets beside the person's own; none: it must not have this one.
    environment: BTreeMap<String, Option<OsString>>,
}

/// A run that has been started.
#[derive(Debug)]
pub(crate) struct Run {
    child: Child,
    stdout: File,
    stderr: File,
}

impl Docker {
    /// The `docker` on PATH, to be run in `directory`. An entry of PATH that is not absolute would be looked up in the
    /// working directory, which may be a stranger's repository.
    pub(crate) fn find(
        directory: &Path,
        environment: BTreeMap<String, Option<OsString>>,
    ) -> Result<Self, Error> {
        let path = variable("PATH").unwrap_or_default();
        let program = std::env::split_paths(&path)
            .filter(|entry| entry.is_absolute())
            .map(|entry| entry.join("docker"))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| {
                Error::failed(
                    "there is no `docker` on PATH",
                    format!("install Docker's client with Compose {NEEDED} or newer"),
                )
            })?;
        Ok(Self { program, directory: directory.to_owned(), environment })
    }

    /// The same with other variables.
    pub(crate) fn with(&self, environment: &BTreeMap<String, Option<OsString>>) -> Self {
        let mut all = self.environment.clone();
        all.extend(environment.clone());
        Self { program: self.program.clone(), directory: self.directory.clone(), environment: all }
    }

    /// The same with variables from this file in place of `.env`.
    pub(crate) fn with_env_file(&self, file: &File) -> Self {
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        self.with(&BTreeMap::from([(COMPOSE_ENV_FILES.to_owned(), Some(path.into()))]))
    }

    /// Starts `docker compose config` of these files, with every profile. `last` is one more file, as text.
    pub(crate) fn config(
        &self,
        files: &[PathBuf],
        options: &[&str],
        last: Option<&str>,
    ) -> Result<Run, Error> {
        let mut arguments: Vec<&OsStr> = vec!["compose".as_ref()];
        for file in files {
            arguments.extend([OsStr::new("-f"), file.as_os_str()]);
        }
        if last.is_some() {
            arguments.extend([OsStr::new("-f"), "-".as_ref()]);
        }
        arguments.extend([OsStr::new("--profile"), "*".as_ref()]);
        if files.is_empty() {
            arguments.extend([OsStr::new("--project-directory"), self.directory.as_os_str()]);
        }
        arguments.extend(["config", "--format", "json"].map(OsStr::new));
        arguments.extend(options.iter().map(OsStr::new));
        self.start(&arguments, last.unwrap_or_default()).map_err(|error| {
            Error::failed(format!("{} can't be run: {error}", self.program.display()), "run it by hand")
        })
    }

    fn start(&self, arguments: &[&OsStr], stdin: &str) -> io::Result<Run> {
        // Files in memory, so that a run never waits for a reader.
        let (input, stdout, stderr) = (memory(stdin.as_bytes())?, memory(b"")?, memory(b"")?);
        let mut command = Command::new(&self.program);
        command
            .args(arguments)
            .current_dir(&self.directory)
            .env("PWD", &self.directory)
            // The files are named; what these say is of an earlier override.
            .env_remove("COMPOSE_FILE")
            .env_remove("COMPOSE_PATH_SEPARATOR")
            .stdin(Stdio::from(input))
            .stdout(Stdio::from(stdout.try_clone()?))
            .stderr(Stdio::from(stderr.try_clone()?))
            // `docker` runs Compose as a process of its own: both are ended together.
            .process_group(0);
        for (name, value) in &self.environment {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Ok(Run { child: command.spawn()?, stdout, stderr })
    }
}

impl Run {
    /// What the run printed.
    pub(crate) fn output(mut self) -> Result<Vec<u8>, Error> {
        let failed =
            |error: io::Error| Error::failed(format!("docker compose config: {error}"), "run it by hand");
        match self.wait().map_err(failed)? {
            Waited::Ready => {}
            Waited::TimedOut => {
                return Err(Error::failed(
                    format!("docker compose config has not ended within {} s", PATIENCE.as_secs()),
                    "run it by hand to see what it waits for",
                ));
            }
        }
        let status = self.child.wait().map_err(failed)?;
        let stdout = content(&mut self.stdout).map_err(failed)?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = content(&mut self.stderr).map_err(failed)?;
        Err(explained(&String::from_utf8_lossy(&stderr)))
    }

    /// Waits for the end, and ends the run when the time is over.
    fn wait(&mut self) -> io::Result<Waited> {
        let id = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::Other)?;
        let process = pidfd_open(id, PidfdFlags::empty())?;
        let waited = Deadline::after(PATIENCE).wait_readable(process.as_fd())?;
        if waited == Waited::TimedOut {
            kill_process_group(id, Signal::KILL)?;
            self.child.wait()?;
        }
        Ok(waited)
    }
}

/// A file in memory with this content, to be read from its beginning.
pub(super) fn memory(content: &[u8]) -> io::Result<File> {
    let mut file = File::from(memfd_create("wtd-compose", MemfdFlags::CLOEXEC)?);
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

fn content(file: &mut File) -> io::Result<Vec<u8>> {
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(MAX_OUTPUT).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What went wrong, from what was printed on standard error.
fn explained(stderr: &str) -> Error {
    // Without the plugin, `docker` takes `compose` for an unknown command, in words that change with its version.
    let no_plugin =
        ["is not a docker command", "unknown command: docker compose", "unknown shorthand flag: 'f'"];
    if no_plugin.iter().any(|words| stderr.contains(words)) {
        return Error::failed(
            "`docker` has no Compose",
            format!("install Docker's Compose plugin, {NEEDED} or newer"),
        );
    }
    let told = stderr.lines().map(str::trim).filter(|line| !line.is_empty());
    // Warnings (of unset variables, of the obsolete `version`) come first, as log lines.
    let told: Vec<_> = told.filter(|line| !line.starts_with("time=") && !line.starts_with("WARN")).collect();
    let why = if told.is_empty() { "it failed without a word".to_owned() } else { told.join(" ") };
    Error::failed(format!("docker compose config: {why}"), "see that `docker compose config` works here")
}

/// The error for a Compose that does not do what an override asks of it.
pub(crate) fn too_old(what: &str) -> Error {
    Error::failed(
        format!("docker compose does not take the override as it is meant ({what})"),
        format!("Compose {NEEDED} or newer is needed: look at `docker compose version`"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_compose_is_told_from_files_that_it_does_not_take() {
        let text = |stderr| explained(stderr).to_string();
        for stderr in [
            "docker: 'compose' is not a docker command.\nSee 'docker --help'\n",
            "docker: unknown command: docker compose\n\nRun 'docker --help' for more information\n",
            "unknown shorthand flag: 'f' in -f\nSee 'docker --help'.\n",
        ] {
            assert!(text(stderr).starts_with("`docker` has no Compose; "), "{stderr}");
        }
        assert_eq!(
            text("time=\"x\" level=warning msg=\"y\"\nservice \"a\" refers to undefined network b\n"),
            "docker compose config: service \"a\" refers to undefined network b; see that `docker compose config` works here"
        );
        assert!(text("").contains("without a word"));
    }
}
