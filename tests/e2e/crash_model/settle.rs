//! Everything at rest: the registry, as it came to be by itself, is what the model says, what git says, and what the
//! allocation files say.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::model::{Expectation, Expected, Model};
use super::step::{Home, Repo, Worktree};
use super::world::{Allocation, World, git_dir};
use crate::harness::{self, Repo as GitRepository, Rows};

/// How often files are looked at, of which no event tells.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

impl World<'_> {
    /// Waits until the registry has what the model says, then compares it with everything else that tells.
    pub(super) fn settle(&mut self, model: &Model) -> Result<(), String> {
        let end = Instant::now() + self.patience;
        self.mirror.catch_up();
        // What is missing may still become stale, so the list can be ahead of what was told.
        while let Err(why) = self.agrees(model).and_then(|()| self.compare_with_list()) {
            if Instant::now() >= end {
                return Err(format!("{why}\nThe registry, by its events: {:#?}", self.mirror.rows));
            }
            self.mirror.wait(end.min(Instant::now() + LOOK_AGAIN));
        }
        for (repo, repository) in model.repositories.iter().enumerate() {
            if let Some(home) = repository.home.filter(|home| repository.known == Some(*home)) {
                self.compare_with_git(model, repo, home)?;
            }
        }
        self.compare_with_files(model)
    }

    fn path_of(&self, model: &Model, expected: &Expected) -> PathBuf {
        let home = model.repositories[expected.repo].home.unwrap_or_default();
        self.path(expected.repo, home, expected.worktree)
    }

    /// Whether what events told is what the model says.
    fn agrees(&mut self, model: &Model) -> Result<(), String> {
        let expected = model.expected();
        let mut claimed = BTreeSet::new();
        // How many incarnations of a repository may have an allocation that nobody was told of.
        let mut untold: BTreeMap<Repo, usize> = BTreeMap::new();
        for one in &expected {
            match self.given.get(&one.incarnation) {
                Some(given) => {
                    self.has(model, one, given)?;
                    claimed.insert(given.id.clone());
                }
                None if one.state == Expectation::Active => {
                    let found = self.find(&self.path_of(model, one), one.worktree)?;
                    claimed.insert(found.id.clone());
                    self.give(one.incarnation, found)?;
                }
                None if model.allocated.contains(&one.incarnation) => {
                    return Err(format!("{one:?} was never seen"));
                }
                None => *untold.entry(one.repo).or_default() += 1,
            }
        }
        for (id, row) in &self.mirror.rows {
            if row.state == "stale" {
                return Err(format!("nothing is left of {id} {row:?}, and it is not released"));
            }
            if row.is_live() && !claimed.contains(id) {
                let left = self.repo_of(&row.path).and_then(|repo| untold.get_mut(&repo));
                match left.filter(|left| **left > 0 && row.state == "missing") {
                    Some(left) => *left -= 1,
                    None => return Err(format!("nobody has {id} {row:?}")),
                }
            }
        }
        let wronged = self.given.iter().find(|(incarnation, given)| {
            !model.may_have_been_stale(**incarnation) && self.mirror.ever_stale.contains(&given.id)
        });
        wronged.map_or(Ok(()), |(incarnation, given)| {
            Err(format!("{given:?} of incarnation {incarnation} was stale, and nothing has removed it"))
        })
    }

    fn has(&self, model: &Model, expected: &Expected, given: &Allocation) -> Result<(), String> {
        let row = self.mirror.rows.get(&given.id).ok_or_else(|| format!("no event has told of {given:?}"))?;
        if row.offset != given.offset {
            return Err(format!("{given:?} has become {row:?}"));
        }
        let agrees = match expected.state {
            Expectation::Active => row.state == "active" && row.path == self.path_of(model, expected),
            Expectation::Missing => row.state == "missing",
            Expectation::MissingOrGone => row.state != "active",
        };
        if agrees { Ok(()) } else { Err(format!("{expected:?} has {given:?}, which is {row:?}")) }
    }

    /// The active allocation at a path, of which nobody was told yet. Its file tells it from the one of a worktree that
    /// was there before, and whose end may not have been told yet.
    fn find(&self, path: &Path, worktree: Worktree) -> Result<Allocation, String> {
        let none = || format!("{} has no allocation", path.display());
        let file = fs::read(git_dir_of(path, worktree)?.join("wtd.json")).map_err(|_| none())?;
        let id = wtd_protocol::AllocationFile::parse(&file).map_err(|_| none())?.id;
        let row = self.mirror.rows.get(&id).filter(|row| row.state == "active" && row.path == path);
        row.map(|row| Allocation { id, offset: row.offset }).ok_or_else(none)
    }

    /// What is listed is what was told of, and no two have the same.
    fn compare_with_list(&self) -> Result<(), String> {
        let answer = self.running()?.get("/v1/worktrees?state=active,missing,stale");
        let rows = Rows::parse(&String::from_utf8_lossy(&answer.body));
        rows.assert_disjoint();
        let listed: BTreeMap<&str, (PathBuf, u64, &str)> = rows
            .iter()
            .map(|row| (row.id.as_str(), (row.exact_path(), row.offset.into(), row.state.as_str())))
            .collect();
        let told = self.mirror.rows.iter().filter(|(_, row)| row.is_live());
        let told: BTreeMap<&str, (PathBuf, u64, &str)> =
            told.map(|(id, row)| (id.as_str(), (row.path.clone(), row.offset, row.state.as_str()))).collect();
        if listed == told { Ok(()) } else { Err(format!("listed: {listed:#?}\ntold: {told:#?}")) }
    }

    /// The active worktrees of a repository are those that git lists and that are there.
    fn compare_with_git(&self, model: &Model, repo: Repo, home: Home) -> Result<(), String> {
        let root = self.home(repo, home);
        let common_dir = root.join(".git");
        let is_there = |path: &PathBuf| {
            *path == root
                || git_dir(path).is_ok_and(|git_dir| git_dir.starts_with(&common_dir) && git_dir.is_dir())
        };
        let listed: BTreeSet<PathBuf> =
            GitRepository::at(self.sandbox, &root).paths().into_iter().filter(is_there).collect();
        let expected = model.expected();
        let active: BTreeSet<PathBuf> = expected
            .iter()
            .filter(|one| one.repo == repo && one.state == Expectation::Active)
            .map(|one| self.path_of(model, one))
            .collect();
        if listed == active { Ok(()) } else { Err(format!("git: {listed:#?}\nthe model: {active:#?}")) }
    }

    /// Each allocation file says what the registry says, soon after.
    fn compare_with_files(&self, model: &Model) -> Result<(), String> {
        for one in model.expected().iter().filter(|one| one.state == Expectation::Active) {
            let path = self.path_of(model, one);
            let git_dir = git_dir_of(&path, one.worktree)?;
            let given = &self.given[&one.incarnation];
            let read = || fs::read(git_dir.join("wtd.json")).map_err(|error| error.to_string());
            let says_so = |bytes: &Result<Vec<u8>, String>| {
                let file =
                    bytes.as_ref().ok().and_then(|bytes| wtd_protocol::AllocationFile::parse(bytes).ok());
                file.is_some_and(|file| {
                    file.id == given.id
                        && u64::from(file.offset) == given.offset
                        && file
                            .path()
                            .is_some_and(|named| named.as_os_str().as_bytes() == path.as_os_str().as_bytes())
                })
            };
            harness::reaches(read, says_so).map(drop).map_err(|last| {
                format!("the allocation file of {given:?} in {}: {last:?}", git_dir.display())
            })?;
        }
        Ok(())
    }
}

fn git_dir_of(path: &Path, worktree: Worktree) -> Result<PathBuf, String> {
    match worktree {
        Worktree::Main => Ok(path.join(".git")),
        Worktree::At(_) => git_dir(path),
    }
}
