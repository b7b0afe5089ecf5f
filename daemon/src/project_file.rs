//! `wtd.toml`: what a repository declares about its worktrees' ports, volumes and database.

use std::path::Path;

use crate::domain::names::directory_name;
use crate::domain::project::Project;

/// The project as the worktree at `root` sees it.
pub fn load(root: &Path, main_root: Option<&Path>, common_dir: &Path) -> Project {
    let _ = root;
    Project::named(&directory_name(common_dir, main_root))
}

/// The line that a byte of a text is in, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}
