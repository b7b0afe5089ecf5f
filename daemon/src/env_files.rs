//! The files that `[files]` of a trusted `wtd.toml` has kept in worktrees: each holds the block with the worktree's
//! variables, and is looked at whenever its repository is. What came of the last time is remembered here and nowhere
//! else, since the next look finds it out again.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::{debug, warn};
use wtd_env_file::{Block, EnvFilePath, Kept, NewFile};

use crate::domain::allocation::Allocation;
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::project::Project;
use crate::domain::variables::variables;
use crate::git::files;
use crate::text::plain;

/// The files that are kept, by repository. A repository without any has no entry.
#[derive(Debug, Default)]
pub struct EnvFiles(Mutex<HashMap<RepositoryId, Vec<Report>>>);

/// What came of one file.
#[derive(Debug)]
struct Report {
    allocation: AllocationId,
    path: PathBuf,
    /// The marks of a file that was found as it should be.
    marks: Option<Marks>,
    trouble: Option<Trouble>,
}

/// What is wrong with a file that should be kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// The file and what is wrong, in one line.
    pub what: String,
    /// What a person can do about it.
    pub remedy: &'static str,
}

/// Marks of a file that change with it: device, inode, size, and the times of the last changes.
type Marks = (u64, u64, u64, i64, i64);

impl EnvFiles {
    fn lock(&self) -> MutexGuard<'_, HashMap<RepositoryId, Vec<Report>>> {
        // Valid at every moment, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the files of a repository's worktrees, and no others any more. Blocks.
    pub fn keep(&self, repository: RepositoryId, worktrees: &[(Arc<Allocation>, Arc<Project>)]) {
        let reports: Vec<Report> = worktrees
            .iter()
            .flat_map(|(allocation, project)| {
                let variables = variables(allocation);
                let block =
                    Block::of(variables.iter().map(|(name, value)| (name.as_str(), OsStr::new(value))));
                project.env_files.iter().map(move |file| keep(allocation, file, &block))
            })
            .collect();
        let mut all = self.lock();
        let before = all.remove(&repository).unwrap_or_default();
        for report in &reports {
            let known = before.iter().any(|old| old.path == report.path && old.trouble == report.trouble);
            if let Some(trouble) = report.trouble.as_ref().filter(|_| !known) {
                warn!(file = %report.path.display(), trouble = %trouble.what, "env file");
            }
        }
        if !reports.is_empty() {
            all.insert(repository, reports);
        }
    }

    /// Whether a file of the repository is not as it was left, so that a look is due. Opens nothing.
    pub fn differ(&self, repository: RepositoryId) -> bool {
        let all = self.lock();
        let reports = all.get(&repository).into_iter().flatten();
        reports.into_iter().any(|report| report.marks.is_none() || report.marks != marks(&report.path))
    }

    /// Whether any file is kept.
    pub fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    /// What is wrong with the files of an allocation.
    pub fn troubles(&self, allocation: &Allocation) -> Vec<Trouble> {
        let all = self.lock();
        let reports = all.get(&allocation.repository).into_iter().flatten();
        reports
            .filter(|report| report.allocation == allocation.id)
            .filter_map(|report| report.trouble.clone())
            .collect()
    }
}

fn keep(allocation: &Allocation, file: &EnvFilePath, block: &Block) -> Report {
    let path = allocation.path.join(file.as_path());
    let name = plain(&file.as_path().to_string_lossy());
    // Taken before the file is read: what changes after that shows.
    let before = marks(&path);
    let (marks, trouble) = match wtd_env_file::keep(&allocation.path, file, block, NewFile::LikeDirectory) {
        Ok(kept) => {
            debug!(file = %path.display(), ?kept, "env file kept");
            let trouble = (!block.left_out().is_empty()).then(|| Trouble {
                what: format!("{name} lacks {}", block.left_out().join(", ")),
                remedy: "dotenv, Compose and make would read such a value differently: use letters, digits and _./:@%+,-=?[] in it",
            });
            (before.filter(|_| kept == Kept::Unchanged), trouble)
        }
        Err(error) => {
            let what = format!("{name} is not kept: {}", plain(&error.why.to_string()));
            (None, Some(Trouble { what, remedy: error.why.remedy() }))
        }
    };
    Report { allocation: allocation.id, path, marks, trouble }
}

fn marks(path: &Path) -> Option<Marks> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let (modified, changed) = (files::modified_ns(&metadata), files::changed_ns(&metadata));
    Some((metadata.dev(), metadata.ino(), metadata.len(), modified, changed))
}
