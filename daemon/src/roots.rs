//! Repositories below configured directories: found at start, and when new clones appear.

use std::collections::{BTreeSet, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore};
use tracing::{debug, warn};

use crate::git::discover::discover;
use crate::permit::Permit;
use crate::reconciler::{Reconciler, RootsListener};
use crate::watch::Role;

/// How many levels below a root are searched.
const DEPTH: usize = 4;

/// How many directories below a root are searched at most.
const DIRECTORIES: usize = 20_000;

/// How many roots are searched together.
const AT_ONCE: usize = 4;

/// How long one may take before another is searched besides.
const LONG: Duration = Duration::from_secs(1);

/// How long a clone that is being made is given before the next look at it, and how many looks it gets: a clone's
/// last file can be minutes away, and any event below the root begins anew.
const UNFINISHED: Duration = Duration::from_millis(250);
const UNFINISHED_LOOKS: usize = 240;

/// The configured roots.
#[derive(Debug)]
pub struct Roots {
    state: Mutex<State>,
    wake: Notify,
    permits: Arc<Semaphore>,
}

#[derive(Debug, Default)]
struct State {
    configured: HashSet<PathBuf>,
    /// Those to be searched.
    changed: HashSet<PathBuf>,
    /// Those that are being searched.
    searching: HashSet<PathBuf>,
    /// Those that were configured and are not any more, and may still be watched.
    dropped: HashSet<PathBuf>,
}

impl RootsListener for Roots {
    fn changed(&self, key: &Path) -> bool {
        let Some(root) = root_of(key) else { return false };
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
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        let this = Self { state: Mutex::default(), wake: Notify::new(), permits };
        this.configure(roots);
        this
    }

    /// Puts these in the place of the roots of before; new ones are searched. What was found below a root that is none
    /// any more stays known. Looks at nothing: a root can be on a disk that hangs.
    pub fn configure(&self, roots: &[PathBuf]) {
        let configured: HashSet<PathBuf> = roots.iter().cloned().collect();
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

    /// Searches roots as they change, each by itself, until the future is dropped.
    pub async fn run(&self, reconciler: &Reconciler) {
        let mut searches = FuturesUnordered::new();
        let mut learning = FuturesUnordered::new();
        let mut asked: HashSet<PathBuf> = HashSet::new();
        loop {
            self.leave_dropped(reconciler);
            for root in self.due() {
                searches.push(self.search(root, UNFINISHED_LOOKS, reconciler));
            }
            tokio::select! {
                () = self.wake.notified() => {}
                Some((root, looks, found)) = searches.next() => {
                    // A repository that hangs is not waited for, and not asked for twice.
                    for (common_dir, main_root) in found.repositories {
                        if asked.insert(common_dir.clone()) {
                            learning.push(learn(common_dir, main_root, reconciler));
                        }
                    }
                    if found.unfinished && looks > 0 && self.state.lock().configured.contains(&root) {
                        searches.push(self.search(root, looks - 1, reconciler));
                    } else {
                        self.searched(root);
                    }
                }
                Some(common_dir) = learning.next() => drop(asked.remove(&common_dir)),
            }
        }
    }

    /// The roots to be searched, less those that are being searched: one that hangs costs one thread.
    fn due(&self) -> Vec<PathBuf> {
        let mut state = self.state.lock();
        let due: Vec<PathBuf> = state.changed.difference(&state.searching).cloned().collect();
        state.searching.extend(due.iter().cloned());
        due
    }

    /// Watches nothing for roots that are none any more.
    fn leave_dropped(&self, reconciler: &Reconciler) {
        let dropped = std::mem::take(&mut self.state.lock().dropped);
        for root in dropped {
            if let Some(watches) = reconciler.watches() {
                watches.remove(&key_of(&root));
            }
        }
    }

    /// A search has ended. One of a root that was dropped meanwhile may have set watches again.
    fn searched(&self, root: PathBuf) {
        let mut state = self.state.lock();
        state.searching.remove(&root);
        if !state.configured.contains(&root) {
            state.dropped.insert(root);
        }
    }

    /// Searches one root, after a while where that is not the first of its `looks`.
    async fn search(&self, root: PathBuf, looks: usize, reconciler: &Reconciler) -> (PathBuf, usize, Found) {
        if looks < UNFINISHED_LOOKS {
            tokio::time::sleep(UNFINISHED).await;
        }
        let (at, handle) = (root.clone(), reconciler.clone());
        let search = move || {
            let real = at.canonicalize().unwrap_or_else(|_| at.clone());
            // Watched first, then read; until reading shows nothing more to watch.
            let mut found = find(&real);
            for _ in 0..3 {
                let wanted = found.directories.iter().map(|dir| (dir.clone(), Role::Roots)).collect();
                if !handle.watches().is_some_and(|watches| watches.set(&key_of(&at), wanted).added) {
                    break;
                }
                found = find(&real);
            }
            found
        };
        let Ok(permit) = Arc::clone(&self.permits).acquire_owned().await else {
            return (root, looks, Found::default());
        };
        // What changes from here on may not be seen by this search.
        self.state.lock().changed.remove(&root);
        let found = Permit::new(permit).lend(LONG, tokio::task::spawn_blocking(search)).await;
        let found = found.unwrap_or_else(|error| {
            warn!(root = %root.display(), error = &error as &dyn std::error::Error, "root not searched");
            Found::default()
        });
        debug!(root = %root.display(), repositories = found.repositories.len(), "root searched");
        (root, looks, found)
    }
}

async fn learn(common_dir: PathBuf, main_root: Option<PathBuf>, reconciler: &Reconciler) -> PathBuf {
    if let Err(error) = reconciler.learn(&common_dir, main_root).await {
        warn!(repository = %common_dir.display(), error = &error as &dyn std::error::Error, "repository not learned");
    }
    common_dir
}

/// What a root's watches are set for. The root itself won't do: a bare repository's watches are set for its common dir, which
/// can be a root as well. No common dir has `..` in it.
fn key_of(root: &Path) -> PathBuf {
    root.join("..")
}

/// The root that watches are set for; none when they are set for a repository.
fn root_of(key: &Path) -> Option<&Path> {
    key.parent().filter(|_| key.ends_with(".."))
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
