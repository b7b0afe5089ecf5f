//! What git says of a file in a worktree. Nothing that the repository configures is run for it: no hook, no file
//! system monitor, no transport; and no variable of a git that runs this program (`GIT_DIR`, in a hook) misleads it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// Variables of git's that say where a person's own configuration is, which names files to ignore (git-config(1)).
const KEPT: [&str; 3] = ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM", "GIT_CONFIG_NOSYSTEM"];

/// How a file stands with git.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Git ignores it.
    Ignored,
    /// Git tracks it, whatever says that it should be ignored.
    Tracked,
    /// Git sees it as something that could be added.
    Untracked,
}

/// How `file`, relative to the worktree's root, stands with git; none where git can't say.
pub(crate) fn standing(root: &Path, file: &Path) -> Option<Standing> {
    // A name such as `:(top)` or `a*b` is a name. `check-ignore` takes no such option, and needs none: it looks for
    // magic at the beginning only.
    let plain = Path::new(".").join(file);
    match ask(root, &["--literal-pathspecs", "ls-files", "--error-unmatch", "--"], Some(file))?
        .status
        .code()?
    {
        0 => return Some(Standing::Tracked),
        1 => {}
        _ => return None,
    }
    match ask(root, &["check-ignore", "--quiet", "--no-index", "--"], Some(&plain))?.status.code()? {
        0 => Some(Standing::Ignored),
        1 => Some(Standing::Untracked),
        _ => None,
    }
}

/// The root directory of the worktree that holds `path`.
pub(crate) fn root(path: &Path) -> Option<PathBuf> {
    said(path, &["rev-parse", "--show-toplevel"])
}

/// The common dir of the repository of the worktree at `root`.
pub(crate) fn common_dir(root: &Path) -> Option<PathBuf> {
    root.join(said(root, &["rev-parse", "--git-common-dir"])?).canonicalize().ok()
}

/// The path that git answers with.
fn said(directory: &Path, arguments: &[&str]) -> Option<PathBuf> {
    let output = ask(directory, arguments, None)?;
    let path =
        output.stdout.strip_suffix(b"\n").filter(|path| output.status.success() && !path.is_empty())?;
    Some(PathBuf::from(OsStr::from_bytes(path)))
}

/// The repository's `info/exclude` (gitrepository-layout(5)): one for all of its worktrees.
pub(crate) fn exclude_file(root: &Path) -> Option<PathBuf> {
    Some(root.join(said(root, &["rev-parse", "--git-path", "info/exclude"])?))
}

/// The pattern that matches exactly this file, relative to the worktree's root (gitignore(5)).
pub(crate) fn pattern(file: &Path) -> OsString {
    let bytes = file.as_os_str().as_bytes();
    let spaces_from = bytes.trim_ascii_end().len();
    let mut pattern = vec![b'/'];
    for (at, byte) in bytes.iter().enumerate() {
        if b"*?[\\".contains(byte) || at >= spaces_from {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    OsString::from_vec(pattern)
}

fn ask(root: &Path, arguments: &[&str], file: Option<&Path>) -> Option<Output> {
    let mut command = Command::new("git");
    command
        .args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null", "-c", "protocol.allow=never"])
        .args(arguments)
        .args(file)
        .current_dir(root)
        .stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        let is_gits = name.as_bytes().starts_with(b"GIT_");
        if is_gits && !KEPT.iter().any(|kept| name == *kept) {
            command.env_remove(name);
        }
    }
    command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_LAZY_FETCH", "1");
    command.output().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_means_one_file() {
        for (file, expected) in [
            (".env", "/.env"),
            ("env/wtd.env", "/env/wtd.env"),
            ("!a #b", "/!a #b"),
            ("a*b?[c]\\d", "/a\\*b\\?\\[c]\\\\d"),
            ("end  ", "/end\\ \\ "),
        ] {
            assert_eq!(pattern(Path::new(file)), expected);
        }
    }
}
