//! What a person has trusted: contents of `wtd.toml`, each for one repository.
//!
//! Numbers and names need no trust, since nothing can run by them. What else a repository declares (templates, files)
//! does nothing until a person has seen it. Trust goes to the content and not to a path or a branch: another worktree
//! with the same bytes needs no second word, and one byte more is another content.

use imbl::{OrdMap, OrdSet};

use super::content_hash::ContentHash;
use super::identity::RepositoryId;
use super::project::Project;

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
}
