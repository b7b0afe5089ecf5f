//! Texts of strangers (paths, keys, names of processes), for people to read.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use shell_quote::Sh;

/// A text as one line of printable characters. Quotes and backslashes stay, since paths are to be copied.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '"' | '\'' | '\\' => plain.push(c),
            _ => plain.extend(c.escape_debug()),
        }
    }
    plain
}

/// A path as one word of a POSIX shell, for a command that a person can paste.
pub fn shell_word(path: &Path) -> String {
    String::from_utf8_lossy(&Sh::quote_vec(path.as_os_str().as_bytes())).into_owned()
}

/// A number of things: `1 volume`, `2 volumes`.
pub fn count(number: usize, one: &str, more: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { more })
}

/// The first characters of a text: enough to recognise it, too few to flood a terminal.
pub fn excerpt(text: &str) -> &str {
    text.char_indices().nth(64).map_or(text, |(end, _)| text.get(..end).unwrap_or(text))
}

/// The line that a byte of a text is in, from 1.
pub fn line_of(text: &[u8], offset: usize) -> usize {
    1 + text.iter().take(offset).filter(|byte| **byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_escaped() {
        assert_eq!(plain("/w/it's \"x\"\\y é"), "/w/it's \"x\"\\y é");
        assert_eq!(plain("a\nb\u{1b}[31m\u{202e}\u{0}"), "a\\nb\\u{1b}[31m\\u{202e}\\0");
    }

    #[test]
    fn a_path_in_a_command_is_one_word() {
        assert_eq!(shell_word(Path::new("/w/app-1.x")), "/w/app-1.x");
        assert_eq!(shell_word(Path::new("/w/it's; id")), "/w/it\\'s'; id'");
    }

    #[test]
    fn an_excerpt_ends_between_characters() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"é".repeat(100)), "é".repeat(64));
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!([0, 1, 2, 9].map(|offset| line_of(b"a\nb\n", offset)), [1, 1, 2, 3]);
    }
}
