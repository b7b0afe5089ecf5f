//! The model: what git, the disk and the contract say that the registry has to have.

mod outcome;
mod possible;

use std::collections::BTreeSet;

use super::step::{Home, Place, REPOSITORIES, Repo, Worktree};

/// One life of a worktree: from the moment that git makes it, or that a person has it begin anew, to its end.
pub(super) type Incarnation = u32;

/// A linked worktree.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    pub(super) incarnation: Incarnation,
    /// Where git has it; none when its entry was deleted past git.
    pub(super) listed: Option<Place>,
    /// Where its directory is.
    pub(super) directory: Option<Place>,
    pub(super) locked: bool,
    /// The home of the repository that its `.git` names.
    named_home: Home,
    /// The registry has it where it is.
    is_seen: bool,
}

impl Tree {
    /// Where git has it, or had it.
    fn worktree(&self) -> Worktree {
        Worktree::At(self.listed.or(self.directory).unwrap_or_default())
    }

    /// Whether directory and entry name each other.
    fn is_whole(&self, home: Option<Home>) -> bool {
        self.listed.is_some() && self.listed == self.directory && home == Some(self.named_home)
    }
}

/// What there is no worktree of any more, and may be an allocation.
#[derive(Debug, Clone, Copy)]
struct Ended {
    incarnation: Incarnation,
    worktree: Worktree,
    /// git removed it, and the repository was where the registry looks since.
    was_provable: bool,
}

/// A repository.
#[derive(Debug, Clone, Default)]
pub(super) struct Repository {
    /// Where it is.
    pub(super) home: Option<Home>,
    /// Where the registry has it, if it was asked about.
    pub(super) known: Option<Home>,
    main: Incarnation,
    pub(super) trees: Vec<Tree>,
    /// Directories that were worktrees once, and are none now.
    litter: BTreeSet<Place>,
    /// Worktrees that git has removed, of which it isn't certain that the registry has seen that.
    ended: Vec<Ended>,
    /// Worktrees that went down with their repository: nobody has removed them.
    lost: Vec<Ended>,
    /// The registry has seen the main worktree where it is now.
    is_steady: bool,
    /// Homes at which the registry may still wait for a repository that was destroyed there.
    awaited: BTreeSet<Home>,
}

impl Repository {
    /// Whether it is where the registry looks for it.
    fn is_there(&self) -> bool {
        self.known.is_some() && self.known == self.home
    }

    /// The healthy worktree there, if there is one.
    fn whole(&self, worktree: Worktree) -> Option<Incarnation> {
        self.home?;
        match worktree {
            Worktree::Main => Some(self.main),
            Worktree::At(place) => self.whole_tree(place).map(|tree| tree.incarnation),
        }
    }

    fn whole_tree(&self, place: Place) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.directory == Some(place) && tree.is_whole(self.home))
    }

    fn listed_at(&self, place: Place) -> Option<&Tree> {
        self.trees.iter().find(|tree| tree.listed == Some(place))
    }

    /// Whether nothing is at a place, on disk or by git's word.
    fn is_free(&self, place: Place) -> bool {
        !self.is_occupied(place) && self.listed_at(place).is_none()
    }

    /// Whether a directory is there whose `.git` names what is not there: it may belong to whatever was there before, in a
    /// repository that was moved, so nothing that was recorded there is proven removed.
    fn is_in_doubt(&self, place: Place) -> bool {
        let here = self.trees.iter().filter(|tree| tree.directory == Some(place));
        let mut dangling = here.filter(|tree| tree.listed.is_none() || self.home != Some(tree.named_home));
        self.litter.contains(&place) || dangling.next().is_some()
    }

    /// Whether a repository that comes to `home` is one that the registry looks for there, or none that it waits for.
    fn is_expected_at(&self, home: Home) -> bool {
        self.known == Some(home) || !self.awaited.contains(&home)
    }

    fn is_occupied(&self, place: Place) -> bool {
        self.litter.contains(&place) || self.trees.iter().any(|tree| tree.directory == Some(place))
    }
}

/// What becomes of the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Down,
    Up,
    Halted,
}

/// Everything that can be known without looking.
#[derive(Debug, Clone)]
pub(super) struct Model {
    pub(super) repositories: [Repository; REPOSITORIES],
    pub(super) life: Life,
    /// Whether the daemon's clock can be set.
    has_clock: bool,
    last: Incarnation,
    /// Removed by git and proven so, or given up by a person.
    pub(super) gone: BTreeSet<Incarnation>,
    /// Those that the registry must have an allocation for. It may have one for others that it came upon between two
    /// steps.
    pub(super) allocated: BTreeSet<Incarnation>,
}

/// What the registry has to have for an incarnation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expected {
    pub(super) repo: Repo,
    pub(super) incarnation: Incarnation,
    /// Where, for one that is active: main worktrees at the home, others at their place.
    pub(super) worktree: Worktree,
    pub(super) state: Expectation,
}

/// The state that an allocation has to be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expectation {
    Active,
    Missing,
    /// Missing, or seen to be removed before it could not be looked at any more.
    MissingOrGone,
}

impl Model {
    pub(super) fn new(has_clock: bool) -> Self {
        Self {
            repositories: Default::default(),
            life: Life::Up,
            has_clock,
            last: 0,
            gone: BTreeSet::new(),
            allocated: BTreeSet::new(),
        }
    }

    fn next(&mut self) -> Incarnation {
        self.last += 1;
        self.last
    }

    /// The healthy worktree there.
    pub(super) fn whole(&self, repo: Repo, worktree: Worktree) -> Option<Incarnation> {
        self.repositories[repo].whole(worktree)
    }

    /// What the registry has to have once everything has come to rest.
    pub(super) fn expected(&self) -> Vec<Expected> {
        let mut expected = Vec::new();
        for (repo, repository) in self.repositories.iter().enumerate() {
            let mut expect = |incarnation, worktree, state| {
                expected.push(Expected { repo, incarnation, worktree, state });
            };
            for one in repository.lost.iter().chain(&repository.ended) {
                let provable = Expectation::MissingOrGone;
                let state = if one.was_provable { provable } else { Expectation::Missing };
                expect(one.incarnation, one.worktree, state);
            }
            if repository.known.is_none() {
                continue;
            }
            let state = |is_whole| {
                if repository.is_there() && is_whole { Expectation::Active } else { Expectation::Missing }
            };
            if repository.home.is_some() {
                expect(repository.main, Worktree::Main, state(true));
            }
            for tree in &repository.trees {
                expect(tree.incarnation, tree.worktree(), state(tree.is_whole(repository.home)));
            }
        }
        expected
    }

    /// Whether an allocation may have been stale.
    pub(super) fn may_have_been_stale(&self, incarnation: Incarnation) -> bool {
        let mut ended =
            self.repositories.iter().flat_map(|repository| repository.ended.iter().chain(&repository.lost));
        self.gone.contains(&incarnation)
            || ended.any(|one| one.incarnation == incarnation && one.was_provable)
    }
}
