//! The Compose override of a worktree: where it is, and what both programs have to read alike.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The override's file name, in the worktree's git dir.
pub const FILE_NAME: &str = "wtd.compose.yaml";

/// The largest override, in bytes.
pub const MAX_BYTES: usize = 1024 * 1024;

/// The most Compose files that an override can go with.
pub const MAX_FILES: usize = 64;

/// The most files that Compose read beside those, and the length of their paths together.
pub const MAX_FURTHER_FILES: usize = 256;
/// See [`MAX_FURTHER_FILES`].
pub const MAX_FURTHER_BYTES: usize = 64 * 1024;

/// The length of a [`digest`].
pub const DIGEST_LENGTH: usize = 44;

/// The separator in `COMPOSE_FILE` where `COMPOSE_PATH_SEPARATOR` is not set (Docker's manual, "Set or change
/// pre-defined environment variables in Docker Compose"), on every system but Windows.
pub const SEPARATOR: char = ':';

/// Whether a value of `COMPOSE_FILE` is one that wtd sets: no file but an override of wtd's has that name.
pub fn is_ours(compose_file: &str, separator: char) -> bool {
    compose_file
        .split(separator)
        .any(|file| Path::new(file).file_name().is_some_and(|name| name == FILE_NAME))
}

/// A digest of the content of files, in base64: SHA-256 of each one's length and bytes, in order.
pub fn digest<B: AsRef<[u8]>>(contents: impl IntoIterator<Item = B>) -> String {
    let mut digest = Sha256::new();
    for content in contents {
        let content = content.as_ref();
        digest.update((content.len() as u64).to_le_bytes());
        digest.update(content);
    }
    STANDARD.encode(digest.finalize())
}

/// Ports as ranges, ascending: `8080`, or `10000-10100` where they follow one another, as Compose writes them.
pub fn ranges(ports: &BTreeSet<u16>) -> Vec<String> {
    let mut ranges: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match ranges.last_mut() {
            Some((_, last)) if last.checked_add(1) == Some(*port) => *last = *port,
            _ => ranges.push((*port, *port)),
        }
    }
    let text = |(first, last): &(u16, u16)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.iter().map(text).collect()
}

/// The ports of a range as [`ranges`] writes them; none when it is no range of ports.
pub fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = (port(first)?, port(last)?);
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_follow_one_another_are_a_range() {
        let ports = BTreeSet::from([80, 81, 82, 443, 65534, 65535]);
        let text = ranges(&ports);
        assert_eq!(text, ["80-82", "443", "65534-65535"]);
        assert_eq!(text.iter().flat_map(|text| range(text).unwrap()).collect::<BTreeSet<_>>(), ports);
        for bad in ["", "-", "0", "1-", "82-80", "65536", "a", "1-2-3"] {
            assert_eq!(range(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn only_a_value_with_an_override_in_it_is_wtds() {
        assert!(is_ours("/w/compose.yaml:/w/.git/worktrees/x/wtd.compose.yaml", ':'));
        assert!(is_ours("/w/a;/g/wtd.compose.yaml", ';'));
        assert!(!is_ours("compose.yaml:compose.override.yaml", ':'));
        assert!(!is_ours("", ':'));
    }

    #[test]
    fn a_digest_tells_files_apart_however_they_are_cut() {
        assert_ne!(digest(["ab", "c"]), digest(["a", "bc"]));
        assert_eq!(digest(["ab"]), digest([b"ab"]));
        assert_eq!(digest::<&str>([]).len(), DIGEST_LENGTH);
    }
}
