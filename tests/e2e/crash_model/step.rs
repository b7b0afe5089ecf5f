//! What can happen: the steps that the model is driven by.

/// A repository, by number.
pub(super) type Repo = usize;

/// One of the two paths that a repository can be at.
pub(super) type Home = usize;

/// One of the paths that a repository's linked worktrees can be at.
pub(super) type Place = usize;

/// How many repositories there are.
pub(super) const REPOSITORIES: usize = 3;

/// How many places a repository's worktrees have.
pub(super) const PLACES: usize = 4;

/// A worktree of a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worktree {
    Main,
    At(Place),
}

/// One thing that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// `git clone`, to a home that is free.
    Clone(Repo, Home),
    /// `mv` of the whole repository to its other home.
    MoveRepository(Repo),
    /// `rm -rf` of a repository and of all its worktrees.
    Destroy(Repo),
    /// Another `wtd.toml` in the main worktree: one of the contents in `world::PROJECTS`.
    Configure(Repo, usize),
    /// `git worktree add`; with `--force` where a worktree whose directory is gone is still listed there.
    Add(Repo, Place),
    /// `git worktree remove`.
    Remove(Repo, Place),
    /// `git worktree move`.
    Move(Repo, Place, Place),
    /// `git worktree lock`.
    Lock(Repo, Place),
    /// `git worktree unlock`.
    Unlock(Repo, Place),
    /// `git worktree prune`.
    Prune(Repo),
    /// `git worktree repair`, with every directory that is there.
    Repair(Repo),
    /// `git switch` to a branch of its own.
    Switch(Repo, Worktree),
    /// `rm -rf` of a worktree's directory.
    Delete(Repo, Place),
    /// `mv` of a worktree's directory, past git.
    Rename(Repo, Place, Place),
    /// The worktree's entry in the repository is deleted, past git.
    Unlist(Repo, Place),

    /// `PUT /v1/worktrees`.
    Ask(Repo, Worktree),
    /// `wtd-client get PORT_OFFSET`, which may find no daemon, or one that doesn't answer.
    Client(Repo, Worktree),
    /// `wtd-client reassign`.
    Reassign(Repo, Worktree),
    /// `wtd-client forget` of the repository.
    Forget(Repo),

    /// SIGKILL, so many milliseconds after the step before.
    Kill(u8),
    /// SIGTERM.
    Terminate,
    /// A daemon is started.
    Start,
    /// SIGSTOP.
    Halt,
    /// SIGCONT.
    Resume,
    /// More events than the kernel keeps for a daemon that stands still.
    Overflow(Repo),
    /// The daemon's wall clock shows so many seconds more, or less.
    Clock(i32),

    /// Everything comes to rest, and is compared.
    Settle,
}
