//! `wtd.toml`: what a repository declares about its worktrees' ports, volumes and database.
//!
//! The file comes from a repository, so it is read as a stranger's: with bounds, and only where it is a file of
//! that repository. It declares numbers and names; nothing in it can run. Whatever is wrong in it is a line
//! among the project's warnings, and what is right in it is used.

mod parsing;
mod reading;

use std::path::Path;

use crate::domain::names::directory_name;
use crate::domain::project::Project;

/// The file's name.
pub const FILE_NAME: &str = "wtd.toml";

/// The project as the worktree at `root` sees it: declared in the worktree's own file, else in the main
/// worktree's, else (there is no main worktree in a bare repository) in the common dir's; else the built-in
/// values. A file that can't be read or understood gives the built-in values as well, and a warning.
pub fn load(root: &Path, main_root: Option<&Path>, common_dir: &Path) -> Project {
    let built_in = Project::named(&directory_name(common_dir, main_root));
    let elsewhere = main_root.unwrap_or(common_dir);
    for directory in [Some(root), (elsewhere != root).then_some(elsewhere)].into_iter().flatten() {
        let file = directory.join(FILE_NAME);
        match reading::read(directory, &file) {
            Ok(None) => {}
            Ok(Some(bytes)) => return parsing::parse(built_in, &file, &bytes),
            Err(reason) => {
                let warnings = vec![format!("{}: {reason}", parsing::plain(&file.to_string_lossy()))];
                return Project { warnings, ..built_in };
            }
        }
    }
    built_in
}

/// The line that a byte of a text is in, from 1.
pub(crate) fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests;
