//! Which steps are possible: what git, the disk and the daemon can do, with one outcome only.

use super::super::step::{PLACES, REPOSITORIES, Repo, Step, Worktree};
use super::{Life, Model, Tree};

impl Model {
    /// Every step that is possible now, and how often it is to be taken.
    pub(in crate::crash_model) fn possible(&self) -> Vec<(u32, Step)> {
        let mut steps = vec![(120, Step::Settle), (6, Step::Terminate), (60, Step::Start), (10, Step::Halt)];
        steps.push((60, Step::Resume));
        steps.extend([0, 1, 2, 4, 7].map(|delay| (7, Step::Kill(delay))));
        steps.extend([-86_400 * 3650, -3600, 3600, 86_400 * 3650].map(|seconds| (8, Step::Clock(seconds))));
        for repo in 0..REPOSITORIES {
            steps.extend([0, 1].map(|home| (60, Step::Clone(repo, home))));
            steps.extend([(4, Step::MoveRepository(repo)), (2, Step::Destroy(repo))]);
            steps.extend([(10, Step::Prune(repo)), (12, Step::Repair(repo)), (2, Step::Forget(repo))]);
            steps.extend((0..4).map(|project| (1, Step::Configure(repo, project))));
            steps.push((1, Step::Overflow(repo)));
            let places = (0..PLACES).map(Worktree::At);
            for worktree in places.chain([Worktree::Main]) {
                steps.extend([
                    (8, Step::Ask(repo, worktree)),
                    (2, Step::Client(repo, worktree)),
                    (1, Step::Reassign(repo, worktree)),
                    (2, Step::Switch(repo, worktree)),
                ]);
            }
            for place in 0..PLACES {
                steps.extend([
                    (24, Step::Add(repo, place)),
                    (8, Step::Remove(repo, place)),
                    (3, Step::Lock(repo, place)),
                    (6, Step::Unlock(repo, place)),
                    (4, Step::Delete(repo, place)),
                    (1, Step::Unlist(repo, place)),
                ]);
                for to in (0..PLACES).filter(|to| *to != place) {
                    steps.extend([(3, Step::Move(repo, place, to)), (1, Step::Rename(repo, place, to))]);
                }
            }
        }
        steps.retain(|(_, step)| self.is_possible(step));
        steps
    }

    /// Whether git, the disk and the daemon can take this step, with the outcome that [`Model::apply`] says.
    pub(in crate::crash_model) fn is_possible(&self, step: &Step) -> bool {
        let repository = |repo: Repo| &self.repositories[repo];
        let tree = |repo: Repo, place| repository(repo).whole_tree(place);
        match *step {
            // A repository that comes to another path than the one before is a step of its own.
            Step::Clone(repo, home) => {
                repository(repo).home.is_none()
                    && repository(repo).known.is_none_or(|known| known == home)
                    && repository(repo).is_expected_at(home)
            }
            // git would have to be told of two moves at once. Where the registry still waits for another one it may notice
            // this one by itself, or not in time.
            Step::MoveRepository(repo) => {
                repository(repo).home.is_some_and(|home| repository(repo).is_expected_at(1 - home))
                    && repository(repo).trees.iter().all(|tree| {
                        tree.directory.is_none() || tree.listed.is_none() || tree.directory == tree.listed
                    })
            }
            Step::Destroy(repo) | Step::Configure(repo, _) | Step::Prune(repo) => {
                repository(repo).home.is_some()
            }
            Step::Repair(repo) => {
                let home = repository(repo).home;
                repository(repo)
                    .trees
                    .iter()
                    .any(|tree| tree.directory.is_some() && tree.listed.is_some() && !tree.is_whole(home))
            }
            Step::Add(repo, place) => {
                let repository = repository(repo);
                let replaceable = |tree: &Tree| tree.directory.is_none() && !tree.locked;
                repository.home.is_some()
                    && !repository.is_occupied(place)
                    && repository.listed_at(place).is_none_or(replaceable)
            }
            Step::Remove(repo, place) => {
                let repository = repository(repo);
                let is_absent = || {
                    repository.listed_at(place).is_some_and(|tree| tree.directory.is_none())
                        && !repository.is_occupied(place)
                };
                repository.home.is_some() && (repository.whole_tree(place).is_some() || is_absent())
            }
            Step::Move(repo, from, to) | Step::Rename(repo, from, to) => {
                tree(repo, from).is_some() && repository(repo).is_free(to)
            }
            Step::Lock(repo, place) => tree(repo, place).is_some_and(|tree| !tree.locked),
            Step::Unlock(repo, place) => {
                repository(repo).home.is_some()
                    && repository(repo).listed_at(place).is_some_and(|tree| tree.locked)
            }
            Step::Switch(repo, worktree) => repository(repo).whole(worktree).is_some(),
            Step::Delete(repo, place) => repository(repo).is_occupied(place),
            // Of one that was moved since, nothing tells where it is.
            Step::Unlist(repo, place) => tree(repo, place).is_some_and(|tree| tree.is_seen),
            Step::Ask(repo, worktree) | Step::Reassign(repo, worktree) => {
                self.life == Life::Up && repository(repo).whole(worktree).is_some()
            }
            // One that stands still answers later, and may learn a repository then.
            Step::Client(repo, worktree) => {
                let repository = repository(repo);
                repository.whole(worktree).is_some()
                    && (self.life != Life::Halted || repository.known == repository.home)
            }
            Step::Forget(repo) => {
                let repository = repository(repo);
                self.life == Life::Up && repository.is_steady && repository.is_there()
            }
            Step::Kill(_) => self.life != Life::Down,
            Step::Terminate | Step::Halt | Step::Settle => self.life == Life::Up,
            Step::Start => self.life == Life::Down,
            Step::Resume => self.life == Life::Halted,
            Step::Overflow(repo) => self.life == Life::Halted && repository(repo).is_there(),
            Step::Clock(_) => self.has_clock,
        }
    }
}
