//! Watching: inotify through `notify`, for hints on which repository to look at again.
//!
//! Nothing here decides anything. An event that concerns a repository marks it dirty; a lost event is made up for by
//! the sweep; and where inotify's limits are reached the repository is polled.

pub mod interest;
pub mod mounts;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::ffi::OsStr;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use notify::{ErrorKind, Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher};
use parking_lot::{Mutex, MutexGuard, RwLock};
use tracing::{debug, warn};

pub use interest::Role;

/// How many watches are set or dropped before others are let in.
const AT_A_TIME: usize = 64;

/// What an event tells the rest of the daemon.
pub trait Listener: Send + Sync + 'static {
    /// Something may have changed in this repository (its common dir), or below this configured root.
    fn dirty(&self, key: &Path);
    /// Events were lost: anything may have changed.
    fn overflowed(&self);
}

/// A limit of inotify that was reached (inotify(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Watches per user.
    #[error("inotify has no watch left; raise it: sysctl fs.inotify.max_user_watches=1048576")]
    Watches,
    /// Instances per user.
    #[error("inotify has no instance left; raise it: sysctl fs.inotify.max_user_instances=1024")]
    Instances,
}

/// The watches of all repositories, on one inotify instance.
pub struct Watches {
    watcher: Mutex<Option<RecommendedWatcher>>,
    index: Arc<RwLock<Index>>,
    limit: Mutex<Option<Limit>>,
}

impl std::fmt::Debug for Watches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watches").field("limit", &self.limit()).finish_non_exhaustive()
    }
}

/// Who wants which directory watched, and why.
#[derive(Debug, Default)]
struct Index {
    /// In order, so that what is below a path can be told.
    by_path: BTreeMap<Arc<Path>, Owners>,
    by_key: HashMap<Arc<Path>, BTreeSet<(Arc<Path>, Role)>>,
    /// Watched paths whose directory may have been replaced since the watch was set.
    suspect: HashSet<Arc<Path>>,
}

/// Who wants one directory watched. Thousands of worktrees can be awaited in one directory, and each event there has to
/// be told from the others at once.
///
/// There are two of these for each worktree, and nearly all have one owner: hence a list, and no more room than it takes.
#[derive(Debug, Default)]
struct Owners {
    /// By the name that is awaited.
    awaiting: BTreeMap<PathBuf, BTreeSet<Arc<Path>>>,
    others: Vec<(Arc<Path>, Role)>,
}

impl Owners {
    fn insert(&mut self, key: &Arc<Path>, role: &Role) {
        match role {
            Role::Awaiting(name) => {
                self.awaiting.entry(name.clone()).or_default().insert(Arc::clone(key));
            }
            other => {
                if !self.others.iter().any(|(owner, role)| owner == key && role == other) {
                    self.others.reserve_exact(1);
                    self.others.push((Arc::clone(key), other.clone()));
                }
            }
        }
    }

    fn remove(&mut self, key: &Path, role: &Role) {
        match role {
            Role::Awaiting(name) => {
                if let Some(keys) = self.awaiting.get_mut(name) {
                    keys.remove(key);
                    if keys.is_empty() {
                        self.awaiting.remove(name);
                    }
                }
            }
            other => self.others.retain(|(owner, role)| **owner != *key || role != other),
        }
    }

    fn is_empty(&self) -> bool {
        self.awaiting.is_empty() && self.others.is_empty()
    }

    fn keys(&self) -> impl Iterator<Item = &Arc<Path>> {
        self.awaiting.values().flatten().chain(self.others.iter().map(|(key, _)| key))
    }

    /// The keys that an event on `child` (none: on the directory itself) concerns.
    fn concerned(&self, child: Option<&OsStr>, kind: EventKind) -> impl Iterator<Item = &Arc<Path>> {
        let others = self.others.iter().filter(move |(_, role)| role.concerns(child, kind));
        let awaited = match child {
            Some(child) => self.awaiting.get_key_value(Path::new(child)).into_iter().collect::<Vec<_>>(),
            None => self.awaiting.iter().collect(),
        };
        let awaiting = awaited
            .into_iter()
            .filter(move |(name, _)| Role::Awaiting((*name).clone()).concerns(child, kind))
            .flat_map(|(_, keys)| keys);
        others.map(|(key, _)| key).chain(awaiting)
    }
}

/// What setting a key's watches came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Set {
    /// A watch was set that was not there before: what was read until now may be out of date already.
    pub added: bool,
    /// Every wanted watch is there.
    pub complete: bool,
}

impl Watches {
    /// Begins to watch nothing. Where inotify has no instance left, everything will be polled.
    pub fn new(listener: Arc<dyn Listener>) -> Self {
        let index: Arc<RwLock<Index>> = Arc::default();
        let for_events = Arc::clone(&index);
        let watcher = notify::recommended_watcher(move |event| on_event(event, &for_events, &*listener));
        let (watcher, limit) = match watcher {
            Ok(watcher) => (Some(watcher), None),
            Err(error) => {
                let limit = Limit::Instances;
                warn!(error = &error as &dyn std::error::Error, remedy = %limit, "can't watch, will poll");
                (None, Some(limit))
            }
        };
        Self { watcher: Mutex::new(watcher), index, limit: Mutex::new(limit) }
    }

    /// The limit that was reached, if one was.
    pub fn limit(&self) -> Option<Limit> {
        *self.limit.lock()
    }

    /// Whether anything is watched for `key`.
    pub fn are_set(&self, key: &Path) -> bool {
        self.index.read().by_key.contains_key(key)
    }

    /// Watches exactly these directories for `key`. Blocks for some 80 µs for each watch that is set.
    pub fn set(&self, key: &Path, wanted: BTreeSet<(PathBuf, Role)>) -> Set {
        let mut set = Set { added: false, complete: true };
        let mut turn = self.watcher.lock();
        let (to_watch, to_drop) = self.index_mut(|index| index.replace(key, wanted));
        let Some(watcher) = turn.as_mut() else { return Set { added: false, complete: false } };
        // In the same turn as the index is changed. A directory that was moved has one watch by two names
        // (inotify_add_watch(2)): dropped by the old name later, it would be gone after the new one had been seen to.
        for path in &to_drop {
            // The watch is gone by itself where its directory is.
            drop(watcher.unwatch(path));
        }
        MutexGuard::unlock_fair(turn);
        // Others wait for the watcher too: one who has thousands of watches to set lets them in between.
        for paths in to_watch.chunks(AT_A_TIME) {
            reach(paths);
            let mut turn = self.watcher.lock();
            let Some(watcher) = turn.as_mut() else { return Set { added: false, complete: false } };
            for path in paths {
                match watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => set.added = true,
                    Err(error) => {
                        // What went away between the read and this has to be read again: nothing tells when it is back.
                        set.added |= is_gone(&error);
                        set.complete &= self.failed(path, &error);
                    }
                }
            }
            MutexGuard::unlock_fair(turn);
        }
        set.complete &= self.watcher.lock().is_some();
        set
    }

    /// A path could not be watched; true when that is as it should be.
    fn failed(&self, path: &Path, error: &notify::Error) -> bool {
        self.index_mut(|index| index.suspect.insert(Arc::from(path)));
        match &error.kind {
            ErrorKind::MaxFilesWatch => {
                self.reached(Limit::Watches);
                false
            }
            // The read that follows will see that.
            _ if is_gone(error) => true,
            _ => {
                debug!(path = %path.display(), error = error as &dyn std::error::Error, "not watched");
                false
            }
        }
    }

    fn is_wanted(&self, path: &Path) -> bool {
        self.index.read().by_path.contains_key(path)
    }

    /// Whether something is watched at `path` or below it.
    pub fn any_below(&self, path: &Path) -> bool {
        self.index.read().at_and_below(path).next().is_some()
    }

    /// All who watch something at `path` or below it.
    pub fn keys_below(&self, path: &Path) -> BTreeSet<Arc<Path>> {
        self.index.read().at_and_below(path).flat_map(|(_, owners)| owners.keys()).cloned().collect()
    }

    /// What is watched at `path` and below it: each directory once, with one of those who want it watched.
    pub fn directories_below(&self, path: &Path) -> HashMap<Arc<Path>, Vec<PathBuf>> {
        let mut all: HashMap<_, Vec<_>> = HashMap::new();
        for (directory, owners) in self.index.read().at_and_below(path) {
            if let Some(key) = owners.keys().next() {
                all.entry(Arc::clone(key)).or_default().push(directory.to_path_buf());
            }
        }
        all
    }

    /// Sets the watches on these directories anew, if somebody still wants them: among events that were lost can be those
    /// that tell of a directory's end, and so of its watch's. Gives the keys that want something watched which is not
    /// there any more. Blocks, as [`Watches::set`] does.
    pub fn renew(&self, paths: &[PathBuf]) -> BTreeSet<Arc<Path>> {
        let mut concerned = BTreeSet::new();
        for paths in paths.chunks(AT_A_TIME) {
            reach(paths);
            let mut turn = self.watcher.lock();
            let Some(watcher) = turn.as_mut() else { return concerned };
            for path in paths.iter().filter(|path| self.is_wanted(path)) {
                if let Err(error) = watcher.watch(path, RecursiveMode::NonRecursive) {
                    self.failed(path, &error);
                    self.index_mut(|index| {
                        let owners = index.by_path.get(path.as_path()).into_iter();
                        concerned.extend(owners.flat_map(Owners::keys).cloned());
                    });
                }
            }
            MutexGuard::unlock_fair(turn);
        }
        concerned
    }

    /// Has the watches of `key` set anew the next time that it says what it wants.
    pub fn distrust(&self, key: &Path) {
        self.index_mut(|index| {
            let wanted = index.by_key.get(key).into_iter().flatten();
            index.suspect.extend(wanted.map(|(path, _)| Arc::clone(path)));
        });
    }

    /// Watches nothing for `key` any more.
    pub fn remove(&self, key: &Path) {
        self.set(key, BTreeSet::new());
    }

    fn reached(&self, limit: Limit) {
        if self.limit.lock().replace(limit).is_none() {
            warn!(remedy = %limit, "inotify's limit is reached, polling what can't be watched");
        }
    }

    fn index_mut<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        change(&mut self.index.write())
    }
}

impl Index {
    /// Notes what `key` wants now. Gives the paths to watch (anew) and those that nobody wants any more.
    fn replace(&mut self, key: &Path, wanted: BTreeSet<(PathBuf, Role)>) -> (Vec<Arc<Path>>, Vec<Arc<Path>>) {
        let (key, mut all) =
            self.by_key.remove_entry(key).unwrap_or_else(|| (Arc::from(key), BTreeSet::new()));
        let wanted: BTreeSet<(Arc<Path>, Role)> =
            wanted.into_iter().map(|(path, role)| (path.into(), role)).collect();
        let gone: Vec<_> = all.difference(&wanted).cloned().collect();
        let new: Vec<_> = wanted.difference(&all).cloned().collect();
        let mut to_drop = Vec::new();
        for entry in gone {
            all.remove(&entry);
            let (path, role) = &entry;
            if let Some(owners) = self.by_path.get_mut(path) {
                owners.remove(&key, role);
                if owners.is_empty() {
                    self.by_path.remove(path);
                    self.suspect.remove(path);
                    to_drop.push(Arc::clone(path));
                }
            }
        }
        let mut to_watch: Vec<Arc<Path>> = Vec::new();
        for (path, role) in new {
            let owners = self.by_path.entry(Arc::clone(&path)).or_default();
            if owners.is_empty() {
                to_watch.push(Arc::clone(&path));
            }
            owners.insert(&key, &role);
            all.insert((path, role));
        }
        if !self.suspect.is_empty() {
            let new: HashSet<Arc<Path>> = to_watch.iter().cloned().collect();
            for (path, _) in &all {
                if self.suspect.remove(path) && !new.contains(path) {
                    to_watch.push(Arc::clone(path));
                }
            }
        }
        // A path that is wanted in another role now was let go of above, and is watched again here.
        to_drop.retain(|path| !self.by_path.contains_key(path));
        if !all.is_empty() {
            self.by_key.insert(key, all);
        }
        (to_watch, to_drop)
    }

    /// What is watched at `path` and below it.
    fn at_and_below(&self, path: &Path) -> impl Iterator<Item = (&Arc<Path>, &Owners)> {
        let from = (Bound::Included(path), Bound::Unbounded);
        self.by_path.range::<Path, _>(from).take_while(move |(below, _)| below.starts_with(path))
    }

    /// The keys that an event on `path` concerns.
    fn concerned(&self, path: &Path, kind: EventKind) -> BTreeSet<Arc<Path>> {
        let itself = self.by_path.get(path).into_iter().flat_map(|owners| owners.concerned(None, kind));
        let above = path.parent().and_then(|parent| self.by_path.get(parent));
        let child = above.into_iter().flat_map(|owners| owners.concerned(path.file_name(), kind));
        itself.chain(child).cloned().collect()
    }
}

/// Looks at directories before `notify` does. It sets watches on the thread that hears of all events, in its turn for all
/// repositories: at a disk that hangs, the caller's thread has to be the one that stays.
fn reach(paths: &[impl AsRef<Path>]) {
    for path in paths {
        // What is wrong with it is told when it is watched.
        drop(std::fs::metadata(path));
    }
}

/// Runs on notify's own thread, which must not be held up: the kernel's queue is finite.
fn on_event(event: notify::Result<Event>, index: &RwLock<Index>, listener: &dyn Listener) {
    let event = match event {
        Ok(event) if event.need_rescan() => return listener.overflowed(),
        Ok(event) => event,
        Err(error) => {
            warn!(error = &error as &dyn std::error::Error, "events lost");
            return listener.overflowed();
        }
    };
    // Nine of ten events: `git` and we ourselves open files to read them.
    if !interest::is_change(event.kind) {
        return;
    }
    for path in &event.paths {
        let (mut concerned, is_replaced) = {
            let index = index.read();
            let is_replaced = interest::can_replace(event.kind) && index.by_path.contains_key(path.as_path());
            (index.concerned(path, event.kind), is_replaced)
        };
        if is_replaced {
            // With a directory that goes, `notify` drops every watch below it, and no event tells of that.
            let mut index = index.write();
            let (suspect, keys): (Vec<_>, Vec<_>) =
                index.at_and_below(path).map(|(path, owners)| (Arc::clone(path), owners.keys())).unzip();
            concerned.extend(keys.into_iter().flatten().cloned());
            index.suspect.extend(suspect);
        }
        for key in concerned {
            listener.dirty(&key);
        }
    }
}

/// Whether there was nothing to watch.
fn is_gone(error: &notify::Error) -> bool {
    match &error.kind {
        ErrorKind::PathNotFound => true,
        ErrorKind::Io(why) => why.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests;
