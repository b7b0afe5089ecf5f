//! What a person has trusted: contents of `wtd.toml`, each for one repository.
//!
//! Numbers and names need no trust, since nothing can run by them. What else a repository declares (templates, files)
//! does nothing until a person has seen it. Trust goes to the content and not to a path or a branch: another worktree
//! with the same bytes needs no second word, and one byte more is another content.

use std::fmt;
use std::str::FromStr;

use imbl::{OrdMap, OrdSet};
use sha2::{Digest as _, Sha256};

use super::identity::RepositoryId;
use super::project::Project;

/// The SHA-256 of a file's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ContentHash(pub [u8; 32]);

impl ContentHash {
    /// The hash of these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        Self(Sha256::digest(bytes).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Not 64 hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is written in 64 hexadecimal digits")]
pub struct NotAHash;

impl FromStr for ContentHash {
    type Err = NotAHash;

    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let digit = |digit: &u8| char::from(*digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let byte = |pair: &[u8]| match pair {
            [high, low] => Some(digit(high)? << 4 | digit(low)?),
            _ => None,
        };
        let bytes: Option<Vec<u8>> = text.as_bytes().chunks(2).map(byte).collect();
        bytes.and_then(|bytes| bytes.try_into().ok()).map(Self).ok_or(NotAHash)
    }
}

/// The contents that are trusted, by repository. Cloning costs nothing much.
#[derive(Debug, Clone, Default)]
pub struct Trusted(OrdMap<RepositoryId, OrdSet<ContentHash>>);

impl Trusted {
    /// Whether what `project` declares beyond numbers and names may have its effect in this repository: the one
    /// question that everything which needs trust has to ask.
    pub fn allows(&self, repository: RepositoryId, project: &Project) -> bool {
        project.content.is_some_and(|content| self.holds(repository, content))
    }

    /// Whether this content is trusted.
    pub fn holds(&self, repository: RepositoryId, content: ContentHash) -> bool {
        self.0.get(&repository).is_some_and(|contents| contents.contains(&content))
    }

    /// How many contents of a repository are trusted.
    pub fn count(&self, repository: RepositoryId) -> usize {
        self.0.get(&repository).map_or(0, OrdSet::len)
    }

    /// Trusts a content.
    pub fn insert(&mut self, repository: RepositoryId, content: ContentHash) {
        self.0.entry(repository).or_default().insert(content);
    }

    /// Trusts nothing of a repository any more.
    pub fn revoke(&mut self, repository: RepositoryId) {
        self.0.remove(&repository);
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn only_the_very_content_of_the_very_repository_is_trusted() {
        let [one, other] = [1, 2].map(|id| RepositoryId(Uuid::from_u128(id)));
        let content = |bytes: &[u8]| Some(ContentHash::of(bytes));
        let project = |content| Project { content, ..Project::named("app") };
        let mut trusted = Trusted::default();
        assert!(!trusted.allows(one, &project(content(b"a"))));
        trusted.insert(one, ContentHash::of(b"a"));
        assert!(trusted.allows(one, &project(content(b"a"))));
        assert!(!trusted.allows(one, &project(content(b"a "))));
        assert!(!trusted.allows(one, &project(None)), "what declares nothing of the kind has nothing to do");
        assert!(!trusted.allows(other, &project(content(b"a"))));
        trusted.revoke(one);
        assert!(!trusted.allows(one, &project(content(b"a"))));
    }

    #[test]
    fn a_hash_is_written_as_sha256sum_writes_it() {
        let text = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(ContentHash::of(b"").to_string(), text);
        assert_eq!(text.parse(), Ok(ContentHash::of(b"")));
        assert_eq!(text.to_uppercase().parse(), Ok(ContentHash::of(b"")));
        for bad in ["", "e3", &text[1..], &format!("{text}00"), &text.replace('e', "g"), &"+1".repeat(32)] {
            assert_eq!(bad.parse::<ContentHash>(), Err(NotAHash), "{bad}");
        }
    }
}
