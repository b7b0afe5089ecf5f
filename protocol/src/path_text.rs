//! Paths in JSON: text that people and programs can read, and the exact bytes beside it when text can't hold them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A path as it travels in JSON. On Unix a path is bytes, and JSON strings are Unicode: a path that is not
/// UTF-8 is shown lossily, and given exactly as base64 of its bytes (RFC 4648, section 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathText {
    /// The path with every sequence that is not UTF-8 replaced by U+FFFD.
    pub text: String,
    /// Base64 of the path's bytes; only where `text` is not exact.
    pub base64: Option<String>,
}

/// A path in a request that can't be told.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PathTextError {
    /// The base64 field is not base64.
    #[error("path_base64 is not base64")]
    NotBase64,
    /// A path can't hold a NUL byte.
    #[error("a path can't hold a NUL byte")]
    Nul,
}

impl PathText {
    /// The text of `path`.
    pub fn of(path: &Path) -> Self {
        match path.to_str() {
            Some(text) => Self { text: text.to_owned(), base64: None },
            None => Self {
                text: path.to_string_lossy().into_owned(),
                base64: Some(STANDARD.encode(path.as_os_str().as_bytes())),
            },
        }
    }

    /// The path that `text` and `base64` tell; the exact form wins.
    pub fn path(text: &str, base64: Option<&str>) -> Result<PathBuf, PathTextError> {
        let bytes = match base64 {
            Some(encoded) => STANDARD.decode(encoded).map_err(|_| PathTextError::NotBase64)?,
            None => text.as_bytes().to_vec(),
        };
        if bytes.contains(&0) {
            return Err(PathTextError::Nul);
        }
        Ok(PathBuf::from(OsString::from_vec(bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_comes_back_exactly() {
        for bytes in [&b"/plain"[..], b"/new\nline", b"/\xff\xfe", "/\u{fffd}/ü".as_bytes(), b""] {
            let path = PathBuf::from(OsString::from_vec(bytes.to_vec()));
            let PathText { text, base64 } = PathText::of(&path);
            assert_eq!(PathText::path(&text, base64.as_deref()).unwrap(), path);
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        assert_eq!(PathText::path("", Some("%")), Err(PathTextError::NotBase64));
        assert_eq!(PathText::path("a\0b", None), Err(PathTextError::Nul));
    }
}
