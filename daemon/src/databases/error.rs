//! What can go wrong with a database server, in words that name no credentials.

use std::time::Duration;

use sqlx::Error;

use super::place::PlaceError;
use crate::domain::database_objects::ServerAddress;

/// Why something is not as it should be on a server.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// There is nowhere to ask.
    #[error("{0}")]
    Place(#[from] PlaceError),
    /// Nobody answers, or the connection broke.
    #[error("no PostgreSQL answers at {address} ({source}); start it")]
    Unreachable {
        /// Where it was asked.
        address: ServerAddress,
        /// What went wrong.
        source: Error,
    },
    /// It takes too long.
    #[error("PostgreSQL at {address} did not answer within {within:?}; see what it is busy with")]
    TimedOut {
        /// Where it was asked.
        address: ServerAddress,
        /// How long it was waited for.
        within: Duration,
    },
    /// It does not know us (SQLSTATE class 28).
    #[error(
        "PostgreSQL at {address} does not let the daemon in; give it PGUSER and PGPASSWORD, a service or ~/.pgpass"
    )]
    Refused {
        /// Where it was asked.
        address: ServerAddress,
    },
    /// The database that was to be connected to is not there (SQLSTATE 3D000).
    #[error("there is no database {database} on PostgreSQL at {address}; create it")]
    NoDatabase {
        /// Where it was asked.
        address: ServerAddress,
        /// The database.
        database: String,
    },
    /// Another server answers than the one that was meant.
    #[error("another PostgreSQL than before answers at {address}; start the former one")]
    AnotherServer {
        /// Where it was asked.
        address: ServerAddress,
    },
    /// There is nothing to copy.
    #[error(
        "there is no database {template} to copy on PostgreSQL at {address}; create it, or correct database.template"
    )]
    NoTemplate {
        /// Where it was asked.
        address: ServerAddress,
        /// The template.
        template: String,
    },
    /// A template can be copied only while nobody is connected to it (SQLSTATE 55006).
    #[error("the template {template} is in use by {by}; it is copied when they are closed")]
    TemplateInUse {
        /// The template.
        template: String,
        /// Who is connected to it.
        by: String,
    },
    /// An earlier attempt, whose client is gone, still works on it.
    #[error("PostgreSQL at {address} is still making it")]
    BeingMade {
        /// Where.
        address: ServerAddress,
    },
    /// Something of that name was there before.
    #[error(
        "{object} on PostgreSQL at {address} was not made by wtd for this worktree, so it is left alone; rename it, or take another offset with `wtd-client reassign`"
    )]
    Foreign {
        /// Where.
        address: ServerAddress,
        /// What has the name.
        object: String,
    },
    /// The role may not do that (SQLSTATE 42501).
    #[error("PostgreSQL at {address}: {message}; give the daemon's role that right")]
    Denied {
        /// Where.
        address: ServerAddress,
        /// What the server says.
        message: String,
    },
    /// Somebody holds a lock on what was asked for (SQLSTATE 55P03).
    #[error(
        "somebody holds a lock on it on PostgreSQL at {address}; end that session (pg_stat_activity shows it), or wait for its end"
    )]
    Locked {
        /// Where.
        address: ServerAddress,
    },
    /// Anything else that the server says.
    #[error("PostgreSQL at {address}: {message} (SQLSTATE {code})")]
    Failed {
        /// Where.
        address: ServerAddress,
        /// What the server says.
        message: String,
        /// The error's code (PostgreSQL manual, appendix A).
        code: String,
    },
}

/// Kinds of failure that a step can be prepared for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Something of that name is there.
    Duplicate,
    /// Somebody is connected, or has it locked.
    InUse,
    /// The file system can't do that.
    FileSystem,
}

impl DatabaseError {
    pub(super) fn of(address: &ServerAddress, error: Error) -> Self {
        let address = address.clone();
        let Some(said) = error.as_database_error() else {
            return Self::Unreachable { address, source: error };
        };
        let (code, message) = (said.code().unwrap_or_default().into_owned(), said.message().to_owned());
        match code.as_str() {
            "28000" | "28P01" => Self::Refused { address },
            "55P03" => Self::Locked { address },
            "42501" => Self::Denied { address, message },
            // It is starting, stopping, or was told to end this session.
            "57P01" | "57P02" | "57P03" => Self::Unreachable { address, source: error },
            _ => Self::Failed { address, message, code },
        }
    }

    /// Names the database that was to be connected to, where it is that which is not there.
    pub(super) fn in_database(self, database: &str) -> Self {
        match self {
            Self::Failed { address, code, .. } if code == "3D000" => {
                Self::NoDatabase { address, database: database.to_owned() }
            }
            other => other,
        }
    }

    pub(super) fn is(&self, step: Step) -> bool {
        let code = match self {
            Self::Locked { .. } => return step == Step::InUse,
            Self::Failed { code, .. } => code,
            _ => return false,
        };
        match step {
            // 23505: two made it at the same time.
            Step::Duplicate => matches!(code.as_str(), "42P04" | "42P06" | "23505"),
            Step::InUse => code == "55006",
            Step::FileSystem => code.starts_with("58") || code.starts_with("0A"),
        }
    }
}
