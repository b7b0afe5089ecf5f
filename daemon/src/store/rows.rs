//! Rows of the registry to values and back.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsString;
use std::num::NonZeroU16;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{Error, Row};
use uuid::Uuid;
use wtd_protocol::variable::Variable;
use wtd_protocol::{Change, ChangeKind, PassedOver, State};

use crate::domain::allocation::{Allocation, DatabaseVolume, Ending, Moment, Repository};
use crate::domain::allocator::Obstacle;
use crate::domain::content_hash::ContentHash;
use crate::domain::database_objects::{DatabaseObject, ObjectName, ServerAddress, Stage, SystemIdentifier};
use crate::domain::identity::{AllocationId, FileIdentity, RepositoryId};
use crate::domain::names::{DatabaseName, NameError, SchemaName, VolumeName};
use crate::domain::offset::Offset;
use crate::domain::ports::Port;
use crate::domain::project::DatabaseMode;
use crate::wire;

/// What tables of their own have of allocations that are to be read.
#[derive(Debug, Default)]
pub(super) struct Parts {
    ports: HashMap<AllocationId, Vec<(Variable, Port)>>,
    volumes: HashMap<AllocationId, Volumes>,
    objects: HashMap<AllocationId, Vec<DatabaseObject>>,
}

/// The volumes of one allocation.
#[derive(Debug, Default)]
struct Volumes {
    current: BTreeMap<String, VolumeName>,
    former: BTreeSet<VolumeName>,
}

pub(super) fn bytes(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// A value that the schema allows and the daemon does not: somebody else wrote it.
pub(super) fn foreign(column: &str, why: impl std::fmt::Display) -> Error {
    Error::ColumnDecode { index: column.to_owned(), source: why.to_string().into() }
}

pub(super) fn uuid(row: &SqliteRow, column: &str) -> Result<Uuid, Error> {
    Uuid::try_parse(row.try_get(column)?).map_err(|why| foreign(column, why))
}

fn os_string(row: &SqliteRow, column: &str) -> Result<Option<OsString>, Error> {
    Ok(row.try_get::<Option<Vec<u8>>, _>(column)?.map(OsString::from_vec))
}

fn path(row: &SqliteRow, column: &str) -> Result<PathBuf, Error> {
    Ok(os_string(row, column)?.ok_or_else(|| foreign(column, "no path"))?.into())
}

fn identity(row: &SqliteRow) -> Result<FileIdentity, Error> {
    Ok(FileIdentity {
        device: row.try_get::<i64, _>("device")?.cast_unsigned(),
        inode: row.try_get::<i64, _>("inode")?.cast_unsigned(),
        born_ns: row.try_get("born_ns")?,
    })
}

/// A word that stands for one of several values.
fn word<T>(row: &SqliteRow, column: &str, from_word: impl Fn(&str) -> Option<T>) -> Result<T, Error> {
    let word: &str = row.try_get(column)?;
    from_word(word).ok_or_else(|| foreign(column, word))
}

/// A name of a validated type; none where the column is NULL.
fn name<T: FromStr<Err = NameError>>(row: &SqliteRow, column: &str) -> Result<Option<T>, Error> {
    let name: Option<&str> = row.try_get(column)?;
    name.map(|name| name.parse().map_err(|why| foreign(column, why))).transpose()
}

pub(super) fn json<T: for<'de> Deserialize<'de>>(row: &SqliteRow, column: &str) -> Result<T, Error> {
    serde_json::from_str(row.try_get(column)?).map_err(|why| foreign(column, why))
}

pub(super) fn to_json(value: &impl Serialize) -> Result<String, Error> {
    serde_json::to_string(value).map_err(|why| Error::Encode(why.into()))
}

/// Records how something ended that has this id; `update` takes the moment, the outcome and the id.
pub(super) async fn end(
    connection: &mut SqliteConnection,
    update: &'static str,
    id: &str,
    outcome: &str,
    now: Moment,
) -> Result<(), Error> {
    sqlx::query(update).bind(now.0).bind(outcome).bind(id).execute(connection).await.map(drop)
}

pub(super) fn repository(row: &SqliteRow) -> Result<Repository, Error> {
    Ok(Repository {
        id: RepositoryId(uuid(row, "id")?),
        common_dir: path(row, "common_dir")?,
        identity: identity(row)?,
        main_root: os_string(row, "main_root")?.map(PathBuf::from),
        watched: row.try_get("watched")?,
    })
}

pub(super) fn trusted(row: &SqliteRow) -> Result<(RepositoryId, ContentHash), Error> {
    let hash = row.try_get::<Vec<u8>, _>("sha256")?;
    let hash = hash.try_into().map_err(|_| foreign("sha256", "not 32 bytes"))?;
    Ok((RepositoryId(uuid(row, "repository")?), ContentHash(hash)))
}

/// The variables that templates have made.
fn env(row: &SqliteRow) -> Result<BTreeMap<Variable, String>, Error> {
    let values: BTreeMap<String, String> = json(row, "env")?;
    let variable = |(name, value): (String, String)| {
        Variable::new(&name).map(|name| (name, value)).map_err(|why| foreign("env", why))
    };
    values.into_iter().map(variable).collect()
}

impl Parts {
    pub(super) fn add_port(&mut self, row: &SqliteRow) -> Result<(), Error> {
        let variable = Variable::new(row.try_get("variable")?).map_err(|why| foreign("variable", why))?;
        let base = NonZeroU16::new(row.try_get("base")?).ok_or_else(|| foreign("base", "port 0"))?;
        let port = Port { base, port: row.try_get("port")?, shared: row.try_get("shared")? };
        self.ports.entry(AllocationId(uuid(row, "allocation")?)).or_default().push((variable, port));
        Ok(())
    }

    pub(super) fn add_volume(&mut self, row: &SqliteRow) -> Result<(), Error> {
        let name = VolumeName::new(row.try_get("name")?).map_err(|why| foreign("name", why))?;
        let of_allocation = self.volumes.entry(AllocationId(uuid(row, "allocation")?)).or_default();
        match row.try_get::<Option<String>, _>("variable")? {
            Some(variable) => drop(of_allocation.current.insert(variable, name)),
            None => drop(of_allocation.former.insert(name)),
        }
        Ok(())
    }

    pub(super) fn add_object(&mut self, row: &SqliteRow) -> Result<(), Error> {
        let object = DatabaseObject {
            name: ObjectName {
                database: name(row, "database")?.ok_or_else(|| foreign("database", "no database"))?,
                schema: name(row, "schema")?,
            },
            server: SystemIdentifier(row.try_get("server")?),
            address: ServerAddress { host: row.try_get("host")?, port: row.try_get("port")? },
            stage: word(row, "stage", Stage::from_word)?,
        };
        self.objects.entry(AllocationId(uuid(row, "allocation")?)).or_default().push(object);
        Ok(())
    }
}

/// An allocation, with those of the parts that are its own.
pub(super) fn allocation(row: &SqliteRow, parts: &mut Parts) -> Result<Allocation, Error> {
    let id = AllocationId(uuid(row, "id")?);
    let Volumes { mut current, former } = parts.volumes.remove(&id).unwrap_or_default();
    let own = current.remove(wtd_protocol::variable::DB_VOLUME).map(DatabaseVolume::Own);
    let shared = name(row, "shared_volume")?.map(DatabaseVolume::Shared);
    let volume = shared.or(own).ok_or_else(|| foreign("id", "no DB_VOLUME"))?;
    let variable = |(name, volume): (String, VolumeName)| {
        Variable::new(&name).map(|name| (name, volume)).map_err(|why| foreign("variable", why))
    };
    let ending: Option<&str> = row.try_get("ending")?;
    let passed_over: Vec<PassedOver> = json(row, "passed_over")?;
    Ok(Allocation {
        id,
        repository: RepositoryId(uuid(row, "repository")?),
        worktree_id: os_string(row, "worktree_id")?,
        git_dir: path(row, "git_dir")?,
        identity: identity(row)?,
        path: path(row, "path")?,
        device: row.try_get::<i64, _>("path_device")?.cast_unsigned(),
        finished: row.try_get("finished")?,
        offset: Offset(row.try_get("offset")?),
        ports: parts.ports.remove(&id).unwrap_or_default().into_iter().collect(),
        project: row.try_get("project")?,
        project_is_configured: row.try_get("project_is_configured")?,
        mode: word(row, "mode", DatabaseMode::from_word)?,
        volume,
        volumes: current.into_iter().map(variable).collect::<Result<_, _>>()?,
        former_volumes: former,
        shared_volumes: BTreeSet::new(),
        compose: None,
        database: name(row, "database")?.ok_or_else(|| foreign("database", "no database"))?,
        schema: name(row, "schema")?,
        template: name(row, "template")?,
        objects: parts.objects.remove(&id).unwrap_or_default(),
        compose_project: name(row, "compose_project")?,
        env: env(row)?,
        untrusted: row.try_get("untrusted")?,
        state: word(row, "state", State::from_word)?,
        reason: row.try_get("reason")?,
        since: Moment(row.try_get("since")?),
        created: Moment(row.try_get("created")?),
        ending: ending
            .map(|word| Ending::from_word(word).ok_or_else(|| foreign("ending", word)))
            .transpose()?,
        passed_over: passed_over
            .into_iter()
            .map(|PassedOver { offset, variable, port, reason }| Obstacle {
                offset: Offset(offset),
                variable,
                port,
                reason,
            })
            .collect(),
        warnings: json(row, "warnings")?,
    })
}

pub(super) async fn put(connection: &mut SqliteConnection, allocation: &Allocation) -> Result<(), Error> {
    let id = allocation.id.to_string();
    // The ports and volumes go first, so that a release or a change never meets its own former rows.
    for clear in [
        "DELETE FROM ports WHERE allocation = ?1",
        "DELETE FROM volumes WHERE allocation = ?1",
        "DELETE FROM database_objects WHERE allocation = ?1",
    ] {
        sqlx::query(clear).bind(&id).execute(&mut *connection).await?;
    }
    let passed_over: Vec<PassedOver> = allocation.passed_over.iter().map(wire::passed_over).collect();
    sqlx::query(
        "INSERT INTO allocations (id, repository, worktree_id, git_dir, device, inode, born_ns, path, path_device, finished,
             offset, project, database, compose_project, state, reason, since, created, ending, passed_over, warnings,
             mode, shared_volume, schema, template, env, untrusted, project_is_configured)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28)
         ON CONFLICT (id) DO UPDATE SET repository = ?2, worktree_id = ?3, git_dir = ?4, device = ?5, inode = ?6, born_ns = ?7,
             path = ?8, path_device = ?9, finished = ?10, offset = ?11, project = ?12, database = ?13, compose_project = ?14,
             state = ?15, reason = ?16, since = ?17, created = ?18, ending = ?19, passed_over = ?20, warnings = ?21,
             mode = ?22, shared_volume = ?23, schema = ?24, template = ?25, env = ?26, untrusted = ?27,
             project_is_configured = ?28",
    )
    .bind(&id)
    .bind(allocation.repository.to_string())
    .bind(allocation.worktree_id.as_ref().map(|id| id.as_bytes()))
    .bind(bytes(&allocation.git_dir))
    .bind(allocation.identity.device.cast_signed())
    .bind(allocation.identity.inode.cast_signed())
    .bind(allocation.identity.born_ns)
    .bind(bytes(&allocation.path))
    .bind(allocation.device.cast_signed())
    .bind(allocation.finished)
    .bind(allocation.offset.0)
    .bind(&allocation.project)
    .bind(allocation.database.to_string())
    .bind(allocation.compose_project.as_ref().map(ToString::to_string))
    .bind(allocation.state.as_str())
    .bind(&allocation.reason)
    .bind(allocation.since.0)
    .bind(allocation.created.0)
    .bind(allocation.ending.map(Ending::as_str))
    .bind(to_json(&passed_over)?)
    .bind(to_json(&allocation.warnings)?)
    .bind(allocation.mode.as_str())
    .bind(match &allocation.volume {
        DatabaseVolume::Own(_) => None,
        DatabaseVolume::Shared(name) => Some(name.as_str()),
    })
    .bind(allocation.schema.as_ref().map(SchemaName::as_str))
    .bind(allocation.template.as_ref().map(DatabaseName::as_str))
    .bind(to_json(&allocation.env)?)
    .bind(allocation.untrusted)
    .bind(allocation.project_is_configured)
    .execute(&mut *connection)
    .await?;
    if allocation.state == State::Released {
        return super::gc::delete_looks(connection, &id).await;
    }
    put_ports(connection, &id, allocation).await?;
    put_volumes(connection, &id, allocation).await?;
    put_objects(connection, &id, allocation).await
}

async fn put_ports(
    connection: &mut SqliteConnection,
    id: &str,
    allocation: &Allocation,
) -> Result<(), Error> {
    let rows: Vec<_> = allocation
        .ports
        .iter()
        .map(|(name, port)| (name.as_str(), port.base, port.port, port.shared))
        .collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO ports (allocation, variable, base, port, shared)
         SELECT ?1, value ->> 0, value ->> 1, value ->> 2, value ->> 3 FROM json_each(?2)",
    )
    .bind(id)
    .bind(to_json(&rows)?)
    .execute(connection)
    .await
    .map(drop)
}

async fn put_volumes(
    connection: &mut SqliteConnection,
    id: &str,
    allocation: &Allocation,
) -> Result<(), Error> {
    let mut rows = Vec::new();
    if let DatabaseVolume::Own(name) = &allocation.volume {
        rows.push((Some(wtd_protocol::variable::DB_VOLUME), name.to_string()));
    }
    rows.extend(allocation.volumes.iter().map(|(name, volume)| (Some(name.as_str()), volume.to_string())));
    rows.extend(allocation.former_volumes.iter().map(|volume| (None, volume.to_string())));
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO volumes (allocation, variable, name) SELECT ?1, value ->> 0, value ->> 1 FROM json_each(?2)",
    )
    .bind(id)
    .bind(to_json(&rows)?)
    .execute(connection)
    .await
    .map(drop)
}

async fn put_objects(
    connection: &mut SqliteConnection,
    id: &str,
    allocation: &Allocation,
) -> Result<(), Error> {
    for object in &allocation.objects {
        sqlx::query(
            "INSERT INTO database_objects (allocation, database, schema, server, host, port, stage)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )
        .bind(id)
        .bind(object.name.database.as_str())
        .bind(object.name.schema.as_ref().map(SchemaName::as_str))
        .bind(object.server.0)
        .bind(&object.address.host)
        .bind(object.address.port)
        .bind(object.stage.as_str())
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

pub(super) async fn append_history(
    connection: &mut SqliteConnection,
    allocation: &Allocation,
    kind: ChangeKind,
    wire: &wtd_protocol::Allocation,
    now: Moment,
) -> Result<i64, Error> {
    let done = sqlx::query(
        "INSERT INTO history (at, kind, allocation, offset, path, detail) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
    )
    .bind(now.0)
    .bind(kind.as_str())
    .bind(allocation.id.to_string())
    .bind(allocation.offset.0)
    .bind(bytes(&allocation.path))
    .bind(to_json(wire)?)
    .execute(connection)
    .await?;
    Ok(done.last_insert_rowid())
}

pub(super) fn change(row: &SqliteRow) -> Result<Change, Error> {
    let kind: &str = row.try_get("kind")?;
    Ok(Change {
        sequence: row.try_get("sequence")?,
        at: wire::time(Moment(row.try_get("at")?)),
        kind: serde_json::from_value(kind.into()).map_err(|why| foreign("kind", why))?,
        allocation: json(row, "detail")?,
    })
}
