//! What is made for a worktree on a database server that worktrees share, and what tells it from everything else there.

use std::fmt;

use wtd_protocol::variable::DB_HOST_PORT;

use super::allocation::Allocation;
use super::identity::AllocationId;
use super::names::{DatabaseName, SchemaName};
use super::project::DatabaseMode;

/// A database, or a schema in one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName {
    /// The database, or the one that the schema is in.
    pub database: DatabaseName,
    /// The schema; none: the database itself.
    pub schema: Option<SchemaName>,
}

impl ObjectName {
    /// What it is: `database` or `schema`.
    pub const fn kind(&self) -> &'static str {
        if self.schema.is_some() { "schema" } else { "database" }
    }

    /// Its own name.
    pub fn name(&self) -> &str {
        self.schema.as_ref().map_or(self.database.as_str(), SchemaName::as_str)
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.schema {
            None => write!(f, "the database {}", self.database),
            Some(schema) => write!(f, "the schema {schema} of the database {}", self.database),
        }
    }
}

/// Where a server listens: for people, and to ask there again. No credentials.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServerAddress {
    /// A host's name or address, or the directory of a Unix socket.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// A server's own number, given when its data directory was made (PostgreSQL manual, 9.27, `pg_control_system`): who
/// answers at an address can be another one tomorrow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SystemIdentifier(pub i64);

/// A database or schema that was, or was to be, made for an allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseObject {
    /// Its name.
    pub name: ObjectName,
    /// The server that it is on.
    pub server: SystemIdentifier,
    /// Where that one was.
    pub address: ServerAddress,
    /// Whether it is known to be there; else it may be there, as a whole or half-made.
    pub made: bool,
}

/// The comment on every object that wtd makes: whose it is. Nothing without it is ever dropped.
pub fn marker(id: AllocationId) -> String {
    format!("wtd allocation {id}")
}

/// The name under which a database is made. Making and marking one can't be done at once, so it gets its own name
/// only when it is marked: under this one it shows by itself whose it is.
pub fn draft_name(id: AllocationId) -> Option<DatabaseName> {
    DatabaseName::new(&format!("wtd_new_{}", id.0.simple())).ok()
}

impl Allocation {
    /// What there is to be on the server for this worktree alone.
    pub fn wanted_object(&self) -> Option<ObjectName> {
        let database = self.database.clone();
        match self.mode {
            DatabaseMode::Database => Some(ObjectName { database, schema: None }),
            DatabaseMode::Schema => Some(ObjectName { database, schema: Some(self.schema.clone()?) }),
            DatabaseMode::Isolated | DatabaseMode::Shared => None,
        }
    }

    /// The port of the server that the worktree's database is on.
    pub fn database_port(&self) -> Option<u16> {
        self.ports.get(DB_HOST_PORT).map(|port| port.port)
    }

    /// Whether what is to be there is recorded as made, on whichever server.
    pub fn has_wanted_object(&self) -> bool {
        let Some(wanted) = self.wanted_object() else { return true };
        self.objects.iter().any(|object| object.made && object.name == wanted)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_draft_is_told_by_its_name_alone() {
        let (one, two) = (AllocationId(Uuid::from_u128(1)), AllocationId(Uuid::from_u128(u128::MAX)));
        assert_eq!(draft_name(one).unwrap().as_str(), "wtd_new_00000000000000000000000000000001");
        assert_ne!(draft_name(one), draft_name(two));
        assert_eq!(marker(one), "wtd allocation 00000000-0000-0000-0000-000000000001");
    }

    #[test]
    fn an_address_is_written_as_people_write_it() {
        let address = |host: &str| ServerAddress { host: host.into(), port: 5432 }.to_string();
        assert_eq!(address("localhost"), "localhost:5432");
        assert_eq!(address("::1"), "[::1]:5432");
        assert_eq!(address("/run/postgresql"), "/run/postgresql:5432");
    }
}
