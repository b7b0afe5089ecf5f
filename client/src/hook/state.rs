//! What the hook remembers, as the value of an environment variable.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use wtd_protocol::variable::may_be_set;

use crate::error::Error;

/// The variable with the hook's memory.
pub(crate) const WTD_HOOK: &str = "WTD_HOOK";

/// The version of the form below. A memory of another one is not read.
const VERSION: &str = "1";

/// Longest value that is written, in bytes. A variable beyond 128 KiB keeps the shell from starting anything
/// (`execve(2)`, `MAX_ARG_STRLEN`).
const MAX_BYTES: usize = 64 * 1024;

/// What the hook remembers.
///
/// Written as `1:<process id>:<base64>` (RFC 4648, section 4, without padding), which no shell can misread. The
/// base64 holds fields, each a letter and its content, ended by NUL:
///
/// | field | content |
/// |---|---|
/// | `N` | a variable's name; the next fields are about it |
/// | `B` | its value before; absent if it was not in the environment |
/// | `S` | the value that the hook gave it |
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// The process id of the shell in which the hook ran last.
    pub(crate) shell: u32,
    /// Each variable that the hook has set.
    pub(crate) memories: BTreeMap<String, Memory>,
}

/// What the hook remembers of one variable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Memory {
    /// The exported value before the hook set it.
    pub(crate) before: Option<OsString>,
    /// The value that the hook gave it.
    pub(crate) value: OsString,
}

impl Memory {
    /// The memory of a variable that is set for the first time.
    pub(crate) const fn new(before: Option<OsString>, value: OsString) -> Self {
        Self { before, value }
    }
}

impl State {
    /// Reads a value of [`WTD_HOOK`]. What the hook has not written is no memory: only names that wtd sets are
    /// taken, so that no memory can change `PATH`.
    pub(crate) fn parse(value: &OsStr) -> Option<Self> {
        let mut parts = value.to_str()?.split(':');
        let (version, shell, code) = (parts.next()?, parts.next()?, parts.next()?);
        if version != VERSION || parts.next().is_some() {
            return None;
        }
        let bytes = STANDARD_NO_PAD.decode(code).ok()?;
        let mut state = Self { shell: shell.parse().ok()?, ..Self::default() };
        let mut memory: Option<(String, Memory)> = None;
        for field in bytes.strip_suffix(b"\0").unwrap_or_default().split(|byte| *byte == 0) {
            let (tag, content) = match field.split_first() {
                Some((tag, content)) => (tag, OsString::from_vec(content.to_vec())),
                None if bytes.is_empty() => break,
                None => return None,
            };
            match (tag, &mut memory) {
                (b'N', _) => {
                    let name = content.into_string().ok().filter(|name| may_be_set(name))?;
                    state.memories.extend(memory.replace((name, Memory::new(None, OsString::new()))));
                }
                (b'B', Some((_, memory))) => memory.before = Some(content),
                (b'S', Some((_, memory))) => memory.value = content,
                _ => return None,
            }
        }
        state.memories.extend(memory);
        Some(state)
    }

    /// The value of [`WTD_HOOK`].
    pub(crate) fn to_value(&self) -> Result<OsString, Error> {
        let mut bytes = Vec::with_capacity(512);
        let mut put = |tag: u8, content: &[u8]| {
            bytes.push(tag);
            bytes.extend_from_slice(content);
            bytes.push(0);
        };
        for (name, memory) in &self.memories {
            put(b'N', name.as_bytes());
            if let Some(before) = &memory.before {
                put(b'B', before.as_bytes());
            }
            put(b'S', memory.value.as_bytes());
        }
        let value = format!("{VERSION}:{}:{}", self.shell, STANDARD_NO_PAD.encode(bytes));
        if value.len() > MAX_BYTES {
            let names = self.memories.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            return Err(Error::failed(
                format!("what was in {names} before is too long to be kept"),
                "unset the longest of them, and change into this directory again",
            ));
        }
        Ok(value.into())
    }
}
