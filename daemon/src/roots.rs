//! Repositories below configured directories: found at start, and when new clones appear.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tracing::{debug, warn};

use crate::git::discover::discover;
use crate::reconciler::{Reconciler, RootsListener};
use crate::watch::Role;

/// How many levels below a root are searched.
const DEPTH: usize = 4;

/// How many directories below a root are searched at most.
const DIRECTORIES: usize = 20_000;

/// How long a clone that is being made is given before the next look at it, and how many looks it gets: a clone's
/// last file can be minutes away, and any event below the root begins anew.
const UNFINISHED: Duration = Duration::from_millis(250);
const UNFINISHED_LOOKS: usize = 240;

/// The configured roots.
#[derive(Debug)]
pub struct Roots {
    state: Mutex<State>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct State {
    configured: HashSet<PathBuf>,
    /// Those to be searched.
    changed: HashSet<PathBuf>,
    /// Those that were configured and are not any more, and may still be watched.
    dropped: HashSet<PathBuf>,
}

impl RootsListener for Roots {
    fn changed(&self, root: &Path) -> bool {
        let mut state = self.state.lock();
        if state.configured.contains(root) {
            state.changed.insert(root.to_owned());
            self.wake.notify_one();
            return true;
        }
        state.dropped.contains(root)
    }

    fn all_changed(&self) {
        let mut state = self.state.lock();
        let configured = state.configured.clone();
        state.changed.extend(configured);
        self.wake.notify_one();
    }
}

/// What a search below a root found.
#[derive(Debug, Default)]
struct Found {
    repositories: Vec<(PathBuf, Option<PathBuf>)>,
    /// Directories that are no repositories; a clone can appear in each.
    directories: BTreeSet<PathBuf>,
    /// Something has a `.git` that is no repository yet.
    unfinished: bool,
}

impl Roots {
    /// The roots of the configuration, all to be searched.
    pub fn new(roots: &[PathBuf]) -> Self {
        let this = Self { state: Mutex::default(), wake: Notify::new() };
        this.configure(roots);
        this
    }

    /// Puts these in the place of the roots of before; new ones are searched. What was found below a root that is none
    /// any more stays known.
    pub fn configure(&self, roots: &[PathBuf]) {
        let configured: HashSet<PathBuf> =
            roots.iter().map(|root| root.canonicalize().unwrap_or_else(|_| root.clone())).collect();
        let mut state = self.state.lock();
        let new: Vec<PathBuf> = configured.difference(&state.configured).cloned().collect();
        let dropped: Vec<PathBuf> = state.configured.difference(&configured).cloned().collect();
        state.changed.retain(|root| configured.contains(root));
        state.dropped.retain(|root| !configured.contains(root));
        state.changed.extend(new);
        state.dropped.extend(dropped);
        state.configured = configured;
        self.wake.notify_one();
    }

    /// Searches roots as they change, until the future is dropped.
    pub async fn run(&self, reconciler: &Reconciler) {
        let mut looks = UNFINISHED_LOOKS;
        loop {
            let (changed, dropped) = {
                let mut state = self.state.lock();
                (std::mem::take(&mut state.changed), state.dropped.clone())
            };
            for root in dropped {
                if let Some(watches) = reconciler.watches() {
                    watches.remove(&root);
                }
                self.state.lock().dropped.remove(&root);
            }
            let mut unfinished = HashSet::new();
            for root in changed {
                if self.search(&root, reconciler).await {
                    unfinished.insert(root);
                }
            }
            if unfinished.is_empty() || looks == 0 {
                looks = UNFINISHED_LOOKS;
                self.wake.notified().await;
            } else {
                looks -= 1;
                tokio::time::sleep(UNFINISHED).await;
                let mut state = self.state.lock();
                let still = unfinished.into_iter().filter(|root| state.configured.contains(root));
                let still: Vec<PathBuf> = still.collect();
                state.changed.extend(still);
            }
        }
    }

    /// Searches one root; true when something below it is being made.
    async fn search(&self, root: &Path, reconciler: &Reconciler) -> bool {
        let (at, handle) = (root.to_owned(), reconciler.clone());
        let search = move || {
            // Watched first, then read; until reading shows nothing more to watch.
            let mut found = find(&at);
            for _ in 0..3 {
                let wanted = found.directories.iter().map(|dir| (dir.clone(), Role::Roots)).collect();
                if !handle.watches().is_some_and(|watches| watches.set(&at, wanted).added) {
                    break;
                }
                found = find(&at);
            }
            found
        };
        let found = match tokio::task::spawn_blocking(search).await {
            Ok(found) => found,
            Err(error) => {
                warn!(root = %root.display(), error = &error as &dyn std::error::Error, "root not searched");
                return false;
            }
        };
        debug!(root = %root.display(), repositories = found.repositories.len(), "root searched");
        for (common_dir, main_root) in found.repositories {
            if let Err(error) = reconciler.learn(&common_dir, main_root).await {
                warn!(repository = %common_dir.display(), error = &error as &dyn std::error::Error, "repository not learned");
            }
        }
        found.unfinished
    }
}

fn find(root: &Path) -> Found {
    let mut found = Found::default();
    let mut to_search = vec![(root.to_owned(), 0)];
    while let Some((directory, depth)) = to_search.pop() {
        if found.directories.len() >= DIRECTORIES {
            warn!(root = %root.display(), "more than {DIRECTORIES} directories below this root, the rest is not searched");
            break;
        }
        match repository_at(&directory) {
            At::Repository(common_dir, main_root) => {
                found.repositories.push((common_dir, main_root));
                continue;
            }
            At::Unfinished => found.unfinished = true,
            At::Nothing => {}
        }
        if depth < DEPTH
            && let Ok(entries) = directory.read_dir()
        {
            let below = entries.flatten().filter(|entry| {
                let hidden = entry.file_name().as_encoded_bytes().starts_with(b".");
                !hidden && entry.file_type().is_ok_and(|kind| kind.is_dir())
            });
            to_search.extend(below.map(|entry| (entry.path(), depth + 1)));
        }
        found.directories.insert(directory);
    }
    found
}

enum At {
    Repository(PathBuf, Option<PathBuf>),
    Unfinished,
    Nothing,
}

fn repository_at(directory: &Path) -> At {
    let has_dot_git = directory.join(".git").symlink_metadata().is_ok();
    let may_be_bare = !has_dot_git && directory.join("HEAD").exists() && directory.join("objects").exists();
    if !has_dot_git && !may_be_bare {
        return At::Nothing;
    }
    match discover(directory) {
        // A repository above is none of this directory's.
        Ok(found) if found.root.as_deref().is_none_or(|root| root == directory) => {
            let main_root = found.root.filter(|_| found.linked_id.is_none());
            At::Repository(found.common_dir, main_root)
        }
        Ok(_) | Err(_) if has_dot_git => At::Unfinished,
        Ok(_) | Err(_) => At::Nothing,
    }
}
