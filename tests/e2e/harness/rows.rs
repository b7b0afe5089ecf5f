//! `list --json` as the contract has it. Written down here a second time, and not taken from the protocol's own
//! types, so that a renamed field is a failed test.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::Value;

/// One worktree.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Row {
    pub(crate) id: String,
    pub(crate) repository: String,
    pub(crate) path: String,
    pub(crate) path_base64: Option<String>,
    pub(crate) branch: Option<String>,
    pub(crate) main: bool,
    pub(crate) offset: u16,
    pub(crate) ports: BTreeMap<String, u16>,
    pub(crate) mode: String,
    pub(crate) volume: String,
    pub(crate) database: String,
    pub(crate) schema: Option<String>,
    pub(crate) database_made: Option<bool>,
    pub(crate) project: String,
    pub(crate) state: String,
    pub(crate) since: String,
    pub(crate) conflicts: Vec<Value>,
    #[serde(default)]
    pub(crate) reason: String,
    #[serde(default)]
    pub(crate) locked: bool,
    #[serde(default)]
    pub(crate) listening: Vec<String>,
    #[serde(default)]
    pub(crate) passed_over: Vec<Value>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) untrusted: bool,
}

impl Row {
    /// The worktree's exact path.
    pub(crate) fn exact_path(&self) -> PathBuf {
        wtd_protocol::PathText::path(&self.path, self.path_base64.as_deref()).unwrap()
    }

    pub(crate) fn is(&self, state: &str) -> bool {
        self.state == state
    }
}

/// The worktrees of a list.
#[derive(Debug, Clone)]
pub(crate) struct Rows(Vec<Row>);

impl Deref for Rows {
    type Target = [Row];

    fn deref(&self) -> &[Row] {
        &self.0
    }
}

impl Rows {
    #[track_caller]
    pub(crate) fn parse(json: &str) -> Self {
        Self(serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}")))
    }

    /// The worktree at `path` whose allocation is neither stale nor released.
    pub(crate) fn find(&self, path: &Path) -> Option<&Row> {
        let live = |row: &&Row| row.is("active") || row.is("missing");
        self.iter()
            .filter(live)
            .find(|row| row.exact_path().as_os_str().as_bytes() == path.as_os_str().as_bytes())
    }

    /// As [`Rows::find`], for one that has to be there.
    #[track_caller]
    pub(crate) fn at(&self, path: &Path) -> &Row {
        self.find(path).unwrap_or_else(|| panic!("{} is not in the list: {self:#?}", path.display()))
    }

    /// The row of an allocation, whatever its state.
    pub(crate) fn id(&self, id: &str) -> Option<&Row> {
        self.iter().find(|row| row.id == id)
    }

    /// The paths of the active worktrees of one repository, or of all.
    pub(crate) fn active(&self, common_dir: Option<&Path>) -> BTreeSet<PathBuf> {
        self.iter()
            .filter(|row| row.is("active") && common_dir.is_none_or(|dir| Path::new(&row.repository) == dir))
            .map(Row::exact_path)
            .collect()
    }

    /// The offsets of the active worktrees, ascending.
    pub(crate) fn offsets(&self) -> Vec<u16> {
        let mut offsets: Vec<_> = self.iter().filter(|row| row.is("active")).map(|row| row.offset).collect();
        offsets.sort_unstable();
        offsets
    }

    /// No two allocations that are not released share an offset, a port or a volume: but for those of a server that
    /// worktrees share by their mode.
    #[track_caller]
    pub(crate) fn assert_disjoint(&self) {
        let (mut offsets, mut ports, mut volumes) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for row in self.iter().filter(|row| !row.is("released")) {
            if let Some(other) = offsets.insert(row.offset, row) {
                panic!("two allocations have offset {}: {other:#?} {row:#?}", row.offset);
            }
            let is_isolated = row.mode == "isolated";
            if let Some(other) = volumes.insert(&row.volume, row).filter(|_| is_isolated) {
                panic!("two allocations have volume {}: {other:#?} {row:#?}", row.volume);
            }
            for (name, port) in row.ports.iter().filter(|(name, _)| is_isolated || *name != "DB_HOST_PORT") {
                if let Some(other) = ports.insert(*port, row) {
                    panic!("two allocations have port {port} ({name}): {other:#?} {row:#?}");
                }
            }
        }
    }
}
