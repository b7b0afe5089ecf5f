//! `KEY=value` lines that Compose (`.env`, `env_file`) and POSIX shells (`set -a; . ./file`) read alike.
//!
//! | value | written |
//! |---|---|
//! | of letters, digits and `_./:@%+,-` | as it is |
//! | without `'`, not ending in `\` | between single quotes, where both take every byte as it is |
//! | without `` ` ``, not ending in `\` | between double quotes, with a backslash before each of `\ " $` |
//! | any other | refused: Compose looks for the closing quote past a backslash, and keeps the backslash in `` \` `` |
//!
//! Compose's rules are those of its parser (compose-go, `dotenv/parser.go`), a shell's those of POSIX, Shell
//! Command Language, 2.2.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// A value that Compose and shells would read differently.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} has a value that Compose and shells would read differently from a file")]
pub(crate) struct DotenvError(String);

/// The lines for `variables`.
pub(crate) fn lines<'a>(
    variables: impl Iterator<Item = (&'a String, &'a OsString)>,
) -> Result<Vec<u8>, DotenvError> {
    let mut lines = Vec::with_capacity(512);
    for (name, value) in variables {
        lines.extend_from_slice(name.as_bytes());
        lines.push(b'=');
        lines.extend(quoted(value).ok_or_else(|| DotenvError(name.clone()))?);
        lines.push(b'\n');
    }
    Ok(lines)
}

fn quoted(value: &OsStr) -> Option<Vec<u8>> {
    let value = value.as_bytes();
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"_./:@%+,-".contains(byte);
    if !value.is_empty() && value.iter().all(is_plain) {
        return Some(value.to_vec());
    }
    if value.ends_with(b"\\") {
        return None;
    }
    if !value.contains(&b'\'') {
        return Some([b"'", value, b"'"].concat());
    }
    if value.contains(&b'`') {
        return None;
    }
    let mut quoted = vec![b'"'];
    for byte in value {
        if b"\\\"$".contains(byte) {
            quoted.push(b'\\');
        }
        quoted.push(*byte);
    }
    quoted.push(b'"');
    Some(quoted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(value: &str) -> Option<String> {
        quoted(OsStr::new(value)).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn quotes_are_used_where_they_are_needed() {
        for (value, written) in [
            ("15432", "15432"),
            ("/home/me/x-y", "/home/me/x-y"),
            ("", "''"),
            ("a b", "'a b'"),
            ("$HOME #x", "'$HOME #x'"),
            ("a\nb", "'a\nb'"),
            ("a\\b", "'a\\b'"),
            ("it's \"$x\" \\", ""),
            ("it's \"$x\" \\n", "\"it's \\\"\\$x\\\" \\\\n\""),
            ("a`'", ""),
            ("end\\", ""),
        ] {
            assert_eq!(line(value).unwrap_or_default(), written, "{value:?}");
        }
    }
}
