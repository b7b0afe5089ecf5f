//! Bodies of requests and of answers that are no worktree.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::gc::EngineHint;
use crate::path_text::{PathText, PathTextError};

/// A path in a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PathRequest {
    /// An absolute path.
    #[serde(default)]
    pub path: String,
    /// Exact bytes of the path in base64; wins over `path`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
}

impl PathRequest {
    /// The request about `path`.
    pub fn of(path: &Path) -> Self {
        let PathText { text, base64 } = PathText::of(path);
        Self { path: text, path_base64: base64 }
    }

    /// The path that is asked about, exactly.
    pub fn path(&self) -> Result<PathBuf, PathTextError> {
        PathText::path(&self.path, self.path_base64.as_deref())
    }
}

/// Body of [`crate::routes::REASSIGN`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReassignRequest {
    /// The worktree.
    #[serde(flatten)]
    pub path: PathRequest,
    /// Move it although its volume exists (or can't be asked after); the data stays under the old name.
    #[serde(default)]
    pub force: bool,
    /// The engine that is asked after the volume.
    #[serde(flatten)]
    pub engine: EngineHint,
}

/// Body of `PUT` on [`crate::routes::COMPOSE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ComposeRequest {
    /// The worktree.
    #[serde(flatten)]
    pub path: PathRequest,
    /// The allocation that the override was made for; another one's is refused.
    pub allocation: String,
    /// The project's Compose files, absolute, in the order in which Compose reads them.
    pub files: Vec<String>,
    /// [`crate::compose::digest`] of what those files held when the override was made.
    pub files_digest: String,
    /// The files that Compose read beside those (included, extended, env files; absolute), each with the
    /// [`crate::compose::digest`] of what it held outside of wtd's block; of nothing where it was absent.
    #[serde(default)]
    pub further: BTreeMap<String, String>,
    /// What separates the paths in `COMPOSE_FILE`.
    pub separator: char,
    /// The override: a Compose file.
    #[serde(rename = "override")]
    pub text: String,
    /// The host ports that the project publishes under the override: `8080`, or `10000-10100` for a range.
    pub ports: Vec<String>,
    /// The volumes that the override names.
    pub volumes: Vec<String>,
}

/// What `DELETE` on [`crate::routes::REPOSITORIES`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ForgetRequest {
    /// A path in the repository, or the path of a missing worktree.
    #[serde(flatten)]
    pub path: PathRequest,
    /// Only say what would be forgotten.
    #[serde(default)]
    pub dry_run: bool,
}

/// What a reload of the configuration came to: the answer of [`crate::routes::RELOAD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reloaded {
    /// The configuration file; null where there is none.
    pub file: Option<String>,
    /// Keys whose values have changed, and are in force.
    pub changed: Vec<String>,
    /// Keys whose values have changed since the daemon was started, and are not in force until it is restarted.
    pub needs_restart: Vec<String>,
}

/// What `PUT` on [`crate::routes::TRUST`] takes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TrustRequest {
    /// A path in the worktree whose configuration is meant.
    #[serde(flatten)]
    pub path: PathRequest,
    /// The SHA-256 of the content that a person was shown, in hexadecimal digits. Another content is not trusted.
    pub sha256: String,
}

/// What a worktree's configuration declares that takes trust.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Trust {
    /// The repository's common dir.
    pub repository: String,
    /// The worktree's root directory; the common dir of a bare repository that was named itself.
    pub path: String,
    /// Exact bytes of `path` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// The file that declares it; null where there is none.
    pub file: Option<String>,
    /// The SHA-256 of the file's content, in hexadecimal digits; null where nothing in it takes trust.
    pub sha256: Option<String>,
    /// Whether this content is trusted in this repository.
    pub trusted: bool,
    /// Variables that it sets, with their templates.
    pub env: BTreeMap<String, String>,
    /// Files that it has kept, relative to the worktree's root.
    pub files: Vec<String>,
    /// The database server that its URL leads to, without the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<String>,
    /// Whether a new worktree's database volume is filled with a copy of the main worktree's.
    #[serde(default)]
    pub seed: bool,
    /// What is wrong in the file, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// What `DELETE` on [`crate::routes::TRUST`] came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revoked {
    /// The repository's common dir.
    pub repository: String,
    /// How many contents were trusted, and are not any more.
    pub contents: usize,
}

/// What was, or would be, forgotten.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Forgotten {
    /// The repository's common dir.
    pub repository: String,
    /// Whether the repository is no longer watched (false: one missing worktree of it was meant).
    pub whole_repository: bool,
    /// The allocations that become stale.
    pub allocations: Vec<crate::Allocation>,
    /// Whether there can be volumes of theirs: false where there is no container engine.
    #[serde(default = "yes")]
    pub has_engine: bool,
}

/// What a daemon means that does not say.
const fn yes() -> bool {
    true
}
