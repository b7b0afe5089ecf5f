//! Finding and dropping what was made for an allocation.

use sqlx::Row as _;
use sqlx::postgres::PgRow;

use super::error::{DatabaseError, Step};
use super::server::Server;
use crate::domain::database_objects::{DatabaseObject, FoundObject, KeepObject, draft_name, keep, marker};
use crate::domain::identity::AllocationId;
use crate::domain::names::{DatabaseName, SchemaName};

/// Databases that every server has (PostgreSQL manual, 23.3).
const OF_EVERY_SERVER: [&str; 3] = ["postgres", "template0", "template1"];

/// How many things that would be lost with a schema are named.
const NAMED: usize = 3;

/// The schema with its comment, its size, and how many sessions have a table of it locked. What a session did before its
/// last transaction nobody can tell.
const SCHEMA: &str = "
    SELECT n.oid, obj_description(n.oid, 'pg_namespace'),
           (SELECT sum(pg_total_relation_size(c.oid))::int8 FROM pg_class c
            WHERE c.relnamespace = n.oid AND c.relkind IN ('r', 'm', 'S')),
           (SELECT count(DISTINCT l.pid) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
            JOIN pg_stat_activity a ON a.pid = l.pid AND a.backend_type = 'client backend'
            WHERE c.relnamespace = n.oid AND l.pid <> pg_backend_pid()
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
    FROM pg_namespace n WHERE n.nspname = $1";

/// What depends on a schema, or on anything in it, and is not in it: `DROP SCHEMA … CASCADE` would take it along
/// (PostgreSQL manual, 53.18, `pg_depend`). Parts of a table are where their table is. Casts, privileges and
/// memberships of publications are of what they are for. An extension is of the whole database, wherever it was put.
const OUTSIDE: &str = "
    WITH RECURSIVE doomed (classid, objid) AS (
        SELECT 'pg_namespace'::regclass::oid, oid FROM pg_namespace WHERE nspname = $1
        UNION
        SELECT d.classid, d.objid FROM pg_depend d
        JOIN doomed ON d.refclassid = doomed.classid AND d.refobjid = doomed.objid
    ), tables (classid, objid, relation) AS (
        SELECT 'pg_trigger'::regclass::oid, oid, tgrelid FROM pg_trigger
        UNION ALL SELECT 'pg_rewrite'::regclass::oid, oid, ev_class FROM pg_rewrite
        UNION ALL SELECT 'pg_policy'::regclass::oid, oid, polrelid FROM pg_policy
        UNION ALL SELECT 'pg_attrdef'::regclass::oid, oid, adrelid FROM pg_attrdef
    ), placed AS (
        SELECT d.classid, d.objid, coalesce(
            (SELECT n.nspname::text FROM pg_namespace n
             WHERE d.classid = 'pg_namespace'::regclass AND n.oid = d.objid),
            (SELECT n.nspname::text FROM tables t JOIN pg_class c ON c.oid = t.relation
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE t.classid = d.classid AND t.objid = d.objid),
            (SELECT i.schema FROM pg_identify_object(d.classid, d.objid, 0) i)
        ) AS place
        FROM doomed d
        WHERE d.classid::regclass::text <> ALL (ARRAY['pg_default_acl', 'pg_cast', 'pg_transform', 'pg_amop',
            'pg_amproc', 'pg_publication_rel', 'pg_publication_namespace'])
    )
    SELECT pg_describe_object(classid, objid, 0) FROM placed
    WHERE place IS NULL OR place NOT IN ($1, 'pg_toast')
    ORDER BY classid = 'pg_type'::regclass, 1 LIMIT 20";

/// The tables of a schema, to be locked.
const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE n.nspname = $1 AND c.relkind IN ('r', 'p') ORDER BY 1";

/// What came of dropping something.
#[derive(Debug)]
pub enum Dropped {
    /// It is gone.
    Dropped,
    /// It was gone.
    Gone,
    /// It stays.
    Kept(KeepObject),
}

impl Server {
    /// What is there under the names that are recorded for an allocation.
    pub async fn find(
        &mut self,
        id: AllocationId,
        object: &DatabaseObject,
    ) -> Result<Vec<FoundObject>, DatabaseError> {
        if let Some(schema) = &object.name.schema {
            return Ok(self.find_schema(id, schema).await?.into_iter().collect());
        }
        let mut found: Vec<_> = self.find_database(&object.name.database, false).await?.into_iter().collect();
        if let Some(draft) = draft_name(id) {
            match self.find_database(&draft, true).await? {
                Some(half_made) => found.push(half_made),
                None if self.is_worked_on(draft.as_str()).await? => found.push(FoundObject {
                    name: draft.to_string(),
                    is_draft: true,
                    used_by: "an earlier attempt to make it".to_owned(),
                    ..FoundObject::default()
                }),
                None => {}
            }
        }
        Ok(found)
    }

    async fn find_schema(
        &mut self,
        id: AllocationId,
        schema: &SchemaName,
    ) -> Result<Option<FoundObject>, DatabaseError> {
        let name = schema.to_string();
        let Some(row) = self.optional_row(SCHEMA, schema.as_str()).await? else {
            let is_being_made = self.is_worked_on(&marker(id)).await?;
            let used_by = "an earlier attempt to make it".to_owned();
            return Ok(is_being_made.then(|| FoundObject { name, used_by, ..FoundObject::default() }));
        };
        let needed_by = self.needed_by(schema).await?;
        let found = |row: &PgRow| {
            let (size, sessions): (Option<i64>, i64) = (row.try_get(2)?, row.try_get(3)?);
            Ok(FoundObject {
                name,
                comment: row.try_get(1)?,
                used_by: match sessions {
                    0 => String::new(),
                    1 => "1 session".to_owned(),
                    many => format!("{many} sessions"),
                },
                needed_by,
                size: u64::try_from(size.unwrap_or(0)).ok(),
                ..FoundObject::default()
            })
        };
        found(&row).map(Some).map_err(|error| self.failed(error))
    }

    async fn needed_by(&mut self, schema: &SchemaName) -> Result<Vec<String>, DatabaseError> {
        let mut needed = self.texts(OUTSIDE, schema.as_str()).await?;
        if needed.len() > NAMED {
            needed.truncate(NAMED);
            needed.push("more".to_owned());
        }
        Ok(needed)
    }

    async fn find_database(
        &mut self,
        name: &DatabaseName,
        is_draft: bool,
    ) -> Result<Option<FoundObject>, DatabaseError> {
        let Some(database) = self.database(name).await? else { return Ok(None) };
        let used_by = self.sessions(name).await?;
        // Its size is told to those who may connect to it.
        let size = "SELECT CASE WHEN has_database_privilege(oid, 'CONNECT') AND datconnlimit <> -2
                               THEN pg_database_size(oid) END
                    FROM pg_database WHERE datname = $1";
        let size = self.optional_row(size, name.as_str()).await?;
        let size = size.map(|row| row.try_get::<Option<i64>, _>(0)).transpose();
        let size = size.map_err(|error| self.failed(error))?.flatten();
        Ok(Some(FoundObject {
            name: name.to_string(),
            is_draft,
            comment: database.comment,
            is_everybodys: database.is_template || OF_EVERY_SERVER.contains(&name.as_str()),
            used_by,
            needed_by: Vec::new(),
            size: size.and_then(|size| u64::try_from(size).ok()),
        }))
    }

    /// Drops what is there under `name`, if it still is what may be dropped. Nothing is forced.
    pub async fn drop_object(
        &mut self,
        id: AllocationId,
        object: &DatabaseObject,
        name: &str,
    ) -> Result<Dropped, DatabaseError> {
        let found = self.find(id, object).await?.into_iter().find(|found| found.name == name);
        let Some(found) = found else { return Ok(Dropped::Gone) };
        if let Some(keep) = keep(id, object, &found) {
            return Ok(Dropped::Kept(keep));
        }
        let dropped = match &object.name.schema {
            Some(schema) => self.drop_schema(id, object, schema).await,
            None => {
                // As the server has it, and of the one type whose names go into a statement.
                let own = Some(&object.name.database).filter(|own| own.as_str() == name).cloned();
                let Some(database) = own.or_else(|| draft_name(id)) else { return Ok(Dropped::Gone) };
                self.long(format!("DROP DATABASE \"{database}\"")).await.map(|()| Dropped::Dropped)
            }
        };
        match dropped {
            Err(error) if error.is(Step::InUse) => {
                Ok(Dropped::Kept(KeepObject::InUse("a session that has just begun".to_owned())))
            }
            other => other,
        }
    }

    /// In one transaction, with every table locked: what was looked at is what is dropped, as a whole or not at all.
    async fn drop_schema(
        &mut self,
        id: AllocationId,
        object: &DatabaseObject,
        schema: &SchemaName,
    ) -> Result<Dropped, DatabaseError> {
        self.execute_short("BEGIN".to_owned()).await?;
        let dropped = self.drop_schema_in_transaction(id, object, schema).await;
        let end = if matches!(dropped, Ok(Dropped::Dropped)) { "COMMIT" } else { "ROLLBACK" };
        let ended = self.execute_short(end.to_owned()).await;
        let dropped = dropped?;
        ended.map(|()| dropped)
    }

    async fn drop_schema_in_transaction(
        &mut self,
        id: AllocationId,
        object: &DatabaseObject,
        schema: &SchemaName,
    ) -> Result<Dropped, DatabaseError> {
        let tables = self.texts(TABLES, schema.as_str()).await?;
        if !tables.is_empty() {
            // The server has quoted them.
            let lock = format!("LOCK TABLE ONLY {} IN ACCESS EXCLUSIVE MODE NOWAIT", tables.join(", ONLY "));
            self.execute_short(lock).await?;
        }
        let Some(found) = self.find_schema(id, schema).await? else { return Ok(Dropped::Gone) };
        if let Some(keep) = keep(id, object, &found) {
            return Ok(Dropped::Kept(keep));
        }
        self.execute_short("SET LOCAL statement_timeout = '30min'".to_owned()).await?;
        self.execute_long(format!("DROP SCHEMA \"{schema}\" CASCADE")).await?;
        Ok(Dropped::Dropped)
    }
}
