//! What is made for a worktree on a database server that worktrees share, and what tells it from everything else there.

use std::fmt;

use super::identity::AllocationId;
use super::names::{DatabaseName, SchemaName};

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

/// How far an object has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// It is about to be made: it may be there, as a whole or half-made.
    Intended,
    /// It was made.
    Made,
    /// Somebody else's has the name. The worktree is told the name all the same, so its data may be in there.
    Foreign,
}

impl Stage {
    /// Every stage.
    pub const ALL: [Self; 3] = [Self::Intended, Self::Made, Self::Foreign];

    /// The word for it in the registry.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Intended => "intended",
            Self::Made => "made",
            Self::Foreign => "foreign",
        }
    }

    /// The stage that [`Stage::as_str`] names so.
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.as_str() == word)
    }
}

/// A database or schema that has a name of an allocation's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseObject {
    /// Its name.
    pub name: ObjectName,
    /// The server that it is on.
    pub server: SystemIdentifier,
    /// Where that one was.
    pub address: ServerAddress,
    /// How far it has come.
    pub stage: Stage,
}

/// What a server has under a name that is recorded for an allocation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FoundObject {
    /// Its name there: the object's own, or that of its draft.
    pub name: String,
    /// Whether it is a database that did not get its own name yet.
    pub is_draft: bool,
    /// Its comment.
    pub comment: Option<String>,
    /// Whether the server has it as a template for others, or everybody comes through it.
    pub is_everybodys: bool,
    /// Who works in it, such as `2 sessions of psql`; empty when nobody does.
    pub used_by: String,
    /// What would be lost with it that is not in it.
    pub needed_by: Vec<String>,
    /// Its size in bytes, where the server tells.
    pub size: Option<u64>,
}

/// Why something on a server stays.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepObject {
    /// It had the name before the worktree.
    #[error(
        "it was there before its worktree, so it is not wtd's; once you rename or drop it, the offset is free"
    )]
    Foreign,
    /// It doesn't say that it was made for the allocation.
    #[error(
        "it does not carry the comment {wanted:?}, so it is not what wtd made; once you rename or drop it, the offset is free"
    )]
    Unmarked {
        /// The comment that it would carry.
        wanted: String,
    },
    /// It is a template, or the database that everybody comes through.
    #[error("the server has it for everybody")]
    Everybodys,
    /// Somebody works in it.
    #[error("it is in use by {0}")]
    InUse(String),
    /// Something outside of it would be lost with it.
    #[error("{} would be lost with it", .0.join(", "))]
    Needed(Vec<String>),
}

/// Whether something on a server may be dropped for an allocation that is gone: only what the registry recorded making,
/// *and* what says so itself, and nobody uses.
pub fn keep(id: AllocationId, object: &DatabaseObject, found: &FoundObject) -> Option<KeepObject> {
    let wanted = marker(id);
    let is_marked = found.comment.as_ref() == Some(&wanted);
    // A draft has no comment for a moment; its name has the allocation's id in it, and so says the same.
    let is_ours = is_marked || (found.is_draft && found.comment.is_none());
    if object.stage == Stage::Foreign && !found.is_draft {
        Some(KeepObject::Foreign)
    } else if !is_ours {
        Some(KeepObject::Unmarked { wanted })
    } else if found.is_everybodys {
        Some(KeepObject::Everybodys)
    } else if !found.used_by.is_empty() {
        Some(KeepObject::InUse(found.used_by.clone()))
    } else if !found.needed_by.is_empty() {
        Some(KeepObject::Needed(found.needed_by.clone()))
    } else {
        None
    }
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
    fn only_what_was_made_and_says_so_and_nobody_uses_is_dropped() {
        let id = AllocationId(Uuid::from_u128(7));
        let object = |stage| DatabaseObject {
            name: ObjectName { database: DatabaseName::new("shop-0").unwrap(), schema: None },
            server: SystemIdentifier(1),
            address: ServerAddress { host: "localhost".into(), port: 5432 },
            stage,
        };
        let found = FoundObject { comment: Some(marker(id)), ..FoundObject::default() };
        for stage in [Stage::Intended, Stage::Made] {
            assert_eq!(keep(id, &object(stage), &found), None);
        }
        let draft = FoundObject { is_draft: true, comment: None, ..found.clone() };
        for stage in Stage::ALL {
            assert_eq!(keep(id, &object(stage), &draft), None, "its name says whose it is");
        }
        assert_eq!(keep(id, &object(Stage::Foreign), &found), Some(KeepObject::Foreign));
        let other = marker(AllocationId(Uuid::from_u128(8)));
        for comment in [None, Some(other.clone()), Some(String::new()), Some(format!("{} ", marker(id)))] {
            let found = FoundObject { comment, ..found.clone() };
            assert!(matches!(keep(id, &object(Stage::Made), &found), Some(KeepObject::Unmarked { .. })));
        }
        let draft = FoundObject { comment: Some(other), ..draft };
        assert!(matches!(keep(id, &object(Stage::Made), &draft), Some(KeepObject::Unmarked { .. })));
        let template = FoundObject { is_everybodys: true, ..found.clone() };
        assert_eq!(keep(id, &object(Stage::Made), &template), Some(KeepObject::Everybodys));
        let used = FoundObject { used_by: "1 session of psql".into(), ..found.clone() };
        assert!(matches!(keep(id, &object(Stage::Made), &used), Some(KeepObject::InUse(_))));
        let needed = FoundObject { needed_by: vec!["view public.v".into()], ..found };
        assert!(matches!(keep(id, &object(Stage::Made), &needed), Some(KeepObject::Needed(_))));
    }

    #[test]
    fn an_address_is_written_as_people_write_it() {
        let address = |host: &str| ServerAddress { host: host.into(), port: 5432 }.to_string();
        assert_eq!(address("localhost"), "localhost:5432");
        assert_eq!(address("::1"), "[::1]:5432");
        assert_eq!(address("/run/postgresql"), "/run/postgresql:5432");
    }
}
