//! Opening the registry: one daemon at a time, on a file system that can keep it, and never over what is there.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use sqlx::migrate::MigrateError;
use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqliteSynchronous};
use sqlx::{Connection, Row};
use wtd_protocol::routes;

use super::{History, StoreError, migrations};

/// The file in the state directory.
const FILE_NAME: &str = "registry.db";

/// A symbolic link in place of a file of ours is not followed (open(2)).
#[allow(clippy::cast_possible_wrap, reason = "the flag is a small number")]
const NO_FOLLOW: i32 = rustix::fs::OFlags::NOFOLLOW.bits() as i32;

/// `PRAGMA application_id` of a registry: "wtd" and a zero.
const APPLICATION_ID: i32 = 0x7774_6400;

/// The first SQLite without the WAL-reset bug.
const OLDEST_SQLITE: [u32; 3] = [3, 51, 3];

/// What stands before the socket in a daemon's description of itself.
const SERVING: &str = " serving ";

/// What stands before the process id in it.
const WITH_ID: &str = "wtd with process id ";

/// How a daemon describes itself to another one that wants the same registry.
pub fn describe(socket: &Path) -> String {
    format!("{WITH_ID}{}{SERVING}{}", std::process::id(), socket.display())
}

/// Whether the daemon that described itself so is no more. One in another PID namespace can't be seen either.
fn has_ended(description: &str) -> bool {
    let id = description.strip_prefix(WITH_ID).and_then(|rest| rest.split_once(SERVING)).map(|(id, _)| id);
    id.and_then(|id| id.parse().ok())
        .and_then(Pid::from_raw)
        .is_some_and(|id| test_kill_process(id) == Err(Errno::SRCH))
}

/// Whether a daemon answers on `socket` at once.
fn answers(socket: &Path) -> bool {
    let ask = || {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(ANSWERING))?;
        write!(
            stream,
            "GET {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n",
            routes::HEALTH,
            routes::HOST
        )?;
        stream.read(&mut [0])
    };
    ask().is_ok_and(|length| length > 0)
}

/// How long it is given for that before the lock is tried again.
const ANSWERING: Duration = Duration::from_millis(50);

/// How long a daemon without a socket has to make one, or to let go of the registry.
const VACATING: Duration = Duration::from_secs(1);

/// File systems of the network and of user space, by `statfs` magic (statfs(2)): SQLite's WAL needs shared memory
/// and locks that these don't give for sure.
const NETWORK_FILE_SYSTEMS: [u64; 8] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB2
    0x0102_1997, // 9p
    0x7375_7245, // Coda
    0x5346_414f, // AFS
    0x00c3_6400, // Ceph
];

/// The open registry.
#[derive(Debug)]
pub struct Registry {
    pub(super) connection: SqliteConnection,
    place: Place,
    options: SqliteConnectOptions,
    /// Held as long as the registry is open; the kernel lets go of it whatever becomes of the process.
    _lock: File,
}

/// The registry's files, as they were when they were opened.
#[derive(Debug, Clone)]
pub struct Place {
    /// The registry's file.
    pub path: PathBuf,
    /// Its write-ahead log.
    log: PathBuf,
    /// Device and inode of both, where they were there.
    opened: [Option<(u64, u64)>; 2],
}

impl Place {
    fn of(path: &Path) -> Self {
        let mut log = path.as_os_str().to_owned();
        log.push("-wal");
        let mut place = Self { path: path.to_owned(), log: log.into(), opened: [None; 2] };
        place.opened = place.now();
        place
    }

    fn now(&self) -> [Option<(u64, u64)>; 2] {
        let identity = |path: &Path| path.metadata().ok().map(|there| (there.dev(), there.ino()));
        [identity(&self.path), identity(&self.log)]
    }

    /// Takes the log away from a file that has taken the registry's place: it is not that one's, and SQLite would take
    /// it for that. Called when the registry is closed.
    pub(super) fn withdraw_log(&self) -> std::io::Result<()> {
        let ([file, log], [file_now, log_now]) = (self.opened, self.now());
        if file_now.is_some() && file_now != file && log.is_some() && log_now == log {
            std::fs::remove_file(&self.log)?;
        }
        Ok(())
    }

    /// Whether the files are those that were opened: SQLite goes on writing to one that was unlinked, and says nothing.
    pub fn check(&self) -> Result<(), StoreError> {
        let in_place = self.opened.iter().zip(self.now()).all(|(then, now)| then.is_none() || *then == now);
        if in_place { Ok(()) } else { Err(StoreError::Replaced(self.path.clone())) }
    }
}

/// Opens the registry in `state_dir`, making it on the first start. `self_description` is what another daemon that
/// wants the same registry is told about this one.
pub async fn open(state_dir: &Path, self_description: &str) -> Result<Registry, StoreError> {
    let state_directory = |source| StoreError::StateDirectory { path: state_dir.to_owned(), source };
    DirBuilder::new().recursive(true).mode(0o700).create(state_dir).map_err(state_directory)?;
    check_directory(state_dir)?;
    let path = state_dir.join(FILE_NAME);
    if path.to_str().is_none() {
        return Err(StoreError::NotUtf8(path));
    }
    let file_system = rustix::fs::statfs(state_dir).map_err(|errno| state_directory(errno.into()))?;
    // The field's type differs between platforms; magic numbers are 32 bits on all of them.
    #[allow(clippy::cast_sign_loss, clippy::unnecessary_cast, reason = "the type differs between platforms")]
    if NETWORK_FILE_SYSTEMS.contains(&(file_system.f_type as u64 & 0xffff_ffff)) {
        return Err(StoreError::NetworkFileSystem(path));
    }
    let lock = lock_with_holder(&path, self_description).await?;
    let careful = SqliteConnectOptions::new()
        .filename(&path)
        // Rows come from a thread of their own: the more at a time, the fewer turns.
        .row_buffer_size(1_000)
        .create_if_missing(false)
        .busy_timeout(Duration::from_secs(2))
        .pragma("trusted_schema", "OFF")
        .pragma("cell_size_check", "ON");
    let options = careful
        .clone()
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true);
    match path.try_exists() {
        Ok(true) => check_header(&path)?,
        Ok(false) => create(&path, &options).await?,
        Err(source) => return Err(state_directory(source)),
    }
    check(&path, &careful.read_only(true)).await?;
    let mut connection = connect(&path, &options).await?;
    migrate(&path, &mut connection).await?;
    Ok(Registry { connection, place: Place::of(&path), options, _lock: lock })
}

/// Whether what is there is a registry that this version can use. Looked at without leave to write: whoever opens a
/// database for writing brings its log home when they close it, whatever they think of the content.
async fn check(path: &Path, options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let mut connection = connect(path, options).await?;
    check_library(path, &mut connection).await?;
    check_content(path, &mut connection).await?;
    version(path, &mut connection).await?;
    connection.close().await.map_err(StoreError::from)
}

impl Registry {
    /// The registry's file.
    pub fn path(&self) -> &Path {
        &self.place.path
    }

    /// The registry's files.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// A reader of the history, beside this connection.
    pub fn history(&self) -> History {
        History { options: self.options.clone().read_only(true) }
    }

    /// Replaces the connection by a fresh one. Where that fails the next write fails too, and tries again.
    pub(super) async fn reconnect(&mut self) {
        match SqliteConnection::connect_with(&self.options).await {
            Ok(fresh) => {
                let old = std::mem::replace(&mut self.connection, fresh);
                if let Err(error) = old.close_hard().await {
                    tracing::debug!(error = &error as &dyn std::error::Error, "old connection not closed");
                }
            }
            Err(error) => tracing::warn!(error = &error as &dyn std::error::Error, "no fresh connection"),
        }
    }

    pub(super) fn corrupt(&self, why: String) -> StoreError {
        StoreError::Corrupt { path: self.place.path.clone(), why }
    }
}

/// The lock beside a registry.
pub fn lock_file(registry: &Path) -> PathBuf {
    registry.with_extension("lock")
}

/// In a directory that others can write, what lies there need not be ours: a lock can be a link to anything.
pub fn check_directory(state_dir: &Path) -> Result<(), StoreError> {
    let there = state_dir
        .metadata()
        .map_err(|source| StoreError::StateDirectory { path: state_dir.to_owned(), source })?;
    let foreign = |why: String| Err(StoreError::ForeignDirectory { path: state_dir.to_owned(), why });
    if there.uid() != rustix::process::geteuid().as_raw() {
        return foreign(format!("uid {} owns it", there.uid()));
    }
    if there.mode() & 0o002 != 0 {
        return foreign(format!("its mode is {:o}", there.mode() & 0o7777));
    }
    Ok(())
}

/// As [`lock`]. A holder that has only just taken the lock is given a moment to say who it is and to make its socket; one
/// whose socket is gone notices that now, and ends (see [`crate::vacancy`]). Of one that was killed while it started git,
/// lock and socket live on in that child until it becomes git (fork(2), `O_CLOEXEC` in open(2)); and while the kernel takes
/// down one that was killed, its socket still takes connections. So it is an answer that shows that somebody is there.
async fn lock_with_holder(registry: &Path, self_description: &str) -> Result<File, StoreError> {
    let end = Instant::now() + VACATING;
    loop {
        match lock(registry, self_description) {
            Err(StoreError::Held { socket, holder, .. })
                if Instant::now() < end && (!answers(&socket) || has_ended(&holder)) =>
            {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            settled => return settled,
        }
    }
}

/// Takes the lock beside the registry. It lies there and not in the runtime directory, so that two daemons with
/// different runtime directories still meet.
fn lock(registry: &Path, self_description: &str) -> Result<File, StoreError> {
    let path = lock_file(registry);
    let failed = |source| StoreError::StateDirectory { path: path.clone(), source };
    let mut lock = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(NO_FOLLOW)
        .open(&path)
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {
            lock.set_len(0).and_then(|()| lock.write_all(self_description.as_bytes())).map_err(failed)?;
            Ok(lock)
        }
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            (&lock).take(1024).read_to_string(&mut holder).map_err(failed)?;
            let socket_of =
                |description: &str| description.split_once(SERVING).map(|(_, socket)| PathBuf::from(socket));
            let (socket, ours) = (socket_of(&holder).unwrap_or_default(), socket_of(self_description));
            let serves_our_socket = holder.is_empty() || ours.as_ref() == Some(&socket);
            Err(StoreError::Held { path: registry.to_owned(), holder, socket, serves_our_socket })
        }
        Err(TryLockError::Error(source)) => Err(failed(source)),
    }
}

/// Makes a registry under another name and moves it into place, so that a half-made one is never taken for one
/// whose content was lost.
async fn create(path: &Path, options: &SqliteConnectOptions) -> Result<(), StoreError> {
    let draft = path.with_extension("db.new");
    let failed = |source| StoreError::StateDirectory { path: draft.clone(), source };
    for leftover in ["db.new", "db.new-wal", "db.new-shm"] {
        match std::fs::remove_file(path.with_extension(leftover)) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => return Err(failed(source)),
            _ => {}
        }
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
    let options = options.clone().filename(&draft).pragma("application_id", APPLICATION_ID.to_string());
    let mut connection = SqliteConnection::connect_with(&options).await?;
    migrations::all()
        .run(&mut connection)
        .await
        .map_err(|source| StoreError::Migrate { path: draft.clone(), source })?;
    connection.close().await?;
    file.sync_all().map_err(failed)?;
    std::fs::rename(&draft, path).map_err(failed)?;
    let directory = path.parent().unwrap_or(path);
    File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed)
}

/// What is no SQLite database is told from one before SQLite could take it for an empty file.
fn check_header(path: &Path) -> Result<(), StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { path: path.to_owned(), why };
    let metadata = path.metadata().map_err(|why| corrupt(why.to_string()))?;
    if !metadata.is_file() {
        return Err(corrupt("it is not a file".to_owned()));
    }
    let mut header = [0; 16];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut header));
    match read {
        Ok(()) if header == *b"SQLite format 3\0" => Ok(()),
        Ok(()) => Err(corrupt("it is not a SQLite database".to_owned())),
        Err(why) if why.kind() == std::io::ErrorKind::UnexpectedEof => {
            Err(corrupt(format!("it is cut off after {} bytes", metadata.len())))
        }
        Err(source) => Err(StoreError::StateDirectory { path: path.to_owned(), source }),
    }
}

async fn connect(path: &Path, options: &SqliteConnectOptions) -> Result<SqliteConnection, StoreError> {
    SqliteConnection::connect_with(options).await.map_err(|error| damage(path, error))
}

/// SQLite's own word for damage (result codes 11 and 26, in the low byte of an extended one) is told as such.
fn damage(path: &Path, error: sqlx::Error) -> StoreError {
    let code = error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .map(std::borrow::Cow::into_owned);
    match code.and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff) {
        Some(11 | 26) => StoreError::Corrupt { path: path.to_owned(), why: error.to_string() },
        _ => StoreError::Sql(error),
    }
}

async fn check_library(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    // The first statement, for which SQLite reads the schema.
    let row = sqlx::query("SELECT sqlite_version()")
        .fetch_one(connection)
        .await
        .map_err(|error| damage(path, error))?;
    let version: String = row.try_get(0)?;
    let parts: Vec<u32> = version.split('.').map_while(|part| part.parse().ok()).collect();
    if parts.as_slice() < OLDEST_SQLITE.as_slice() { Err(StoreError::OldSqlite(version)) } else { Ok(()) }
}

async fn check_content(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let corrupt = |why: String| StoreError::Corrupt { path: path.to_owned(), why };
    let row = sqlx::query("PRAGMA application_id")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| damage(path, error))?;
    if row.try_get::<i32, _>(0)? != APPLICATION_ID {
        return Err(corrupt("it is another program's database".to_owned()));
    }
    let row = sqlx::query("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|error| damage(path, error))?;
    let verdict: String = row.try_get(0)?;
    if verdict == "ok" { Ok(()) } else { Err(corrupt(verdict)) }
}

/// The version that this one brings a registry to.
fn newest() -> i64 {
    migrations::all().iter().map(|migration| migration.version).max().unwrap_or_default()
}

/// The schema's version, unless that is a later one than we know.
async fn version(path: &Path, connection: &mut SqliteConnection) -> Result<i64, StoreError> {
    let row = sqlx::query("SELECT COALESCE(MAX(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await
        .map_err(|error| damage(path, error))?;
    let version: i64 = row.try_get(0)?;
    if version > newest() { Err(StoreError::Newer { path: path.to_owned(), version }) } else { Ok(version) }
}

/// Brings an older registry up to date, after a copy of it was put aside.
async fn migrate(path: &Path, connection: &mut SqliteConnection) -> Result<(), StoreError> {
    let version = version(path, connection).await?;
    if version < newest() {
        let copy = path.with_extension(format!("db.{version}"));
        match std::fs::remove_file(&copy) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::StateDirectory { path: copy, source });
            }
            _ => {}
        }
        sqlx::query("VACUUM INTO ?1")
            .bind(copy.to_string_lossy().into_owned())
            .execute(&mut *connection)
            .await?;
    }
    migrations::all().run(connection).await.map_err(|source| match source {
        MigrateError::VersionMissing(version) => StoreError::Newer { path: path.to_owned(), version },
        source => StoreError::Migrate { path: path.to_owned(), source },
    })
}
