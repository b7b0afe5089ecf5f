//! Repositories, made and changed by git itself.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use super::{Ran, Sandbox};

/// A repository.
#[derive(Clone)]
pub(crate) struct Repo<'s> {
    pub(crate) sandbox: &'s Sandbox,
    /// The main worktree, or the common dir of a bare repository.
    pub(crate) path: PathBuf,
}

/// A worktree as `git worktree list --porcelain -z` shows it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) path: PathBuf,
    pub(crate) bare: bool,
    pub(crate) branch: Option<OsString>,
    pub(crate) locked: bool,
    pub(crate) prunable: bool,
}

impl<'s> Repo<'s> {
    /// `git init` and one commit.
    pub(crate) fn init(sandbox: &'s Sandbox, path: &Path) -> Self {
        fs::create_dir_all(path).unwrap();
        let repo = Self::at(sandbox, path);
        repo.git(["init", "-q", "-b", "main"]);
        fs::write(path.join("file"), "content\n").unwrap();
        repo.git(["add", "file"]);
        repo.git(["commit", "-q", "-m", "first"]);
        repo
    }

    /// The repository that is at `path` already.
    pub(crate) fn at(sandbox: &'s Sandbox, path: &Path) -> Self {
        Self { sandbox, path: path.to_owned() }
    }

    /// Runs git in the repository, and has it succeed.
    #[track_caller]
    pub(crate) fn git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> String {
        self.try_git(arguments).ok()
    }

    pub(crate) fn try_git<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Ran {
        Ran::of(self.sandbox.command("git").current_dir(&self.path).args(arguments))
    }

    /// `git worktree add`, beside the repository, on a new branch; gives its path.
    #[track_caller]
    pub(crate) fn add(&self, name: &str) -> PathBuf {
        let mut directory = self.path.file_name().unwrap().to_owned();
        directory.push(format!("-{name}"));
        let path = self.path.with_file_name(directory);
        self.add_at(&path, name);
        path
    }

    /// `git worktree add` of a new branch at `path`.
    #[track_caller]
    pub(crate) fn add_at(&self, path: &Path, branch: &str) {
        self.git([
            OsStr::new("worktree"),
            "add".as_ref(),
            "-q".as_ref(),
            "-b".as_ref(),
            branch.as_ref(),
            path.as_ref(),
        ]);
    }

    /// `git worktree remove --force`.
    #[track_caller]
    pub(crate) fn remove(&self, path: &Path) {
        self.git([OsStr::new("worktree"), "remove".as_ref(), "--force".as_ref(), path.as_ref()]);
    }

    /// `git worktree move`.
    #[track_caller]
    pub(crate) fn mv(&self, from: &Path, to: &Path) {
        self.git([OsStr::new("worktree"), "move".as_ref(), from.as_ref(), to.as_ref()]);
    }

    /// The common dir, as git says it.
    pub(crate) fn common_dir(&self) -> PathBuf {
        let text = self.git(["rev-parse", "--path-format=absolute", "--git-common-dir"]);
        PathBuf::from(text.strip_suffix('\n').unwrap())
    }

    /// The git dir of the worktree at `path`, as git says it.
    pub(crate) fn git_dir(&self, path: &Path) -> PathBuf {
        let text = Repo::at(self.sandbox, path).git(["rev-parse", "--absolute-git-dir"]);
        PathBuf::from(text.strip_suffix('\n').unwrap())
    }

    /// The git dir that the `.git` file of the worktree at `path` names; git is not asked.
    pub(crate) fn git_dir_of(&self, path: &Path) -> PathBuf {
        let bytes = fs::read(path.join(".git")).unwrap();
        let named = bytes.strip_prefix(b"gitdir: ").unwrap().trim_ascii_end();
        self.path.join(OsStr::from_bytes(named))
    }

    /// The worktrees, as git lists them.
    #[track_caller]
    pub(crate) fn worktrees(&self) -> Vec<Listed> {
        let ran = self.try_git(["worktree", "list", "--porcelain", "-z"]);
        ran.ok();
        let mut worktrees = Vec::new();
        for record in split(&ran.stdout, b"\0\0") {
            let mut listed = Listed::default();
            for attribute in record.split(|byte| *byte == 0).filter(|attribute| !attribute.is_empty()) {
                let (name, value) = match attribute.iter().position(|byte| *byte == b' ') {
                    Some(space) => (&attribute[..space], &attribute[space + 1..]),
                    None => (attribute, &b""[..]),
                };
                match name {
                    b"worktree" => listed.path = OsString::from_vec(value.to_owned()).into(),
                    b"bare" => listed.bare = true,
                    b"branch" => {
                        let name = value.strip_prefix(b"refs/heads/").unwrap_or(value);
                        listed.branch = Some(OsStr::from_bytes(name).to_owned());
                    }
                    b"locked" => listed.locked = true,
                    b"prunable" => listed.prunable = true,
                    _ => {}
                }
            }
            worktrees.push(listed);
        }
        worktrees
    }

    /// The paths of the worktrees that are there, as git lists them.
    #[track_caller]
    pub(crate) fn paths(&self) -> BTreeSet<PathBuf> {
        self.worktrees()
            .into_iter()
            .filter(|listed| !listed.bare && !listed.prunable)
            .map(|listed| listed.path)
            .collect()
    }
}

/// The records of porcelain output: each of its attributes ends in NUL, and the record in one more.
fn split<'a>(mut bytes: &'a [u8], end: &[u8]) -> Vec<&'a [u8]> {
    let mut records = Vec::new();
    while let Some(at) = bytes.windows(end.len()).position(|window| window == end) {
        records.push(&bytes[..at]);
        bytes = &bytes[at + end.len()..];
    }
    records
}
