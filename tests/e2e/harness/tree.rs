//! Everything below a directory, to tell afterwards that nothing was touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Each path below a directory with its mode and its content; a symbolic link with where it leads.
pub(crate) type Tree = BTreeMap<PathBuf, (u32, Vec<u8>)>;

/// What is below `directory`, less the paths that `leave_out` says and all below them.
pub(crate) fn tree(directory: &Path, leave_out: &dyn Fn(&Path) -> bool) -> Tree {
    let mut found = Tree::new();
    add(directory, leave_out, &mut found);
    found
}

fn add(directory: &Path, leave_out: &dyn Fn(&Path) -> bool, found: &mut Tree) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if leave_out(&path) {
            continue;
        }
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_symlink() {
            fs::read_link(&path).unwrap().as_os_str().as_bytes().to_vec()
        } else if metadata.is_file() {
            fs::read(&path).unwrap()
        } else {
            Vec::new()
        };
        found.insert(path.clone(), (metadata.mode(), content));
        if metadata.is_dir() {
            add(&path, leave_out, found);
        }
    }
}
