//! Where in a worktree an env file may be.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

/// The longest path, in bytes: `PATH_MAX` (limits.h(0p)) less some for the worktree's own.
const MAX_BYTES: usize = 1024;

/// The path of a file below a worktree's root: only names, none of which is git's. What lies there on disk, and on the
/// way there, is looked at when the file is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EnvFilePath(PathBuf);

/// Why a path is not that of an env file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// It begins with a slash, or leads upwards.
    #[error("it leads out of the worktree")]
    Outside,
    /// It is empty, or names a directory.
    #[error("it names no file")]
    NoFile,
    /// It leads into a git dir, or names one.
    #[error("it is git's own")]
    GitDir,
    /// It is wtd's configuration.
    #[error("it is wtd's own configuration")]
    Configuration,
    /// It is longer than any path of a project.
    #[error("it is longer than {MAX_BYTES} bytes")]
    TooLong,
    /// It has a newline or another control character.
    #[error("it has a control character")]
    ControlCharacter,
}

impl EnvFilePath {
    /// The path below a worktree's root that `path` means.
    pub fn new(path: &Path) -> Result<Self, PathError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() > MAX_BYTES {
            return Err(PathError::TooLong);
        }
        if bytes.iter().any(u8::is_ascii_control) {
            return Err(PathError::ControlCharacter);
        }
        let mut below = PathBuf::new();
        for component in path.components() {
            match component {
                Component::Normal(name) if is_gits(name) => return Err(PathError::GitDir),
                Component::Normal(name) => below.push(name),
                Component::CurDir => {}
                Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                    return Err(PathError::Outside);
                }
            }
        }
        if below.as_os_str().is_empty() || bytes.ends_with(b"/") || bytes.ends_with(b"/.") {
            return Err(PathError::NoFile);
        }
        if below.file_name().is_some_and(|name| name.eq_ignore_ascii_case("wtd.toml")) {
            return Err(PathError::Configuration);
        }
        Ok(Self(below))
    }

    /// The path, relative to the worktree's root.
    pub fn as_path(&self) -> &Path {
        &self.0
    }

    /// The names of the directories on the way, and the file's.
    pub(crate) fn split(&self) -> (Vec<&OsStr>, &OsStr) {
        let mut names: Vec<&OsStr> = self.0.iter().collect();
        // There is one at least.
        let file = names.pop().unwrap_or_default();
        (names, file)
    }
}

/// Whether a file system can take a name for `.git`: those that ignore case do, and NTFS takes `.git. ` and `git~1`
/// for it too (git's own rules, `is_ntfs_dotgit()` in `path.c`).
fn is_gits(name: &OsStr) -> bool {
    let name = name.as_bytes();
    let end = name.iter().rposition(|byte| !matches!(byte, b'.' | b' ')).map_or(0, |last| last + 1);
    let name = name.get(..end).unwrap_or(name);
    let name = name.split(|byte| *byte == b':').next().unwrap_or(name);
    name.eq_ignore_ascii_case(b".git") || name.eq_ignore_ascii_case(b"git~1")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_below_the_root_is_taken() {
        for (path, below) in [
            (".env", ".env"),
            ("env/wtd.env", "env/wtd.env"),
            ("./a//b/./c", "a/b/c"),
            ("a b/..c", "a b/..c"),
            (".gitx", ".gitx"),
        ] {
            assert_eq!(EnvFilePath::new(Path::new(path)).unwrap().as_path(), Path::new(below), "{path}");
        }
    }

    #[test]
    fn what_is_not_a_project_s_own_file_is_refused() {
        use PathError::{Configuration, ControlCharacter, GitDir, NoFile, Outside, TooLong};
        for (path, why) in [
            ("", NoFile),
            (".", NoFile),
            ("a/", NoFile),
            ("a/.", NoFile),
            ("/etc/passwd", Outside),
            ("../x", Outside),
            ("a/../../x", Outside),
            ("a/..", Outside),
            (".git", GitDir),
            (".git/config", GitDir),
            (".GIT/hooks/post-checkout", GitDir),
            ("sub/.git/config", GitDir),
            (".git. /config", GitDir),
            ("GIT~1/config", GitDir),
            (".git::$INDEX_ALLOCATION/config", GitDir),
            ("wtd.toml", Configuration),
            ("a\nb", ControlCharacter),
            ("a\u{1b}[31m", ControlCharacter),
            ("x".repeat(1025).as_str(), TooLong),
        ] {
            assert_eq!(EnvFilePath::new(Path::new(path)), Err(why), "{path:?}");
        }
    }
}
