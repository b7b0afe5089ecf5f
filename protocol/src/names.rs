//! Names that both programs make: of projects, and of what is a worktree's own on a container engine.
//!
//! Two worktrees never have the same offset, and every name made here for a worktree ends in its offset: so no two
//! worktrees have the same name, whatever their projects are called.

use sha2::{Digest, Sha256};

/// The longest project name, in bytes: that of a directory (`NAME_MAX`, limits.h(0P)).
pub const MAX_PROJECT_BYTES: usize = 255;

/// The longest volume name, in bytes.
pub const MAX_VOLUME_BYTES: usize = 63;

/// Whether a text can be the name of a volume: `[a-z0-9][a-z0-9_.-]{1,62}` without `..`. The alphabet is narrower
/// than Docker's, whose client libraries put names into a URL's path as they are.
pub fn is_volume_name(text: &str) -> bool {
    let in_alphabet = text.starts_with(is_lower_alphanumeric)
        && text.chars().all(|c| is_lower_alphanumeric(c) || matches!(c, '_' | '.' | '-'));
    in_alphabet && (2..=MAX_VOLUME_BYTES).contains(&text.len()) && !text.contains("..")
}

/// `<stem>_<offset>`: a volume of a worktree. A stem that would make it too long, or no volume name, is cut, and a
/// digest of the whole stem put behind what is left.
pub fn volume_name(stem: &str, offset: u16) -> String {
    let suffix = format!("_{offset}");
    let name = format!("{stem}{suffix}");
    if is_volume_name(&name) { name } else { cut(stem, '_', &suffix, MAX_VOLUME_BYTES) }
}

/// A project's name from a configured name or a directory's: lower case, other characters turned into `-`,
/// and leading ones that Compose doesn't take dropped; `project` when nothing is left.
pub fn project_name(configured_or_directory: &str) -> String {
    let name: String = configured_or_directory
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if is_lower_alphanumeric(c) || c == '_' { c } else { '-' })
        .skip_while(|c| !is_lower_alphanumeric(*c))
        .take(MAX_PROJECT_BYTES)
        .collect();
    if name.is_empty() { "project".to_owned() } else { name }
}

/// As much of the stem as fits, a digest of all of it, and the suffix. The digest keeps two stems apart that
/// are the same up to the cut.
pub fn cut(stem: &str, separator: char, suffix: &str, max_bytes: usize) -> String {
    let first_64_bits =
        Sha256::digest(stem).iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    let digest = format!("{first_64_bits:016x}");
    let room = max_bytes.saturating_sub(digest.len() + separator.len_utf8() + suffix.len());
    let kept: String = project_name(stem).chars().take(room).collect();
    format!("{kept}{separator}{digest}{suffix}")
}

/// Whether a character is of `[a-z0-9]`.
pub fn is_lower_alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}
