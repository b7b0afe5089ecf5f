//! The block: its text, and putting it into the content of a file.
//!
//! A file can be read by a dotenv library, as a Compose `env_file` and by make's `include`, and nobody knows by which.
//! They agree on no quoting: make takes quotes for a part of the value, dotenv libraries and Compose expand `$` where
//! make wants `$$`, and a `#` ends a value in some of them. So only values that need no quoting are written, which
//! `docker run --env-file`, systemd and POSIX shells (`set -a; . ./file`) read alike as well. For any other there is
//! a comment in the variable's place: a variable that is missing is noticed, one with a wrong value connects elsewhere.
//!
//! Sources: compose-go (`dotenv/parser.go`), the GNU make manual (3.7 "How make Parses a Makefile"), POSIX (Shell
//! Command Language, 2.6), systemd.exec(5) (`EnvironmentFile=`).

use std::ffi::OsStr;
use std::ops::Range;

/// How the block's first line begins; what follows on it is for people.
const BEGIN: &str = "# >>> wtd >>>";
/// How the block's last line begins.
const END: &str = "# <<< wtd <<<";
/// The part of [`BEGIN`] and [`END`] that is found in any line that could be meant for one.
const MARKS: [&[u8]; 2] = [b">>> wtd >>>", b"<<< wtd <<<"];
/// What the block's first line tells people.
const EXPLANATION: &str = "kept by wtd: what stands between these two lines is replaced";

/// Punctuation that every reader takes as it is, anywhere in a value.
const PLAIN: &[u8] = b"_./:@%+,-=?[]";

/// The lines of a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    lines: Vec<String>,
    left_out: Vec<String>,
}

/// Why a file's content has no place for a block.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// It holds NUL bytes, so it is UTF-16 or no text.
    #[error("it is not the text of an env file")]
    NotText,
    /// A second block begins, or ends, in this line.
    #[error("line {0} marks a second block of wtd's")]
    Repeated(usize),
    /// The block that begins in this line does not end.
    #[error("the block of wtd's that begins in line {0} does not end")]
    Unclosed(usize),
    /// The line ends a block that did not begin.
    #[error("line {0} ends a block of wtd's that does not begin")]
    Unopened(usize),
    /// The line holds a marker, and does not begin with it.
    #[error("line {0} holds a marker of wtd's block that is not at its beginning")]
    Misplaced(usize),
}

impl Block {
    /// The block with these variables, in this order. Names are of wtd's own form (`[A-Z][A-Z0-9_]*`).
    pub fn of<'a>(variables: impl IntoIterator<Item = (&'a str, &'a OsStr)>) -> Self {
        let mut block = Self { lines: Vec::new(), left_out: Vec::new() };
        for (name, value) in variables {
            match value.to_str().filter(|value| value.bytes().all(is_plain)) {
                Some(value) => block.lines.push(format!("{name}={value}")),
                None => {
                    block.lines.push(format!(
                        "# {name} is left out: dotenv, Compose and make would read its value differently"
                    ));
                    block.left_out.push(name.to_owned());
                }
            }
        }
        block
    }

    /// The variables whose values are not written, since readers would differ.
    pub fn left_out(&self) -> &[String] {
        &self.left_out
    }

    /// `content` with the block in it: in the place of the one that is there, else at the end. Every other byte stays as
    /// it is; only a last line without an end gets one before a block that is added. The lines end as that block's
    /// first line does, else as the content's first line does.
    pub fn put_into(&self, content: &[u8]) -> Result<Vec<u8>, BlockError> {
        if content.contains(&0) {
            return Err(BlockError::NotText);
        }
        let place = find(content)?;
        let (before, after) = match &place {
            Some(place) => (content.get(..place.start), content.get(place.end..)),
            None => (Some(content), None),
        };
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        let end = line_end(content.get(place.as_ref().map_or(0, |place| place.start)..).unwrap_or_default());
        let mut edited = before.to_vec();
        if place.is_none() && !before.is_empty() && !before.ends_with(b"\n") {
            edited.extend_from_slice(end);
        }
        edited.extend_from_slice(format!("{BEGIN} {EXPLANATION}").as_bytes());
        for line in self.lines.iter().map(String::as_str).chain([END]) {
            edited.extend_from_slice(end);
            edited.extend_from_slice(line.as_bytes());
        }
        if place.is_none() {
            edited.extend_from_slice(end);
        }
        edited.extend_from_slice(after);
        Ok(edited)
    }
}

/// The lines of `content` that are not of the block and not empty. A block that is not in order is none.
pub fn outside(content: &[u8]) -> Vec<u8> {
    let place = find(content).ok().flatten().unwrap_or(0..0);
    let parts = [content.get(..place.start), content.get(place.end..)];
    let lines = parts.into_iter().flatten().flat_map(|part| part.split(|byte| *byte == b'\n'));
    let lines = lines.map(<[u8]>::trim_ascii_end).filter(|line| !line.is_empty());
    lines.flat_map(|line| [line, b"\n"].concat()).collect()
}

/// How the first line ends.
fn line_end(content: &[u8]) -> &'static [u8] {
    let first = content.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    if first.ends_with(b"\r\n") { b"\r\n" } else { b"\n" }
}

fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || PLAIN.contains(&byte)
}

/// Where the block is, from its first line to its last one, less that one's end. Lines that could be meant for its
/// markers and are not in order are an error: what is between them may be a person's.
fn find(content: &[u8]) -> Result<Option<Range<usize>>, BlockError> {
    let mut begin: Option<(usize, usize)> = None;
    let mut found = None;
    let mut start = 0;
    for (number, line) in (1..).zip(content.split_inclusive(|byte| *byte == b'\n')) {
        let text = line.strip_suffix(b"\n").unwrap_or(line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        let begins = text.starts_with(BEGIN.as_bytes());
        let ends = text.starts_with(END.as_bytes());
        let marks = MARKS.iter().map(|mark| count(text, mark)).sum::<usize>();
        match (marks, begins || ends) {
            (0, _) => {}
            (1, true) if found.is_some() || (begins && begin.is_some()) => {
                return Err(BlockError::Repeated(number));
            }
            (1, true) if begins => begin = Some((number, start)),
            (1, true) => {
                let (_, first) = begin.ok_or(BlockError::Unopened(number))?;
                found = Some(first..start + text.len());
            }
            _ => return Err(BlockError::Misplaced(number)),
        }
        start += line.len();
    }
    match (begin, &found) {
        (Some((number, _)), None) => Err(BlockError::Unclosed(number)),
        _ => Ok(found),
    }
}

fn count(text: &[u8], part: &[u8]) -> usize {
    text.windows(part.len()).filter(|window| *window == part).count()
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStrExt as _;

    use proptest::prelude::*;

    use super::*;

    fn block(variables: &[(&str, &str)]) -> Block {
        Block::of(variables.iter().map(|(name, value)| (*name, OsStr::new(*value))))
    }

    fn put(block: &Block, content: &str) -> String {
        String::from_utf8(block.put_into(content.as_bytes()).unwrap()).unwrap()
    }

    const FIRST: &str = "# >>> wtd >>> kept by wtd: what stands between these two lines is replaced";

    #[test]
    fn a_block_is_added_at_the_end_and_replaced_in_its_place() {
        let one = block(&[("A", "1"), ("B", "2")]);
        let text = format!("{FIRST}\nA=1\nB=2\n# <<< wtd <<<\n");
        assert_eq!(put(&one, ""), text);
        assert_eq!(put(&one, "X=1\n"), format!("X=1\n{text}"));
        assert_eq!(put(&one, "X=1"), format!("X=1\n{text}"), "a last line without an end gets one");
        let other = block(&[("A", "3")]);
        assert_eq!(put(&other, &format!("X=1\n{text}Y=2")), format!("X=1\n{FIRST}\nA=3\n# <<< wtd <<<\nY=2"));
        // Without an end of its own the last line stays without one.
        let open = text.trim_end();
        assert_eq!(put(&one, open), open);
    }

    #[test]
    fn a_block_that_is_added_changed_or_moved_changes_nothing_outside_of_it() {
        for content in ["", "X=1", "X=1\n", "\r\nX=1\r\nY=2\r\n"] {
            let edited = put(&block(&[("A", "1")]), content);
            assert_eq!(outside(edited.as_bytes()), outside(content.as_bytes()), "{content:?}");
            let edited = put(&block(&[("B", "2")]), &format!("{edited}Z=1\n"));
            assert_eq!(
                outside(edited.as_bytes()),
                outside(format!("{content}\nZ=1").as_bytes()),
                "{content:?}"
            );
        }
        let unclosed = format!("{FIRST}\nA=1\n");
        assert_eq!(outside(unclosed.as_bytes()), unclosed.as_bytes());
    }

    #[test]
    fn lines_end_as_the_others_do() {
        let one = block(&[("A", "1")]);
        let crlf = format!("X=1\r\nY\r\n{FIRST}\r\nA=1\r\n# <<< wtd <<<\r\n");
        assert_eq!(put(&one, "X=1\r\nY"), crlf);
        assert_eq!(put(&one, &crlf), crlf);
        assert_eq!(put(&block(&[("A", "2")]), &crlf), crlf.replace("A=1", "A=2"));
        // A block keeps its own, wherever it stands.
        let mixed = format!("X=1\r\n{FIRST}\nA=1\n# <<< wtd <<<\r\nZ");
        assert_eq!(put(&one, &mixed), mixed);
        assert_eq!(put(&one, "X\nY\r\n"), format!("X\nY\r\n{FIRST}\nA=1\n# <<< wtd <<<\n"));
    }

    #[test]
    fn only_values_that_all_read_alike_are_written() {
        for value in [
            "",
            "15432",
            "/home/me/a-b_c.d",
            "postgresql://u:p%20w@localhost:15432/shop-10000?sslmode=disable",
            "http://[::1]:80/,+",
        ] {
            let block = block(&[("A", value)]);
            assert!(block.left_out().is_empty(), "{value:?}");
            assert!(put(&block, "").contains(&format!("\nA={value}\n")), "{value:?}");
        }
        for value in [
            "a b",
            "a#b",
            "a$b",
            "$(touch x)",
            "`id`",
            "a'b",
            "a\"b",
            "a\\b",
            "a\\",
            "a;b",
            "a&b",
            "a|b",
            "a(b",
            "a<b",
            "a*b",
            "~/x",
            "a!b",
            "{a,b}",
            "a^b",
            "a\nb",
            "a\rb",
            "a\tb",
            " a",
            "a ",
            "é",
            "a\u{1b}b",
        ] {
            let block = block(&[("A", value), ("B", "1")]);
            assert_eq!(block.left_out(), ["A"], "{value:?}");
            let lines = ["# A is left out: dotenv, Compose and make would read its value differently", "B=1"];
            assert_eq!(put(&block, ""), format!("{FIRST}\n{}\n# <<< wtd <<<\n", lines.join("\n")));
        }
        let block = Block::of([("A", OsStr::from_bytes(b"/w\xff"))]);
        assert_eq!(block.left_out(), ["A"]);
    }

    #[test]
    fn markers_that_are_not_in_order_are_refused() {
        let (begin, end) = ("# >>> wtd >>> x\n", "# <<< wtd <<<\n");
        for (content, expected) in [
            (begin.to_owned(), BlockError::Unclosed(1)),
            (format!("\n{begin}A=1\n"), BlockError::Unclosed(2)),
            (format!("A=1\n{end}"), BlockError::Unopened(2)),
            (format!("{begin}{begin}{end}"), BlockError::Repeated(2)),
            (format!("{begin}{end}{end}"), BlockError::Repeated(3)),
            (format!("{begin}{end}{begin}{end}"), BlockError::Repeated(3)),
            (format!("{end}{begin}"), BlockError::Unopened(1)),
            (format!(" {begin}{end}"), BlockError::Misplaced(1)),
            (format!("{begin}A=1 {end}"), BlockError::Misplaced(2)),
            (format!("{begin}A=1\n#  <<< wtd <<<"), BlockError::Misplaced(3)),
            ("# >>> wtd >>> <<< wtd <<<".to_owned(), BlockError::Misplaced(1)),
            ("A=\0".to_owned(), BlockError::NotText),
        ] {
            assert_eq!(block(&[("A", "1")]).put_into(content.as_bytes()), Err(expected), "{content:?}");
        }
        // As an editor that removes or adds spaces at line ends leaves them.
        assert!(block(&[]).put_into(b"# >>> wtd >>>\nA\n# <<< wtd <<<  \n").is_ok());
    }

    /// Lines and line ends as files have them, and as they don't.
    fn content() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            "[A-Z]{1,3}=[ -~]{0,8}".prop_map(String::into_bytes),
            prop::collection::vec(1_u8.., 0..6),
            Just(b"# >>> wtd >>> x".to_vec()),
            Just(b"# <<< wtd <<<".to_vec()),
        ];
        let end = prop_oneof![Just(&b"\n"[..]), Just(&b"\r\n"[..]), Just(&b"\r"[..]), Just(&b""[..])];
        prop::collection::vec((line, end), 0..8).prop_map(|lines| {
            lines.into_iter().flat_map(|(line, end)| [line, end.to_vec()].concat()).collect()
        })
    }

    proptest! {
        /// Whatever a file holds: what is outside of the block stays, and a second time changes nothing.
        #[test]
        fn the_rest_of_a_file_stays_as_it_is(content in content(), value in "[a-z ]{0,4}") {
            let (one, two) = (block(&[("A", &value), ("B", "2")]), block(&[("C", "3")]));
            let Ok(edited) = one.put_into(&content) else { return Ok(()) };
            prop_assert_eq!(&one.put_into(&edited).unwrap(), &edited);
            let place = find(&edited).unwrap().unwrap();
            let rest = |content: &[u8], place: &Range<usize>| {
                [&content[..place.start], &content[place.end..]].concat()
            };
            match find(&content).unwrap() {
                Some(before) => prop_assert_eq!(rest(&edited, &place), rest(&content, &before)),
                None => {
                    prop_assert!(edited.starts_with(&content));
                    let added = &edited[content.len()..place.start];
                    prop_assert!(added.is_empty() || !content.ends_with(b"\n") && matches!(added, b"\n" | b"\r\n"));
                }
            }
            // There and back again.
            prop_assert_eq!(one.put_into(&two.put_into(&edited).unwrap()).unwrap(), edited);
        }
    }
}
