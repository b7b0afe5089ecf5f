//! Where a repository's main worktree is.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use gix_config::file::Metadata;
use gix_config::file::init::Options;

use super::{files, links};

/// Largest configuration file that is read, in bytes: thousands of branches fit.
const MAX_CONFIG_BYTES: usize = 4 * 1024 * 1024;

/// What a repository's configuration says of its main worktree.
#[derive(Debug, Default)]
struct Core {
    bare: Option<bool>,
    worktree: Option<PathBuf>,
    worktree_config: bool,
}

/// The root of the main worktree of `common_dir`, canonical as far as it exists; none in a bare repository,
/// and where nothing tells.
///
/// `core.bare` and `core.worktree` (`git-config(1)`) come first, then the directory around `.git`, and last
/// `reached`: for a git dir that lies elsewhere (`git init --separate-git-dir`) nothing in it names the root.
pub(super) fn root(common_dir: &Path, reached: Option<&Path>) -> Option<PathBuf> {
    let mut core = read(&common_dir.join("config")).unwrap_or_default();
    // `extensions.worktreeConfig` moves the two into a file that only the main worktree reads.
    if core.worktree_config
        && let Some(own) = read(&common_dir.join("config.worktree"))
    {
        core.bare = own.bare.or(core.bare);
        core.worktree = own.worktree.or(core.worktree);
    }
    if core.bare == Some(true) {
        return None;
    }
    if let Some(worktree) = core.worktree.map(|worktree| common_dir.join(worktree))
        && (reached.is_none() || worktree.is_dir())
    {
        return Some(links::canonical(&worktree));
    }
    if common_dir.file_name().is_some_and(|name| name == ".git") {
        return common_dir.parent().map(Path::to_owned);
    }
    reached.map(links::canonical)
}

/// None when the file isn't there, can't be read or isn't a configuration: then nothing is known. Includes
/// are not followed, since they could name any file.
fn read(path: &Path) -> Option<Core> {
    let bytes = files::read_up_to(path, MAX_CONFIG_BYTES).ok()?;
    let options = Options { lossy: true, ..Options::default() };
    let file = gix_config::File::from_bytes_no_includes(&bytes, Metadata::api(), options).ok()?;
    let boolean = |key: &str| file.boolean(key).ok().flatten();
    Some(Core {
        bare: boolean("core.bare"),
        worktree: file.string("core.worktree").map(|path| PathBuf::from(OsString::from_vec(path.into()))),
        worktree_config: boolean("extensions.worktreeConfig") == Some(true),
    })
}
