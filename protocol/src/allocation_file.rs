//! The allocation file: `wtd.json` in a worktree's git dir.
//!
//! It says which allocation a git dir has: git ignores it, `git worktree move` carries it, and
//! `git worktree remove` deletes it, so it lives exactly as long as one incarnation of the worktree.
//! With no daemon to be had, the client answers from it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::path_text::PathText;

/// The file's name in the git dir.
pub const FILE_NAME: &str = "wtd.json";

/// Largest allocation file that is read, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// The version of the format that this library writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The content of an allocation file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllocationFile {
    /// Version of the format: [`FORMAT`].
    pub format: u32,
    /// The allocation's UUID.
    pub id: String,
    /// The `PORT_OFFSET`.
    pub offset: u16,
    /// The worktree's root directory.
    pub path: String,
    /// Exact bytes of `path` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// The worktree's variables.
    pub variables: BTreeMap<String, String>,
}

/// Why an allocation file is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AllocationFileError {
    /// Not JSON of this shape.
    #[error("not an allocation file: {0}")]
    Malformed(#[from] serde_json::Error),
    /// Larger than [`MAX_BYTES`].
    #[error("larger than {MAX_BYTES} bytes")]
    TooLarge,
    /// Written by a version that this one doesn't know.
    #[error("format {0} is not known to this version")]
    Format(u32),
    /// A field holds what no daemon writes.
    #[error("{0}")]
    Content(&'static str),
}

impl AllocationFile {
    /// Reads the file's bytes. Everything that the client would print is checked here, because the file lies
    /// where an unpacked archive could have put it.
    pub fn parse(bytes: &[u8]) -> Result<Self, AllocationFileError> {
        if bytes.len() > MAX_BYTES {
            return Err(AllocationFileError::TooLarge);
        }
        let file: Self = serde_json::from_slice(bytes)?;
        if file.format != FORMAT {
            return Err(AllocationFileError::Format(file.format));
        }
        let is_uuid = file.id.len() == 36 && file.id.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
        if !is_uuid {
            return Err(AllocationFileError::Content("the id is not a UUID"));
        }
        if file.variables.get(crate::variable::PORT_OFFSET) != Some(&file.offset.to_string()) {
            return Err(AllocationFileError::Content("PORT_OFFSET is not the offset"));
        }
        let is_port =
            |text: &String| text.parse::<u16>().is_ok_and(|port| port > 0 && port.to_string() == *text);
        if !file.variables.get(crate::variable::DB_HOST_PORT).is_none_or(is_port) {
            return Err(AllocationFileError::Content("DB_HOST_PORT is not a port that wtd gives"));
        }
        for (name, value) in &file.variables {
            if !crate::variable::may_be_set(name) || value.contains('\0') {
                return Err(AllocationFileError::Content("a variable is not one that wtd sets"));
            }
        }
        Ok(file)
    }

    /// The worktree's root directory, exactly; none when the field can't be told.
    pub fn path(&self) -> Option<PathBuf> {
        PathText::path(&self.path, self.path_base64.as_deref()).ok()
    }

    /// Whether the file is about the worktree at `root`.
    pub fn names(&self, root: &Path) -> bool {
        self.path().is_some_and(|path| path == root)
    }

    /// The bytes to write.
    pub fn to_bytes(&self) -> Result<Vec<u8>, AllocationFileError> {
        let mut bytes = serde_json::to_vec_pretty(self)?;
        bytes.push(b'\n');
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> AllocationFile {
        AllocationFile {
            format: FORMAT,
            id: "01890f5e-7b3c-7cc0-98c4-dc0c0c07398f".into(),
            offset: 10000,
            path: "/work/feature".into(),
            path_base64: None,
            variables: [
                ("PORT_OFFSET", "10000"),
                ("DB_HOST_PORT", "15432"),
                ("WTD_WORKTREE", "/work/feature"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(AllocationFile::parse(&file().to_bytes().unwrap()).unwrap(), file());
    }

    #[test]
    fn a_field_of_a_later_version_is_ignored() {
        let mut value = serde_json::to_value(file()).unwrap();
        value["later"] = 1.into();
        assert!(AllocationFile::parse(value.to_string().as_bytes()).is_ok());
    }

    #[test]
    fn what_a_daemon_would_not_have_written_is_refused() {
        let refused = |change: &dyn Fn(&mut AllocationFile)| {
            let mut file = file();
            change(&mut file);
            AllocationFile::parse(&file.to_bytes().unwrap()).is_err()
        };
        assert!(refused(&|file| file.format = 2));
        assert!(refused(&|file| file.id = "../../x".into()));
        assert!(refused(&|file| file.offset = 0));
        for port in ["99999999", "0", "+15432", "", "15432; id"] {
            assert!(
                refused(&|file| drop(file.variables.insert("DB_HOST_PORT".into(), port.into()))),
                "{port}"
            );
        }
        assert!(refused(&|file| drop(file.variables.insert("LD_PRELOAD".into(), "x.so".into()))));
        assert!(refused(&|file| drop(file.variables.insert("A B".into(), "x".into()))));
        assert!(AllocationFile::parse(&vec![b' '; MAX_BYTES + 1]).is_err());
        assert!(AllocationFile::parse(b"").is_err());
    }
}
