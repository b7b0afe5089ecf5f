//! A connection to a PostgreSQL server: all SQL that goes to one.
//!
//! Every name in a statement is of a validated type and stands in double quotes. Every question has an end: a server that
//! does not answer is an error, never an empty answer.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Connection as _, Error, Row as _};

use super::error::{DatabaseError, Step};
use super::place::Place;
use crate::domain::database_objects::{ObjectName, ServerAddress, SystemIdentifier, draft_name, marker};
use crate::domain::identity::AllocationId;
use crate::domain::names::{DatabaseName, SchemaName};

/// How long a server may take to let us in.
const TO_CONNECT: Duration = Duration::from_secs(5);

/// How long it may take for anything but a copy.
const TO_ANSWER: Duration = Duration::from_secs(20);

/// How long it may take to make, copy or drop a database.
const TO_COPY: Duration = Duration::from_mins(30);

/// What a session begins with. The server ends by itself what nobody waits for any more; names are PostgreSQL's own ones,
/// whatever a database has put before them.
const BEGIN: &str = "SET search_path = pg_catalog; SET statement_timeout = '15s'; SET lock_timeout = '5s'; \
                     SET idle_in_transaction_session_timeout = '30s'; SET client_min_messages = warning";

/// `server_version_num` of the first version that has `CREATE DATABASE … STRATEGY`, and of the first that can have the
/// file system share what is copied (`file_copy_method`).
const WITH_STRATEGY: i32 = 150_000;
const WITH_COPY_METHOD: i32 = 180_000;

/// `datconnlimit` of a database whose removal was interrupted (PostgreSQL manual, 53.15).
const INVALID: i32 = -2;

/// An open session.
#[derive(Debug)]
pub struct Server {
    connection: PgConnection,
    /// Where it listens.
    pub address: ServerAddress,
    /// Which server it is.
    pub identifier: SystemIdentifier,
    version: i32,
}

/// A database that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundDatabase {
    /// Its comment.
    pub comment: Option<String>,
    /// Whether it is a template for others (`datistemplate`).
    pub is_template: bool,
    /// Whether it is half-removed and can't be used any more.
    pub is_invalid: bool,
}

/// What has the name of an allocation's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Existing {
    /// Nothing.
    Absent,
    /// What was made for it.
    Ours,
    /// Something else.
    Foreign,
}

impl Server {
    /// Connects to a database of the server at `place`.
    pub async fn connect(place: &Place, database: &str) -> Result<Self, DatabaseError> {
        let address = &place.address;
        let begin = async {
            let (place, database) = (place.clone(), database.to_owned());
            // The password file may be on a disk that hangs.
            let options = tokio::task::spawn_blocking(move || place.options(&database));
            let mut connection =
                PgConnection::connect_with(&options.await.map_err(|_| Error::WorkerCrashed)?).await?;
            sqlx::raw_sql(BEGIN).execute(&mut connection).await?;
            let about = "SELECT (SELECT system_identifier FROM pg_control_system()),
                                current_setting('server_version_num')::int4";
            let row = sqlx::query(about).fetch_one(&mut connection).await?;
            Ok((connection, SystemIdentifier(row.try_get(0)?), row.try_get(1)?))
        };
        let (connection, identifier, version) =
            bounded(address, TO_CONNECT, begin).await.map_err(|error| error.in_database(database))?;
        Ok(Self { connection, address: address.clone(), identifier, version })
    }

    /// Ends the session. A server that does not take leave is left.
    pub async fn close(self) {
        drop(tokio::time::timeout(TO_CONNECT, self.connection.close()).await);
    }

    /// Whether an allocation's object is there, as a whole, or something else in its place.
    pub async fn existing(&mut self, id: AllocationId, name: &ObjectName) -> Result<Existing, DatabaseError> {
        let comment = match &name.schema {
            Some(schema) => self.schema_comment(schema).await?,
            None => {
                let found = self.database(&name.database).await?;
                // One that is half-removed is as good as none.
                let whole = found.filter(|it| !it.is_invalid || it.comment.as_ref() != Some(&marker(id)));
                whole.map(|found| found.comment)
            }
        };
        Ok(match comment {
            None => Existing::Absent,
            Some(Some(comment)) if comment == marker(id) => Existing::Ours,
            Some(_) => Existing::Foreign,
        })
    }

    /// Makes what is to be there for an allocation, unless it is there. It can be called again after any interruption.
    /// What bears the name and not the marker is left alone.
    pub async fn make(
        &mut self,
        id: AllocationId,
        name: &ObjectName,
        template: Option<&DatabaseName>,
    ) -> Result<(), DatabaseError> {
        match &name.schema {
            Some(schema) => self.make_schema(id, name, schema).await,
            None => self.make_database(id, name, template).await,
        }
    }

    async fn make_schema(
        &mut self,
        id: AllocationId,
        name: &ObjectName,
        schema: &SchemaName,
    ) -> Result<(), DatabaseError> {
        let marker = marker(id);
        for _ in 0..2 {
            match self.schema_comment(schema).await? {
                Some(Some(comment)) if comment == marker => return Ok(()),
                Some(_) => return Err(self.foreign(name)),
                None => {}
            }
            // In one message, and so in one transaction (PostgreSQL manual, 55.2.2.1): never made and not marked.
            let sql = format!("CREATE SCHEMA \"{schema}\"; COMMENT ON SCHEMA \"{schema}\" IS '{marker}'");
            match self.execute(sql, TO_ANSWER).await {
                // Somebody was quicker; the next look says who.
                Err(error) if error.is(Step::Duplicate) => {}
                other => return other,
            }
        }
        Err(self.foreign(name))
    }

    /// A database can't be made and marked at once. So it is made under a name that says whose it is, marked, and then
    /// given its own name; whatever interrupts that, the next call finds how far it came.
    async fn make_database(
        &mut self,
        id: AllocationId,
        name: &ObjectName,
        template: Option<&DatabaseName>,
    ) -> Result<(), DatabaseError> {
        let marker = marker(id);
        let draft = draft_name(id).ok_or_else(|| self.foreign(name))?;
        match self.database(&name.database).await? {
            Some(found) if found.comment.as_ref() != Some(&marker) => {
                self.drop_draft(&draft, &marker).await?;
                return Err(self.foreign(name));
            }
            Some(found) if !found.is_invalid => return Ok(()),
            Some(_) => self.long(format!("DROP DATABASE \"{}\"", name.database)).await?,
            None => {}
        }
        let mut made = self.database(&draft).await?;
        if made.as_ref().is_some_and(|found| found.is_invalid) {
            self.long(format!("DROP DATABASE \"{draft}\"")).await?;
            made = None;
        }
        if made.is_none() {
            self.create_database(&draft, template).await?;
        }
        self.execute(format!("COMMENT ON DATABASE \"{draft}\" IS '{marker}'"), TO_ANSWER).await?;
        let rename = format!("ALTER DATABASE \"{draft}\" RENAME TO \"{}\"", name.database);
        match self.execute(rename, TO_ANSWER).await {
            Err(error) if error.is(Step::Duplicate) => {
                self.drop_draft(&draft, &marker).await?;
                Err(self.foreign(name))
            }
            other => other,
        }
    }

    async fn create_database(
        &mut self,
        draft: &DatabaseName,
        template: Option<&DatabaseName>,
    ) -> Result<(), DatabaseError> {
        if self.is_worked_on(draft.as_str()).await? {
            return Err(DatabaseError::BeingMade { address: self.address.clone() });
        }
        let Some(template) = template else {
            return self.long(format!("CREATE DATABASE \"{draft}\"")).await;
        };
        if self.database(template).await?.is_none() {
            return Err(DatabaseError::NoTemplate {
                address: self.address.clone(),
                template: template.to_string(),
            });
        }
        let in_use = self.sessions(template).await?;
        if !in_use.is_empty() {
            return Err(DatabaseError::TemplateInUse { template: template.to_string(), by: in_use });
        }
        // Copying files is what a file system can do without copying, and what does not write all of it to the
        // write-ahead log as well (PostgreSQL manual, CREATE DATABASE, "STRATEGY").
        let strategy = if self.version >= WITH_STRATEGY { " STRATEGY = FILE_COPY" } else { "" };
        let create = format!("CREATE DATABASE \"{draft}\" TEMPLATE \"{template}\"{strategy}");
        let shares_blocks = self.version >= WITH_COPY_METHOD
            && self.execute("SET file_copy_method = clone".to_owned(), TO_ANSWER).await.is_ok();
        let mut created = self.long(create.clone()).await;
        if shares_blocks && created.as_ref().is_err_and(|error| error.is(Step::FileSystem)) {
            self.execute("SET file_copy_method = copy".to_owned(), TO_ANSWER).await?;
            created = self.long(create).await;
        }
        match created {
            // Since our look somebody has connected.
            Err(error) if error.is(Step::InUse) => {
                let by = self.sessions(template).await?;
                Err(DatabaseError::TemplateInUse { template: template.to_string(), by })
            }
            other => other,
        }
    }

    /// Runs a statement that may take as long as a copy does.
    pub(super) async fn long(&mut self, sql: String) -> Result<(), DatabaseError> {
        self.execute("SET statement_timeout = '30min'".to_owned(), TO_ANSWER).await?;
        self.execute(sql, TO_COPY).await?;
        self.execute("SET statement_timeout = '15s'".to_owned(), TO_ANSWER).await
    }

    /// Drops a database that was made and never got its own name. The name says whose it is; a comment that says
    /// otherwise goes before that.
    async fn drop_draft(&mut self, draft: &DatabaseName, marker: &str) -> Result<(), DatabaseError> {
        match self.database(draft).await? {
            Some(found) if found.comment.as_deref().is_none_or(|comment| comment == marker) => {
                self.long(format!("DROP DATABASE \"{draft}\"")).await
            }
            _ => Ok(()),
        }
    }

    /// The comment on a schema, where there is the schema.
    async fn schema_comment(&mut self, schema: &SchemaName) -> Result<Option<Option<String>>, DatabaseError> {
        let sql = "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = $1";
        let row = self.optional_row(sql, schema.as_str()).await?;
        row.map(|row| row.try_get(0)).transpose().map_err(|error| self.failed(error))
    }

    /// The database of this name, where there is one.
    pub async fn database(&mut self, name: &DatabaseName) -> Result<Option<FoundDatabase>, DatabaseError> {
        let sql = "SELECT shobj_description(oid, 'pg_database'), datistemplate, datconnlimit
                   FROM pg_database WHERE datname = $1";
        let row = self.optional_row(sql, name.as_str()).await?;
        let found = |row: PgRow| {
            let limit: i32 = row.try_get(2)?;
            Ok(FoundDatabase {
                comment: row.try_get(0)?,
                is_template: row.try_get(1)?,
                is_invalid: limit == INVALID,
            })
        };
        row.map(found).transpose().map_err(|error| self.failed(error))
    }

    /// The programs that are connected to a database, such as `3 sessions of psql, app`; empty when none is.
    pub async fn sessions(&mut self, database: &DatabaseName) -> Result<String, DatabaseError> {
        let sql = "SELECT count(*), string_agg(DISTINCT NULLIF(application_name, ''), ', ')
                   FROM pg_stat_activity
                   WHERE datname = $1 AND pid <> pg_backend_pid() AND backend_type = 'client backend'";
        let Some(row) = self.optional_row(sql, database.as_str()).await? else { return Ok(String::new()) };
        let text = |row: &PgRow| {
            let (count, programs): (i64, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
            let of = programs.map(|programs| format!(" of {programs}")).unwrap_or_default();
            Ok(match count {
                0 => String::new(),
                1 => format!("1 session{of}"),
                many => format!("{many} sessions{of}"),
            })
        };
        text(&row).map_err(|error| self.failed(error))
    }

    /// Whether a statement that names `text` still runs in another session: one whose client is gone ends only when it is
    /// done.
    pub(super) async fn is_worked_on(&mut self, text: &str) -> Result<bool, DatabaseError> {
        let sql = "SELECT 1 FROM pg_stat_activity
                   WHERE pid <> pg_backend_pid() AND state = 'active' AND strpos(query, $1) > 0 LIMIT 1";
        Ok(self.optional_row(sql, text).await?.is_some())
    }

    pub(super) async fn optional_row(
        &mut self,
        sql: &'static str,
        text: &str,
    ) -> Result<Option<PgRow>, DatabaseError> {
        let question = sqlx::query(sql).bind(text).fetch_optional(&mut self.connection);
        bounded(&self.address, TO_ANSWER, question).await
    }

    /// The first column of every row, as text.
    pub(super) async fn texts(
        &mut self,
        sql: &'static str,
        text: &str,
    ) -> Result<Vec<String>, DatabaseError> {
        let question = sqlx::query(sql).bind(text).fetch_all(&mut self.connection);
        let rows = bounded(&self.address, TO_ANSWER, question).await?;
        let texts: Result<_, Error> = rows.iter().map(|row| row.try_get(0)).collect();
        texts.map_err(|error| self.failed(error))
    }

    pub(super) async fn execute_short(&mut self, sql: String) -> Result<(), DatabaseError> {
        self.execute(sql, TO_ANSWER).await
    }

    pub(super) async fn execute_long(&mut self, sql: String) -> Result<(), DatabaseError> {
        self.execute(sql, TO_COPY).await
    }

    async fn execute(&mut self, sql: String, within: Duration) -> Result<(), DatabaseError> {
        let statement = sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut self.connection);
        bounded(&self.address, within, statement).await.map(drop)
    }

    pub(super) fn foreign(&self, name: &ObjectName) -> DatabaseError {
        DatabaseError::Foreign { address: self.address.clone(), object: name.to_string() }
    }

    pub(super) fn failed(&self, error: Error) -> DatabaseError {
        DatabaseError::of(&self.address, error)
    }
}

async fn bounded<T>(
    address: &ServerAddress,
    within: Duration,
    question: impl Future<Output = Result<T, Error>>,
) -> Result<T, DatabaseError> {
    match tokio::time::timeout(within, question).await {
        Ok(answer) => answer.map_err(|error| DatabaseError::of(address, error)),
        Err(_) => Err(DatabaseError::TimedOut { address: address.clone(), within }),
    }
}
