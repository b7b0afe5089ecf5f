//! Texts of strangers (paths, keys, names of processes), for people to read.

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
    fn an_excerpt_ends_between_characters() {
        assert_eq!(excerpt("short"), "short");
        assert_eq!(excerpt(&"é".repeat(100)), "é".repeat(64));
    }

    #[test]
    fn lines_are_counted_from_one() {
        assert_eq!([0, 1, 2, 9].map(|offset| line_of(b"a\nb\n", offset)), [1, 1, 2, 3]);
    }
}
