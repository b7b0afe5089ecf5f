//! The files that `[files]` of a trusted `wtd.toml` has kept in worktrees: each holds the block with the worktree's
//! variables, and is looked at whenever its repository is. What came of the last time is remembered here and nowhere
//! else, since the next look finds it out again.

use std::cell::LazyCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use tracing::{debug, warn};
use wtd_env_file::{Block, EnvFilePath, Kept, NewFile};

use crate::domain::allocation::Allocation;
use crate::domain::identity::{AllocationId, RepositoryId};
use crate::domain::project::Project;
use crate::domain::variables::variables;
use crate::git::files;
use crate::text::plain;

/// The files that are kept, by repository and allocation. A repository without any has no entry.
#[derive(Debug, Default)]
pub struct EnvFiles(Mutex<HashMap<RepositoryId, HashMap<AllocationId, Worktree>>>);

/// The files of one worktree.
#[derive(Debug, Clone)]
struct Worktree {
    allocation: Arc<Allocation>,
    reports: Vec<Report>,
}

/// What came of one file.
#[derive(Debug, Clone)]
struct Report {
    path: PathBuf,
    /// The marks of a file that was found as it should be.
    marks: Option<Marks>,
    trouble: Option<Trouble>,
}

impl Report {
    /// Whether the file is as it was when it was found as it should be. Opens nothing.
    fn stands(&self) -> bool {
        self.marks.is_some() && self.marks == marks(&self.path)
    }
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
    /// Keeps the files of a repository's worktrees, and no others any more. Blocks. Those that are as they were left,
    /// with the variables that they were left with, cost one `stat` each.
    pub fn keep(&self, repository: RepositoryId, worktrees: &[(Arc<Allocation>, Arc<Project>)]) {
        if worktrees.is_empty() {
            self.0.lock().remove(&repository);
            return;
        }
        let before = self.0.lock().get(&repository).cloned().unwrap_or_default();
        let mut after = HashMap::with_capacity(worktrees.len());
        for (allocation, project) in worktrees {
            let known = before.get(&allocation.id);
            let reports = keep_all(allocation, project, known);
            for report in &reports {
                let is_news =
                    known.is_none_or(|known| !known.reports.iter().any(|old| old.trouble == report.trouble));
                if let Some(trouble) = report.trouble.as_ref().filter(|_| is_news) {
                    warn!(file = %report.path.display(), trouble = %trouble.what, "env file");
                }
            }
            after.insert(allocation.id, Worktree { allocation: Arc::clone(allocation), reports });
        }
        self.0.lock().insert(repository, after);
    }

    /// Whether a file of the repository is not as it was left, so that a look is due. Opens nothing.
    pub fn differ(&self, repository: RepositoryId) -> bool {
        let known = self.0.lock().get(&repository).cloned().unwrap_or_default();
        known.values().flat_map(|worktree| &worktree.reports).any(|report| !report.stands())
    }

    /// Whether any file is kept.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// What is wrong with the files of an allocation.
    pub fn troubles(&self, allocation: &Allocation) -> Vec<Trouble> {
        let all = self.0.lock();
        let worktree = all.get(&allocation.repository).and_then(|worktrees| worktrees.get(&allocation.id));
        let reports = worktree.into_iter().flat_map(|worktree| &worktree.reports);
        reports.filter_map(|report| report.trouble.clone()).collect()
    }
}

/// Keeps the files of one worktree; `known` is what came of them the last time.
fn keep_all(allocation: &Arc<Allocation>, project: &Project, known: Option<&Worktree>) -> Vec<Report> {
    let known = known.filter(|known| Arc::ptr_eq(&known.allocation, allocation));
    let block = LazyCell::new(|| {
        let variables = variables(allocation);
        Block::of(variables.iter().map(|(name, value)| (name.as_str(), OsStr::new(value))))
    });
    let files = project.env_files.iter().map(|file| {
        let path = allocation.path.join(file.as_path());
        let report = known.and_then(|known| known.reports.iter().find(|report| report.path == path));
        match report.filter(|report| report.stands()) {
            Some(report) => report.clone(),
            None => keep(allocation, file, path, &block),
        }
    });
    files.collect()
}

fn keep(allocation: &Allocation, file: &EnvFilePath, path: PathBuf, block: &Block) -> Report {
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
    Report { path, marks, trouble }
}

fn marks(path: &Path) -> Option<Marks> {
    let metadata = fs::symlink_metadata(path).ok()?;
    let (modified, changed) = (files::modified_ns(&metadata), files::changed_ns(&metadata));
    Some((metadata.dev(), metadata.ino(), metadata.len(), modified, changed))
}
