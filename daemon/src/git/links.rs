//! The paths by which a worktree's root and its git dir name each other: the files `gitdir` and `.git`.

use std::ffi::OsString;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Component, Path, PathBuf};

use super::files::{self, ReadError, Unreadable};
use crate::domain::identity::FileIdentity;

/// The root directory that `<admin dir>/gitdir` names; none while it is empty.
///
/// As git does, white space at the end is dropped, and a path that is not absolute is the admin dir's.
pub(crate) fn root_from_gitdir(bytes: &[u8], admin_dir: &Path) -> Option<PathBuf> {
    let path = bytes.trim_ascii_end();
    if path.is_empty() {
        return None;
    }
    let root = path.strip_suffix(b"/.git").unwrap_or(path);
    let root = if root.is_empty() { b"/" } else { root };
    Some(admin_dir.join(PathBuf::from(OsString::from_vec(root.to_vec()))))
}

/// The git dir that a `.git` file in `root` names; none when that is not what it holds.
///
/// Only line ends are dropped at the end, as git does: an id may end in white space that is not ASCII, which
/// `gix_discover::parse::gitdir` cuts off.
pub(crate) fn git_dir_from_dot_git(bytes: &[u8], root: &Path) -> Option<PathBuf> {
    let mut path = bytes.strip_prefix(b"gitdir: ")?;
    while let Some(rest) = path.strip_suffix(b"\n").or_else(|| path.strip_suffix(b"\r")) {
        path = rest;
    }
    (!path.is_empty()).then(|| root.join(PathBuf::from(OsString::from_vec(path.to_vec()))))
}

/// The path in `<git dir>/commondir`, which is the git dir's own when not absolute; none while it is empty.
pub(crate) fn common_dir_from(bytes: &[u8], git_dir: &Path) -> Option<PathBuf> {
    let path = bytes.trim_ascii_end();
    (!path.is_empty()).then(|| git_dir.join(PathBuf::from(OsString::from_vec(path.to_vec()))))
}

/// `path` without symbolic links and `..`, as far as it exists; what doesn't is taken as it is written.
pub(crate) fn canonical(path: &Path) -> PathBuf {
    if let Ok(found) = fs::canonicalize(path) {
        return found;
    }
    let plain = without_dots(path);
    for existing in plain.ancestors() {
        match fs::canonicalize(existing) {
            Ok(found) => {
                let rest = plain.components().skip(existing.components().count());
                return found.components().chain(rest).collect();
            }
            Err(error) if files::is_absence(&error) => {}
            Err(_) => break,
        }
    }
    plain
}

fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                plain.pop();
            }
            Component::CurDir => {}
            other => plain.push(other),
        }
    }
    plain
}

/// What is at `.git` in a directory.
#[derive(Debug)]
pub(super) enum DotGit {
    /// Nothing.
    Absent,
    /// A directory, perhaps through a symbolic link.
    Directory {
        /// The entry itself, links not followed.
        own: Metadata,
        /// The directory.
        directory: Metadata,
    },
    /// A file that names a git dir.
    File {
        /// The entry itself, links not followed.
        own: Metadata,
        /// The git dir named: absolute, but not made canonical.
        git_dir: PathBuf,
    },
    /// A file that names no git dir: git has only begun to write it, or it is not git's.
    Unfinished {
        /// The entry itself, links not followed.
        own: Metadata,
    },
    /// Something else: a FIFO, a symbolic link that leads nowhere.
    Other,
}

/// Looks at `.git` in `root`.
pub(super) fn dot_git(root: &Path) -> Result<DotGit, Unreadable> {
    let path = root.join(".git");
    let unreadable = |error| Unreadable::new(&path, error);
    let Some(own) = present(fs::symlink_metadata(&path)).map_err(unreadable)? else {
        return Ok(DotGit::Absent);
    };
    if own.is_symlink() {
        match present(fs::metadata(&path)).map_err(unreadable)? {
            Some(directory) if directory.is_dir() => return Ok(DotGit::Directory { own, directory }),
            Some(_) => {}
            None => return Ok(DotGit::Other),
        }
    } else if own.is_dir() {
        return Ok(DotGit::Directory { directory: own.clone(), own });
    }
    match files::read_seen(&path, &own) {
        Ok(bytes) => Ok(match git_dir_from_dot_git(&bytes, root) {
            Some(git_dir) => DotGit::File { own, git_dir },
            None => DotGit::Unfinished { own },
        }),
        Err(ReadError::TooLarge(_)) => Ok(DotGit::Unfinished { own }),
        Err(ReadError::NotFound) => Ok(DotGit::Absent),
        Err(ReadError::NotRegular) => Ok(DotGit::Other),
        Err(ReadError::Io(error)) => Err(unreadable(error)),
    }
}

/// The incarnation of the directory or file at `path`, symbolic links followed; none when nothing is there.
pub(super) fn identity_at(path: &Path) -> Result<Option<FileIdentity>, Unreadable> {
    // A NUL byte in a path can't reach the system, so nothing can be there.
    if path.as_os_str().as_bytes().contains(&0) {
        return Ok(None);
    }
    let found = present(fs::metadata(path)).map_err(|error| Unreadable::new(path, error))?;
    Ok(found.map(|metadata| files::identity_of(&metadata)))
}

/// Turns "nothing is there" into a value.
pub(super) fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if files::is_absence(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gitdir_is_read_as_git_reads_it() {
        let root = |bytes: &[u8]| {
            root_from_gitdir(bytes, Path::new("/g/worktrees/a")).map(|path| path.into_os_string().into_vec())
        };
        for bytes in [&b"/w/.git\n"[..], b"/w/.git", b"/w/.git\r\n", b"/w/.git \t\n\n", b"/w\n"] {
            assert_eq!(root(bytes).unwrap(), b"/w");
        }
        assert_eq!(root(b"/new\nline \xff/.git\n").unwrap(), b"/new\nline \xff");
        assert_eq!(root(b"../../../w/.git\n").unwrap(), b"/g/worktrees/a/../../../w");
        assert_eq!(root(b"/.git\n").unwrap(), b"/");
        assert_eq!(root(b""), None);
        assert_eq!(root(b" \n"), None);
    }

    #[test]
    fn a_dot_git_file_is_read_as_git_reads_it() {
        let git_dir = |bytes: &[u8]| git_dir_from_dot_git(bytes, Path::new("/w"));
        assert_eq!(git_dir(b"gitdir: /g\n"), Some("/g".into()));
        assert_eq!(git_dir(b"gitdir: ../g\r\n"), Some("/w/../g".into()));
        assert_eq!(git_dir("gitdir: /g\u{3000}\n".as_bytes()), Some("/g\u{3000}".into()));
        for bytes in [&b""[..], b"\n", b"gitdir:", b"gitdir: ", b"gitdir: \n", b"GITDIR: /g", b" gitdir: /g"]
        {
            assert_eq!(git_dir(bytes), None, "{bytes:?}");
        }
    }

    #[test]
    fn what_exists_of_a_path_is_made_canonical() {
        let scratch = tempfile::TempDir::new().unwrap();
        let root = fs::canonicalize(scratch.path()).unwrap();
        fs::create_dir(root.join("a")).unwrap();
        std::os::unix::fs::symlink("a", root.join("link")).unwrap();
        let canonical = |path: &str| canonical(&root.join(path));
        assert_eq!(canonical("link"), root.join("a"));
        assert_eq!(canonical("link/gone/deep"), root.join("a/gone/deep"));
        assert_eq!(canonical("gone/../link").as_os_str(), root.join("a").as_os_str());
        assert_eq!(canonical("a/../gone"), root.join("gone"));
        fs::write(root.join("file"), "").unwrap();
        assert_eq!(canonical("file/below"), root.join("file/below"));
    }
}
