//! Asks the git program itself, where files alone don't prove enough.
//!
//! What the repository says must not make git run anything: hooks, the file system monitor and every
//! transport are turned off, and nothing of the daemon's environment that git obeys is passed on.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};

use super::files;

/// How long git may take, tries and pauses together.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that is taken, in bytes.
const MAX_OUTPUT: u64 = 16 * 1024 * 1024;

/// How much of git's error text is kept, in bytes.
const MAX_ERROR: u64 = 4096;

/// Pauses before git is asked again: it fails when it meets a worktree that is just being made or removed.
const PAUSES: [Duration; 2] = [Duration::from_millis(20), Duration::from_millis(100)];

/// Exit code of git for a command line that it does not understand (`usage()` in `usage.c`).
const USAGE: i32 = 129;

/// Why git gave no answer. An answer that did not come is never "no worktrees".
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It could not be started, or its output could not be read.
    #[error("cannot run git: {0}")]
    Run(#[from] io::Error),
    /// It took too long.
    #[error("git did not answer within {} s", TIMEOUT.as_secs())]
    Timeout,
    /// It said more than could be true.
    #[error("git's answer is larger than {MAX_OUTPUT} bytes")]
    TooLarge,
    /// It is older than 2.36, the first with `worktree list -z`.
    #[error("git is too old to list worktrees unambiguously; install git 2.36 or newer")]
    TooOld,
    /// It failed.
    #[error("git failed ({status}): {message}")]
    Failed {
        /// How it ended.
        status: ExitStatus,
        /// The first line of what it said.
        message: String,
    },
    /// It ended well, but what it said is no list of worktrees.
    #[error("git's list of worktrees can't be understood")]
    Malformed,
}

/// The root directories that git lists for the repository, each as often as it is listed. The first is the
/// main worktree's, or the git dir where git knows no better (`git-worktree(1)`, "LIST OUTPUT FORMAT").
pub fn worktree_paths(common_dir: &Path) -> Result<Vec<PathBuf>, AskError> {
    let output = ask(OsStr::new("git"), common_dir, &["worktree", "list", "--porcelain", "-z"])?;
    parse(&output)
}

/// The branch that `HEAD` in the git dir names.
pub(super) fn branch(git_dir: &Path) -> Result<String, AskError> {
    let output = ask(OsStr::new("git"), git_dir, &["symbolic-ref", "-q", "--short", "HEAD"])?;
    Ok(String::from_utf8_lossy(output.trim_ascii_end()).into_owned())
}

fn parse(output: &[u8]) -> Result<Vec<PathBuf>, AskError> {
    // Each attribute ends in NUL, and each record in one more.
    let Some(records) = output.strip_suffix(b"\0\0") else { return Err(AskError::Malformed) };
    let mut paths = Vec::new();
    let mut begins = true;
    for attribute in records.split(|&byte| byte == 0) {
        if begins {
            let path = attribute.strip_prefix(b"worktree ").ok_or(AskError::Malformed)?;
            paths.push(PathBuf::from(OsString::from_vec(path.to_vec())));
        }
        begins = attribute.is_empty();
    }
    Ok(paths)
}

fn ask(program: &OsStr, git_dir: &Path, arguments: &[&str]) -> Result<Vec<u8>, AskError> {
    let deadline = Instant::now() + TIMEOUT;
    for pause in PAUSES {
        match ask_once(program, git_dir, arguments, deadline) {
            Err(AskError::Failed { .. }) => files::pause(pause),
            answer => return answer,
        }
    }
    ask_once(program, git_dir, arguments, deadline)
}

fn ask_once(
    program: &OsStr,
    git_dir: &Path,
    arguments: &[&str],
    deadline: Instant,
) -> Result<Vec<u8>, AskError> {
    let mut child = command(program, git_dir, arguments).spawn()?;
    let answer = collect(&mut child, deadline);
    if answer.is_err() {
        kill(&child);
    }
    let status = child.wait()?;
    let (output, error) = answer?;
    if output.len() as u64 > MAX_OUTPUT {
        return Err(AskError::TooLarge);
    }
    if status.success() {
        return Ok(output);
    }
    if status.code() == Some(USAGE) {
        return Err(AskError::TooOld);
    }
    let message = String::from_utf8_lossy(&error).lines().next().unwrap_or_default().to_owned();
    Err(AskError::Failed { status, message })
}

fn command(program: &OsStr, git_dir: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"])
        .arg("--git-dir")
        .arg(git_dir)
        // Else git changes into `core.worktree`, and fails where that is gone.
        .arg("--work-tree=/")
        .args(arguments)
        .env_clear()
        .envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .env("LC_ALL", "C")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_NO_LAZY_FETCH", "1")
        .env("GIT_OPTIONAL_LOCKS", "0")
        .env("GIT_TERMINAL_PROMPT", "0")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0);
    command
}

/// Standard output and error, once the child has ended. It is not reaped, so that its process group can still
/// be killed without hitting another's.
fn collect(child: &mut Child, deadline: Instant) -> Result<(Vec<u8>, Vec<u8>), AskError> {
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(AskError::Run(io::Error::other("its output is not captured")));
    };
    let child = Pid::from_child(child);
    let (sender, receiver) = mpsc::sync_channel(1);
    thread::Builder::new().name("git-answer".into()).spawn(move || {
        let read = || {
            let output = read_up_to(stdout, MAX_OUTPUT + 1)?;
            let error = read_up_to(stderr, MAX_ERROR)?;
            rustix::process::waitid(WaitId::Pid(child), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT)?;
            Ok((output, error))
        };
        // Nobody listens any more after a timeout.
        sender.send(read()).ok();
    })?;
    match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(read) => read.map_err(AskError::Run),
        Err(_) => Err(AskError::Timeout),
    }
}

/// What lies beyond the limit is not waited for: the pipe is closed, and the writer ends of it.
fn read_up_to(pipe: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    pipe.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn kill(child: &Child) {
    // It fails when nothing is left to be killed.
    rustix::process::kill_process_group(Pid::from_child(child), Signal::KILL).ok();
}
