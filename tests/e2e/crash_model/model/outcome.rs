//! What a step comes to.

use std::collections::{BTreeMap, BTreeSet};

use super::super::step::{PLACES, Place, REPOSITORIES, Repo, Step, Worktree};
use super::{Ended, Expectation, Expected, Incarnation, Life, Model, Repository, Tree};

impl Model {
    /// The model after a step.
    pub(in crate::crash_model) fn apply(mut self, step: &Step) -> Self {
        match *step {
            Step::Clone(repo, home) => {
                let main = self.next();
                let repository = &mut self.repositories[repo];
                repository.home = Some(home);
                repository.main = main;
                repository.is_steady = false;
            }
            Step::MoveRepository(repo) => {
                let repository = &mut self.repositories[repo];
                repository.home = repository.home.map(|home| 1 - home);
                repository.is_steady = false;
            }
            Step::Destroy(repo) => self.destroy(repo),
            Step::Add(repo, place) => self.add(repo, place),
            Step::Remove(repo, place) => {
                self.end(repo, |tree| tree.listed == Some(place));
            }
            Step::Prune(repo) => {
                let repository = &self.repositories[repo];
                let gone: BTreeSet<Place> =
                    (0..PLACES).filter(|place| !repository.is_occupied(*place)).collect();
                self.end(repo, |tree| !tree.locked && tree.listed.is_some_and(|place| gone.contains(&place)));
            }
            Step::Move(repo, from, to) => self.tree(repo, from, |tree| {
                tree.listed = Some(to);
                tree.directory = Some(to);
                tree.is_seen = false;
            }),
            Step::Rename(repo, from, to) => self.tree(repo, from, |tree| tree.directory = Some(to)),
            Step::Repair(repo) => {
                let Repository { home, trees, .. } = &mut self.repositories[repo];
                for tree in trees.iter_mut().filter(|tree| tree.directory.is_some() && tree.listed.is_some())
                {
                    tree.is_seen &= tree.listed == tree.directory;
                    tree.listed = tree.directory;
                    tree.named_home = home.unwrap_or_default();
                }
            }
            Step::Lock(repo, place) => self.listed(repo, place, |tree| tree.locked = true),
            Step::Unlock(repo, place) => self.listed(repo, place, |tree| tree.locked = false),
            Step::Delete(repo, place) => {
                // Of one that git lists no more nothing is left now.
                self.end(repo, |tree| tree.listed.is_none() && tree.directory == Some(place));
                self.repositories[repo].litter.remove(&place);
                self.tree(repo, place, |tree| tree.directory = None);
            }
            Step::Unlist(repo, place) => self.tree(repo, place, |tree| {
                tree.listed = None;
                tree.locked = false;
            }),
            Step::Ask(repo, worktree) => {
                self.ask(repo, worktree);
                self.allocated.extend(self.whole(repo, worktree));
            }
            Step::Client(repo, worktree) if self.life == Life::Up => self.ask(repo, worktree),
            Step::Reassign(repo, worktree) => self.reassign(repo, worktree),
            Step::Forget(repo) => self.forget(repo),
            Step::Kill(_) | Step::Terminate => self.life = Life::Down,
            Step::Start | Step::Resume => self.life = Life::Up,
            Step::Halt => self.life = Life::Halted,
            Step::Settle => {
                (0..REPOSITORIES).for_each(|repo| self.see(repo));
                let is_active = |one: &Expected| one.state == Expectation::Active;
                let active = self.expected().into_iter().filter(is_active);
                self.allocated.extend(active.map(|expected| expected.incarnation).collect::<Vec<_>>());
            }
            Step::Configure(..)
            | Step::Switch(..)
            | Step::Client(..)
            | Step::Overflow(_)
            | Step::Clock(_) => {}
        }
        for repository in &mut self.repositories {
            let is_there = repository.is_there();
            repository.ended.iter_mut().for_each(|one| one.was_provable |= is_there);
        }
        self
    }

    /// Whoever asks about a worktree that the registry has where it is gets an answer without another look: of the
    /// others that says nothing.
    fn ask(&mut self, repo: Repo, worktree: Worktree) {
        let repository = &mut self.repositories[repo];
        repository.known = repository.home;
        match worktree {
            Worktree::Main => repository.is_steady = true,
            Worktree::At(place) => self.tree(repo, place, |tree| tree.is_seen = true),
        }
    }

    /// The registry has looked at the repository: what git removed is removed.
    fn see(&mut self, repo: Repo) {
        let repository = &mut self.repositories[repo];
        repository.is_steady = true;
        if let Some(home) = repository.home.filter(|_| repository.is_there()) {
            repository.awaited.remove(&home);
            repository.trees.iter_mut().for_each(|tree| tree.is_seen |= tree.is_whole(Some(home)));
            let places: BTreeSet<Place> =
                (0..PLACES).filter(|place| repository.is_in_doubt(*place)).collect();
            let is_proven =
                |one: &mut Ended| !matches!(one.worktree, Worktree::At(place) if places.contains(&place));
            let proven = repository.ended.extract_if(.., is_proven);
            self.gone.extend(proven.map(|one| one.incarnation));
        }
    }

    /// Ends the trees that are picked out: git has removed them, and what is left of them on disk is litter.
    fn end(&mut self, repo: Repo, picked: impl Fn(&Tree) -> bool) {
        let repository = &mut self.repositories[repo];
        let is_removed = |tree: &mut Tree| picked(tree);
        let was_provable = repository.is_there();
        for tree in repository.trees.extract_if(.., is_removed) {
            let (incarnation, worktree) = (tree.incarnation, tree.worktree());
            if repository.known.is_some() {
                repository.ended.push(Ended { incarnation, worktree, was_provable });
            }
            // `git worktree remove` takes the directory along where it is listed.
            let left = tree.directory.filter(|place| tree.listed != Some(*place));
            repository.litter.extend(left);
        }
    }

    fn tree(&mut self, repo: Repo, place: Place, change: impl Fn(&mut Tree)) {
        let trees = &mut self.repositories[repo].trees;
        trees.iter_mut().filter(|tree| tree.directory == Some(place)).for_each(change);
    }

    fn listed(&mut self, repo: Repo, place: Place, change: impl Fn(&mut Tree)) {
        let trees = &mut self.repositories[repo].trees;
        trees.iter_mut().filter(|tree| tree.listed == Some(place)).for_each(change);
    }

    fn add(&mut self, repo: Repo, place: Place) {
        // With `--force` git deletes the entry of the one that was there.
        self.end(repo, |tree| tree.listed == Some(place));
        let incarnation = self.next();
        let repository = &mut self.repositories[repo];
        repository.trees.push(Tree {
            incarnation,
            listed: Some(place),
            directory: Some(place),
            locked: false,
            named_home: repository.home.unwrap_or_default(),
            is_seen: false,
        });
    }

    fn destroy(&mut self, repo: Repo) {
        let repository = &mut self.repositories[repo];
        repository.home = None;
        repository.is_steady = false;
        repository.litter.clear();
        repository.awaited.extend(repository.known);
        let trees = std::mem::take(&mut repository.trees);
        if repository.known.is_some() {
            let lost = |incarnation, worktree| Ended { incarnation, worktree, was_provable: false };
            repository.lost.push(lost(repository.main, Worktree::Main));
            repository.lost.extend(trees.iter().map(|tree| lost(tree.incarnation, tree.worktree())));
        }
        let ended = std::mem::take(&mut repository.ended);
        repository.lost.extend(ended);
    }

    fn reassign(&mut self, repo: Repo, worktree: Worktree) {
        self.gone.extend(self.whole(repo, worktree));
        let successor = self.next();
        self.ask(repo, worktree);
        let repository = &mut self.repositories[repo];
        match worktree {
            Worktree::Main => repository.main = successor,
            Worktree::At(place) => self.tree(repo, place, |tree| tree.incarnation = successor),
        }
        self.allocated.insert(successor);
    }

    /// All of its worktrees are given up, and begin anew when the repository is asked about again.
    fn forget(&mut self, repo: Repo) {
        let mut fresh: BTreeMap<Incarnation, Incarnation> = BTreeMap::new();
        let all: Vec<Incarnation> = {
            let repository = &self.repositories[repo];
            repository.trees.iter().map(|tree| tree.incarnation).chain([repository.main]).collect()
        };
        for incarnation in all {
            self.gone.insert(incarnation);
            let successor = self.next();
            fresh.insert(incarnation, successor);
        }
        let repository = &mut self.repositories[repo];
        self.gone.extend(repository.ended.drain(..).map(|one| one.incarnation));
        repository.known = None;
        repository.main = fresh[&repository.main];
        for tree in &mut repository.trees {
            tree.incarnation = fresh[&tree.incarnation];
        }
        // Nobody knows of those without an entry any more.
        let unlisted = repository.trees.extract_if(.., |tree| tree.listed.is_none());
        repository.litter.extend(unlisted.filter_map(|tree| tree.directory));
    }
}
