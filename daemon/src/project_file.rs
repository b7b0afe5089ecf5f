//! `wtd.toml`: what a repository declares about its worktrees' ports, volumes and database.
//!
//! The file comes from a repository, so it is read as a stranger's: with bounds, and only where it is a file of
//! that repository. It declares numbers and names, which nothing can run by; and templates and files, which do
//! nothing before a person has trusted the file's content (`domain::trust`). Whatever is wrong in it is a line among
//! the project's warnings, and what is right in it is used.

pub(crate) mod parsing;

use std::path::{Path, PathBuf};

use crate::domain::names::directory_name;
use crate::domain::project::Project;
use crate::git::files::{self, ReadError};
use crate::text::plain;

pub use wtd_protocol::contract::PROJECT_FILE as FILE_NAME;

/// The project as the worktree at `root` sees it: declared in the worktree's own file, else in the main
/// worktree's, else (there is no main worktree in a bare repository) in the common dir's; else the built-in
/// values. A file that can't be read or understood gives the built-in values as well, and a warning.
pub fn load(root: &Path, main_root: Option<&Path>, common_dir: &Path) -> Project {
    load_with_file(root, main_root, common_dir).0
}

/// As [`load`], with the file that it was, if there is one.
pub fn load_with_file(
    root: &Path,
    main_root: Option<&Path>,
    common_dir: &Path,
) -> (Project, Option<PathBuf>) {
    let built_in = Project::named(&directory_name(common_dir, main_root));
    let elsewhere = main_root.unwrap_or(common_dir);
    for directory in [Some(root), (elsewhere != root).then_some(elsewhere)].into_iter().flatten() {
        let file = directory.join(FILE_NAME);
        match read(directory, &file) {
            Ok(None) => {}
            Ok(Some(bytes)) => {
                let project = parsing::parse(built_in, &file, &bytes);
                return (project, Some(file));
            }
            Err(unread) => {
                let (reason, is_unknown) = match unread {
                    Unread::Refused(reason) => (reason, false),
                    Unread::Failed(error) => (format!("it can't be read: {error}"), true),
                };
                let warnings = vec![format!("{}: {reason}", plain(&file.to_string_lossy()))];
                return (Project { is_unknown, warnings, ..built_in }, Some(file));
            }
        }
    }
    (built_in, None)
}

/// Why a file that is there is not taken.
enum Unread {
    /// It is not one that is read; the reason in words.
    Refused(String),
    /// The system did not let us, so what it declares is unknown.
    Failed(std::io::Error),
}

/// The content of `file`, which is directly in `directory`; none if it isn't there.
fn read(directory: &Path, file: &Path) -> Result<Option<Vec<u8>>, Unread> {
    let content = match files::read_no_follow(file) {
        Err(ReadError::NotRegular) if file.is_symlink() => {
            files::read_no_follow(&followed(directory, file).map_err(Unread::Refused)?)
        }
        content => content,
    };
    match content {
        Ok(content) => Ok(Some(content)),
        Err(ReadError::NotFound) => Ok(None),
        Err(ReadError::Io(error)) => Err(Unread::Failed(error)),
        Err(error) => Err(Unread::Refused(format!("it can't be read: {error}"))),
    }
}

/// Where a symbolic link leads, if that is in `directory`: no other file is the repository's.
fn followed(directory: &Path, link: &Path) -> Result<PathBuf, String> {
    let target = link.canonicalize().map_err(|error| format!("the symbolic link leads nowhere: {error}"))?;
    let directory = directory.canonicalize().map_err(|error| format!("it can't be read: {error}"))?;
    if target.starts_with(directory) {
        Ok(target)
    } else {
        Err("the symbolic link leads out of the worktree, so it is not followed".to_owned())
    }
}

#[cfg(test)]
mod tests;
