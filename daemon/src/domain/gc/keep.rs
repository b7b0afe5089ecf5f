//! Why something is kept, in a person's words.

use std::fmt;

use crate::domain::database_objects::KeepObject;
use crate::domain::names::ComposeProject;

/// Why something is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Keep {
    /// The worktree is missing, and not proven removed.
    Missing(String),
    /// A person forgot it.
    Forgotten,
    /// A person moved the worktree to another offset.
    Reassigned,
    /// git has it locked.
    Locked,
    /// The worktree is there.
    Standing,
    /// A fresh look does not prove it removed.
    Unproven(String),
    /// Gone for less than was asked for.
    Young,
    /// The engine was not seen while the worktree was there, and others were.
    OtherEngine,
    /// No engine was seen while the worktree was there.
    UnknownEngine,
    /// Its name is not one that goes to an engine.
    Name,
    /// It is not a plain local volume; what it is.
    Driver(String),
    /// It carries another allocation's label.
    OthersLabel(String),
    /// Another Compose project made it.
    OthersProject(String),
    /// A live allocation names it.
    Live(String),
    /// It may have been there before the allocation.
    MadeBefore,
    /// It was made after the worktree went.
    MadeAfter,
    /// Containers use it.
    InUse {
        /// By name and state.
        containers: Vec<String>,
        /// The worktree's own project, when they all are of it.
        project: Option<ComposeProject>,
        /// Whether a process may be running in one of them.
        running: bool,
    },
    /// Nobody asked for the containers to be removed.
    NotAskedFor(ComposeProject),
    /// A database server can't be asked.
    Server(String),
    /// It is to be kept in a file, and only volumes are.
    NoBackup(&'static str),
    /// What a database server says speaks against it.
    Object(KeepObject),
    /// It is the volume of a server that other worktrees share.
    SharedServer(String),
}

impl fmt::Display for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(why) => write!(f, "its worktree is missing: {why}; --missing includes it"),
            Self::Forgotten => f.write_str("its worktree was forgotten by a person; --missing includes it"),
            Self::Reassigned => {
                f.write_str("its worktree was moved to another offset by a person; --missing includes it")
            }
            Self::Locked => f.write_str("git has its worktree locked; `git worktree unlock` lets go of it"),
            Self::Standing => f.write_str("its worktree is there"),
            Self::Unproven(why) => {
                write!(f, "its worktree is not proven removed: {why}; --missing includes it")
            }
            Self::Young => f.write_str("its worktree has not been gone for as long as --older-than says"),
            Self::OtherEngine => f.write_str("this is another engine than when its worktree was there"),
            Self::UnknownEngine => f.write_str(
                "wtd did not see this engine while its worktree was there; `docker volume rm` drops it",
            ),
            Self::Name => f.write_str("wtd passes no such name to an engine; `docker volume rm` drops it"),
            Self::Driver(what) => {
                write!(f, "it is not a plain local volume: {what}; `docker volume rm` drops it")
            }
            Self::OthersLabel(id) => write!(f, "its label says that it belongs to allocation {id}"),
            Self::OthersProject(project) => write!(f, "it belongs to the Compose project {project}"),
            Self::Live(path) => write!(f, "the worktree {path} has it"),
            Self::MadeBefore => f.write_str(
                "it may have been there before its worktree; `docker volume rm` drops it if nobody needs it",
            ),
            Self::MadeAfter => f.write_str(
                "it was made after its worktree went; `docker volume rm` drops it if nobody needs it",
            ),
            Self::InUse { containers, project, running } => {
                let users = containers.join(", ");
                let verb = if containers.len() == 1 { "uses" } else { "use" };
                let state = if *running { "" } else { "stopped " };
                write!(f, "{state}container {users} {verb} it")?;
                match project {
                    Some(project) => {
                        write!(f, "; `docker compose -p {project} down` or --down removes what uses it")
                    }
                    None => Ok(()),
                }
            }
            Self::NotAskedFor(project) => {
                write!(f, "`docker compose -p {project} down` or --down removes them")
            }
            Self::Server(why) => f.write_str(why),
            Self::NoBackup(program) => {
                write!(
                    f,
                    "--backup keeps volumes only; write it to a file with {program}, then run gc without --backup"
                )
            }
            Self::Object(keep) => keep.fmt(f),
            Self::SharedServer(path) => {
                write!(f, "it may be the volume of the server that the worktree {path} shares")
            }
        }
    }
}
