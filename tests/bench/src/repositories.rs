//! Repositories and worktrees, made by git where git is measured and written by hand where thousands are needed
//! (gitrepository-layout(5)).

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

/// git without the settings of whoever runs this.
pub(crate) fn git(directory: &Path) -> Command {
    let mut command = Command::new("git");
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"GIT_")) {
        command.env_remove(name);
    }
    command
        .current_dir(directory)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .stdin(Stdio::null());
    command
}

/// Runs git, which has to succeed.
pub(crate) fn run_git<S: AsRef<OsStr>>(
    directory: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> anyhow::Result<()> {
    let output = git(directory).args(arguments).output().context("git")?;
    ensure!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A repository with one commit of a few files.
pub(crate) fn with_git(directory: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(directory)?;
    run_git(directory, ["init", "--quiet"])?;
    for number in 0..10 {
        fs::write(directory.join(format!("file{number}")), format!("{number}\n"))?;
    }
    run_git(directory, ["add", "."])?;
    run_git(
        directory,
        [
            "-c",
            "user.name=bench",
            "-c",
            "user.email=bench@localhost",
            "commit",
            "--quiet",
            "--message",
            "first",
        ],
    )
}

/// A repository without a commit, and `linked` linked worktrees, as git would have left them.
pub(crate) fn by_hand(directory: &Path, linked: usize) -> anyhow::Result<Vec<PathBuf>> {
    let common_dir = directory.join(".git");
    for part in ["objects", "refs/heads"] {
        fs::create_dir_all(common_dir.join(part))?;
    }
    fs::write(common_dir.join("HEAD"), "ref: refs/heads/main\n")?;
    fs::write(common_dir.join("config"), "[core]\n\trepositoryformatversion = 0\n\tbare = false\n")?;
    let mut worktrees = vec![directory.to_owned()];
    for number in 0..linked {
        let mut name = directory.file_name().context("a directory has a name")?.to_owned();
        name.push(format!("-{number}"));
        let root = directory.with_file_name(&name);
        let git_dir = common_dir.join("worktrees").join(&name);
        fs::create_dir_all(&root)?;
        fs::create_dir_all(&git_dir)?;
        fs::write(git_dir.join("HEAD"), format!("ref: refs/heads/b{number}\n"))?;
        fs::write(git_dir.join("commondir"), "../..\n")?;
        fs::write(git_dir.join("gitdir"), format!("{}\n", root.join(".git").display()))?;
        fs::write(root.join(".git"), format!("gitdir: {}\n", git_dir.display()))?;
        worktrees.push(root);
    }
    Ok(worktrees)
}
