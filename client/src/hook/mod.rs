//! What the shell hook does to a shell's variables: the decision, without input or output.
//!
//! Entering a worktree remembers what each variable was, going from one worktree to another keeps that memory, and
//! leaving brings it back. A variable that someone sets by hand inside a worktree stays as it is there, and is
//! restored with the others. The memory is in the environment ([`State`]), so that child shells have it too.
//!
//! What a `.envrc` sets is direnv's as long as direnv has it loaded, and is left alone. direnv then brings back what
//! was before, which may be a value of ours: so what we remember of the variable is kept meanwhile.

mod direnv;
mod state;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

pub(crate) use direnv::{DIRENV_DIFF, changed as changed_by_direnv};
pub(crate) use state::{Memory, State, WTD_HOOK};

/// What is to be done to one variable of the shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// Set and exported, for the first time: a value that the shell has and does not export is to be kept aside.
    Take(OsString),
    /// Set and exported.
    Set(OsString),
    /// Set and exported as it was before.
    Restore(OsString),
    /// No longer in the environment; a value that was kept aside comes back.
    Clear,
}

/// What the shell's environment holds.
pub(crate) struct Before<'a> {
    /// What the hook remembers; none when it has not run in this shell or an ancestor.
    pub(crate) state: Option<State>,
    /// The variables that direnv has changed.
    pub(crate) direnv: BTreeSet<String>,
    /// Whether the shell has the variables of the very worktree that is wanted: what is right there and not remembered was
    /// set by `env`, and what was before is not known.
    pub(crate) is_set_by_env: bool,
    /// What `env` has set for the worktree that is left, as far as it still has that value.
    pub(crate) given: BTreeMap<String, OsString>,
    /// The value of an exported variable.
    pub(crate) value: &'a dyn Fn(&str) -> Option<OsString>,
}

/// Takes the shell from what it has to the variables that are `wanted`: none outside of a worktree. Gives what the
/// hook has to remember from now on, and the changes.
pub(crate) fn follow(
    before: &Before<'_>,
    wanted: &BTreeMap<String, OsString>,
    shell: u32,
) -> (State, BTreeMap<String, Change>) {
    let mut known = before.state.as_ref().map(|state| state.memories.clone()).unwrap_or_default();
    if before.state.is_some() {
        for (name, value) in &before.given {
            if !before.direnv.contains(name) {
                known.entry(name.clone()).or_insert_with(|| Memory::new(None, value.clone()));
            }
        }
    }
    let mut state = State { shell, memories: BTreeMap::new() };
    let mut changes = BTreeMap::new();
    let names: BTreeSet<_> = known.keys().chain(wanted.keys()).cloned().collect();
    for name in names {
        let known = known.remove(&name);
        let (memory, change) = match wanted.get(&name) {
            _ if before.direnv.contains(&name) => (known, None),
            Some(wanted) => enter(wanted, known, (before.value)(&name), before.is_set_by_env),
            None => (None, known.and_then(|known| leave(known, (before.value)(&name).as_ref()))),
        };
        state.memories.extend(memory.map(|memory| (name.clone(), memory)));
        changes.extend(change.map(|change| (name, change)));
    }
    (state, changes)
}

/// A variable that is wanted here.
fn enter(
    wanted: &OsString,
    known: Option<Memory>,
    now: Option<OsString>,
    is_set_by_env: bool,
) -> (Option<Memory>, Option<Change>) {
    let is_right = now.as_ref() == Some(wanted);
    match known {
        // Another value than ours was set by hand, and stays as long as ours would.
        Some(known) => {
            let change = (known.value != *wanted && !is_right).then(|| Change::Set(wanted.clone()));
            (Some(Memory { value: wanted.clone(), ..known }), change)
        }
        // What `env` set is ours; what anyone else has set to the same is to be so afterwards as well.
        None if is_right => (Some(Memory::new(now.filter(|_| !is_set_by_env), wanted.clone())), None),
        None => {
            let change = if now.is_none() { Change::Take } else { Change::Set };
            (Some(Memory::new(now, wanted.clone())), Some(change(wanted.clone())))
        }
    }
}

/// What brings back a variable that is not wanted here.
fn leave(known: Memory, now: Option<&OsString>) -> Option<Change> {
    match known.before {
        None => Some(Change::Clear),
        Some(before) => (now != Some(&before)).then_some(Change::Restore(before)),
    }
}
