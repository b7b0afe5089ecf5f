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

/// Exit code of `git symbolic-ref -q` where there is no branch (git-symbolic-ref(1)).
const DETACHED: i32 = 1;

/// Exit code of git for a command line that it does not understand (`usage()` in `usage.c`).
const USAGE: i32 = 129;

/// Why git gave no answer. An answer that did not come is never "no worktrees".
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It could not be started, or its output could not be read.
    #[error("cannot run git: {0}")]
    Run(#[from] io::Error),
    /// It took too long.
    #[error("git did not answer in time")]
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

/// What git says when it is asked for a repository's worktrees.
pub type Listing = Result<Vec<PathBuf>, AskError>;

/// The root directories that git lists for the repository, each as often as it is listed. The first is the
/// main worktree's, or the git dir where git knows no better (`git-worktree(1)`, "LIST OUTPUT FORMAT").
pub fn worktree_paths(common_dir: &Path) -> Listing {
    let deadline = Instant::now() + TIMEOUT;
    let output = ask(OsStr::new("git"), common_dir, &["worktree", "list", "--porcelain", "-z"], deadline)?;
    parse(&output)
}

/// The branch that `HEAD` in the git dir names, if git says so until `deadline`; none where it is detached.
pub(super) fn branch(git_dir: &Path, deadline: Instant) -> Result<Option<String>, AskError> {
    if Instant::now() >= deadline {
        return Err(AskError::Timeout);
    }
    match ask_once(OsStr::new("git"), git_dir, &["symbolic-ref", "-q", "--short", "HEAD"], deadline) {
        Ok(output) => Ok(Some(String::from_utf8_lossy(output.trim_ascii_end()).into_owned())),
        Err(AskError::Failed { status, .. }) if status.code() == Some(DETACHED) => Ok(None),
        Err(error) => Err(error),
    }
}

pub(crate) fn parse(output: &[u8]) -> Listing {
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

fn ask(program: &OsStr, git_dir: &Path, arguments: &[&str], deadline: Instant) -> Result<Vec<u8>, AskError> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// Runs a script in git's place.
    fn ask_script(script: &str, timeout: Duration) -> Result<Vec<u8>, AskError> {
        let directory = TempDir::new().unwrap();
        let (source, program) = (directory.path().join("source"), directory.path().join("git"));
        fs::write(&source, format!("#!/bin/sh\ncd '{}'\n{script}\n", directory.path().display())).unwrap();
        // Not written by this process: a test that starts a program at that moment would inherit the open
        // file, and a file that is open for writing can't be run.
        let installed =
            Command::new("install").args(["-m", "755"]).args([&source, &program]).status().unwrap();
        assert!(installed.success());
        ask(program.as_os_str(), Path::new("/nowhere"), &["worktree", "list"], Instant::now() + timeout)
    }

    #[test]
    fn a_list_is_split_at_its_nul_bytes_only() {
        let list =
            b"worktree /a\nb\0HEAD 1\0branch refs/heads/x\0\0worktree /c\0bare\0locked worktree /d\0\0";
        assert_eq!(parse(list).unwrap(), [Path::new("/a\nb"), Path::new("/c")]);
    }

    #[test]
    fn what_is_no_list_is_not_an_empty_one() {
        for output in ["", "\0", "\0\0", "worktree /a", "worktree /a\0", "HEAD 1\0\0", "fatal: no\n"] {
            assert!(matches!(parse(output.as_bytes()), Err(AskError::Malformed)), "{output:?}");
        }
    }

    #[test]
    fn git_is_asked_again_when_it_fails() {
        let script = "test -e third && exec echo ok; test -e second && : >third; : >second; exit 128";
        assert_eq!(ask_script(script, TIMEOUT).unwrap(), b"ok\n");
        let failed = ask_script("echo fatal: this >&2; echo that >&2; exit 128", TIMEOUT).unwrap_err();
        assert_eq!(failed.to_string(), "git failed (exit status: 128): fatal: this");
    }

    #[test]
    fn git_without_an_answer_is_killed_with_what_it_started() {
        for script in ["sleep 1000 & sleep 1000", "exec >&- 2>&-; sleep 1000", "trap '' TERM; kill -STOP $$"]
        {
            let asked = ask_script(script, Duration::from_millis(50));
            assert!(matches!(asked, Err(AskError::Timeout)), "{script}: {asked:?}");
        }
    }

    #[test]
    fn an_answer_without_end_is_not_taken() {
        assert!(matches!(ask_script("exec cat /dev/zero", TIMEOUT), Err(AskError::TooLarge)));
    }

    #[test]
    fn an_old_git_is_told_from_a_failing_one() {
        let old = "echo \"error: unknown switch \\`z'\" >&2; exit 129";
        assert!(matches!(ask_script(old, TIMEOUT), Err(AskError::TooOld)));
    }

    #[test]
    fn nothing_of_the_environment_that_git_obeys_is_passed_on() {
        let names =
            ask_script("env | sed 's/=.*//' | grep -v '^PWD$\\|^OLDPWD$\\|^_$\\|^SHLVL$' | sort", TIMEOUT);
        let names = String::from_utf8(names.unwrap()).unwrap();
        let expected =
            "GIT_CONFIG_NOSYSTEM GIT_NO_LAZY_FETCH GIT_OPTIONAL_LOCKS GIT_TERMINAL_PROMPT HOME LC_ALL PATH";
        assert_eq!(names.split_whitespace().collect::<Vec<_>>().join(" "), expected);
    }

    #[test]
    fn a_git_that_is_not_there_is_a_failure_to_run_it() {
        let asked = ask(OsStr::new("/nowhere/git"), Path::new("/"), &[], Instant::now() + TIMEOUT);
        assert!(matches!(asked, Err(AskError::Run(_))));
    }
}
