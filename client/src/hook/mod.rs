//! What the shell hook does to a shell's variables: the decision, without input or output.
//!
//! Entering a worktree remembers what each variable was, going from one worktree to another keeps that memory, and
//! leaving brings it back. A variable that someone sets by hand inside a worktree stays as it is there, and is
//! restored with the others. The memory is in the environment ([`State`]), so that child shells have it too.
//!
//! What a `.envrc` sets is direnv's as long as direnv has it loaded, and of no concern here. direnv brings back what
//! was before, and that may be a value of ours: it is known by what we remember.

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
    /// The variables that direnv has changed, each with what it will give back.
    pub(crate) direnv: BTreeMap<String, Option<OsString>>,
    /// Whether `env` has set the variables of the very worktree that is wanted. What was before is not known then.
    pub(crate) is_set_by_env: bool,
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
    let mut state = State { shell, memories: BTreeMap::new() };
    let mut changes = BTreeMap::new();
    let names: BTreeSet<_> = known.keys().chain(wanted.keys()).cloned().collect();
    for name in names {
        let known = known.remove(&name);
        let (memory, change) = match (before.direnv.get(&name), wanted.get(&name)) {
            (Some(previous), _) => (known.and_then(|known| below_direnv(known, previous.as_ref())), None),
            (None, Some(wanted)) => enter(wanted, known, (before.value)(&name), before.is_set_by_env),
            (None, None) => (None, known.and_then(|known| leave(known, (before.value)(&name).as_ref()))),
        };
        state.memories.extend(memory.map(|memory| (name.clone(), memory)));
        changes.extend(change.map(|change| (name, change)));
    }
    (state, changes)
}

/// A variable of direnv's that the hook knows: what is below is worth remembering if it is ours.
fn below_direnv(known: Memory, previous: Option<&OsString>) -> Option<Memory> {
    (previous == Some(&known.value)).then_some(Memory { is_below_direnv: true, ..known })
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
        // A value that is not ours was set by hand, unless direnv has brought it: then it is what was before.
        Some(known) if !known.is_below_direnv || now.as_ref() == Some(&known.value) => {
            let is_new = known.value != *wanted || known.is_below_direnv;
            let change = (is_new && !is_right).then(|| Change::Set(wanted.clone()));
            (Some(Memory { value: wanted.clone(), is_below_direnv: false, ..known }), change)
        }
        // What `env` set is ours; what anyone else has set to the same is none of our doing.
        _ if is_right => (is_set_by_env.then(|| Memory::new(None, wanted.clone())), None),
        _ => {
            let change = if now.is_none() { Change::Take } else { Change::Set };
            (Some(Memory::new(now, wanted.clone())), Some(change(wanted.clone())))
        }
    }
}

/// What brings back a variable that is not wanted here; nothing if direnv has brought another value than ours.
fn leave(known: Memory, now: Option<&OsString>) -> Option<Change> {
    let is_ours = now == Some(&known.value);
    (is_ours || !known.is_below_direnv).then(|| known.before.map_or(Change::Clear, Change::Restore))
}
