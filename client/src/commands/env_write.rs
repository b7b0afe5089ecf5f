//! `env --write FILE`: the worktree's variables in a marked block of a file.

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Component, Path, PathBuf};

use wtd_env_file::path::PathError;
use wtd_env_file::{Block, EnvFileError, EnvFilePath, Kept, NewFile};

use super::env::{UNTRUSTED, chosen};
use crate::cli::EnvArgs;
use crate::daemon::Daemon;
use crate::environment::{Environment, absolute};
use crate::error::Error;
use crate::git::{self, Standing};
use crate::output;
use crate::shell::quoted;

/// Keeps the variables in `file`. Outside of a worktree that is an error, unlike printing nothing: a file that was to
/// be written is missed later, and elsewhere.
pub(crate) fn run(daemon: &Daemon, args: &EnvArgs, file: &Path) -> Result<(), Error> {
    let environment = Environment::of(daemon, args.path.as_deref(), &mut || {})?;
    environment.tell_mistakes("env");
    let root = &environment.worktree;
    if [&b"/"[..], b"/."].iter().any(|end| file.as_os_str().as_bytes().ends_with(end)) {
        return Err(unfit(root, file, &PathError::NoFile));
    }
    let below = below(root, &absolute(Some(file))?)?;
    let variables = chosen(&environment, &args.keys)?;
    let block = Block::of(variables.iter().map(|(name, value)| (name.as_str(), value.as_os_str())));
    let kept = wtd_env_file::keep(root, &below, &block, NewFile::ByUmask).map_err(|error| failed(&error))?;
    if environment.untrusted {
        output::note("env", UNTRUSTED);
    }
    if !block.left_out().is_empty() {
        let names = block.left_out().join(", ");
        output::note(
            "env",
            &format!(
                "{} lacks {names}: dotenv, Compose and make would read such a value differently",
                file.display()
            ),
        );
    }
    if args.exclude {
        exclude(root, below.as_path())
    } else {
        if kept == Kept::Written {
            suggest("env", root, below.as_path(), "pass --exclude to have that done");
        }
        Ok(())
    }
}

/// The path below `root` that `file` means. The root may be reached by another path than its own, through symbolic
/// links above it; below it, none is followed.
fn below(root: &Path, file: &Path) -> Result<EnvFilePath, Error> {
    let identity = |path: &Path| fs::metadata(path).ok().map(|found| (found.dev(), found.ino()));
    let root_identity = identity(root);
    let is_root = |path: &&Path| root_identity.is_some() && identity(path) == root_identity;
    let rest = file.ancestors().find(is_root).and_then(|above| file.strip_prefix(above).ok());
    let rest = rest.and_then(without_dots);
    let below = rest.ok_or(PathError::Outside).and_then(|rest| EnvFilePath::new(&rest));
    below.map_err(|error| unfit(root, file, &error))
}

fn unfit(root: &Path, file: &Path, error: &PathError) -> Error {
    let (why, remedy) = match error {
        PathError::Outside => (
            format!("it is outside of the worktree {}", root.display()),
            "name a file in the worktree; FILE is relative to the working directory",
        ),
        why => (why.to_string(), "name another file"),
    };
    Error::failed(format!("{}: {why}", file.display()), remedy)
}

/// The path without `..`; none if it leads upwards.
fn without_dots(path: &Path) -> Option<PathBuf> {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir if !plain.pop() => return None,
            Component::ParentDir => {}
            other => plain.push(other),
        }
    }
    Some(plain)
}

/// Has git ignore the file in all worktrees of the repository, without a change that could be committed.
fn exclude(root: &Path, file: &Path) -> Result<(), Error> {
    let shown = root.join(file);
    let shown = shown.display();
    let unanswered =
        || Error::failed(format!("git can't say whether it ignores {shown}"), "run `git status` there");
    match git::standing(root, file).ok_or_else(unanswered)? {
        Standing::Ignored => return Ok(()),
        Standing::Tracked => {
            return Err(Error::failed(
                format!("{shown} is tracked by git, which ignores no such file"),
                format!("run `git rm --cached {}` first", quoted(&root.join(file))),
            ));
        }
        Standing::Untracked => {}
    }
    let exclude = git::exclude_file(root).ok_or_else(unanswered)?;
    let directory = exclude.parent().ok_or_else(unanswered)?;
    let pattern = git::pattern(file);
    wtd_env_file::add_line(directory, "exclude", pattern.as_bytes()).map_err(|error| failed(&error))?;
    match git::standing(root, file) {
        Some(Standing::Ignored) => Ok(()),
        _ => Err(Error::failed(
            format!("git still doesn't ignore {shown}, although {} has it", exclude.display()),
            "look for a pattern with ! in a .gitignore",
        )),
    }
}

/// Says on standard error what keeps the file out of the repository, where nothing does. An untracked file also keeps
/// `git worktree remove` from removing its worktree.
pub(super) fn suggest(verb: &str, root: &Path, file: &Path, offer: &str) {
    let shown = file.display();
    match git::standing(root, file) {
        Some(Standing::Untracked) => {
            let Some(exclude) = git::exclude_file(root) else { return };
            let pattern = git::pattern(file);
            output::note(
                verb,
                &format!(
                    "git does not ignore {shown}; add {} to {} or to a .gitignore, or {offer}",
                    pattern.display(),
                    exclude.display(),
                ),
            );
        }
        Some(Standing::Tracked) => output::note(
            verb,
            &format!(
                "{shown} is tracked by git, and differs in every worktree; run `git rm --cached {}`, and ignore it",
                quoted(&root.join(file))
            ),
        ),
        Some(Standing::Ignored) | None => {}
    }
}

fn failed(error: &EnvFileError) -> Error {
    Error::failed(error.to_string(), error.why.remedy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_lead_no_higher_than_the_root() {
        for (path, expected) in [
            ("a/b", Some("a/b")),
            ("a/../b", Some("b")),
            ("a/..", Some("")),
            ("..", None),
            ("a/../../b", None),
        ] {
            assert_eq!(without_dots(Path::new(path)), expected.map(PathBuf::from), "{path}");
        }
    }
}
