//! Where a database server is, and with which credentials: as libpq finds them (PostgreSQL manual, 34.15 to 34.17). What
//! a service file says goes before the environment, and a password file is asked last.
//!
//! The port is not looked up: it is the one that the worktree's variables say.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read as _;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sqlx::ConnectOptions as _;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tracing::debug;

use crate::domain::database_objects::ServerAddress;
use crate::domain::database_url::{DatabaseUrl, Secret};

/// The largest password or service file that is read, in bytes.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// The database that every server has for those who want none in particular (PostgreSQL manual, 23.3).
const MAINTENANCE: &str = "postgres";

/// Why there is nowhere to connect to.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaceError {
    /// `PGSERVICE` names a service that no file has.
    #[error("the service {0:?} (PGSERVICE) is in no service file")]
    NoService(String),
    /// The server is on another machine, and wtd speaks no TLS.
    #[error(
        "{0} is another machine, and wtd does not encrypt; where the network is safe, set PGSSLMODE=disable for the daemon"
    )]
    Remote(String),
    /// The daemon is about to end.
    #[error("the daemon is shutting down")]
    ShuttingDown,
}

/// libpq's variables, as the daemon was started with them.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    settings: Settings,
    service: Option<String>,
    /// `PGSERVICEFILE`, else `~/.pg_service.conf`.
    service_file: Option<PathBuf>,
    /// `pg_service.conf` in `PGSYSCONFDIR`.
    system_service_file: Option<PathBuf>,
    /// `PGPASSFILE`, else `~/.pgpass`.
    password_file: Option<PathBuf>,
}

/// What a service or the environment says; none where it says nothing.
#[derive(Debug, Clone, Default)]
struct Settings {
    host: Option<String>,
    host_address: Option<String>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    ssl_mode: Option<String>,
}

impl Settings {
    fn of(url: &DatabaseUrl) -> Self {
        let DatabaseUrl { host, port: _, user, password, database, ssl_mode } = url.clone();
        // An address in the environment is that of another host.
        Self { host_address: host.clone(), host, user, password, database, ssl_mode }
    }

    fn or(self, lower: &Self) -> Self {
        let either = |this: Option<String>, lower: &Option<String>| this.or_else(|| lower.clone());
        Self {
            host: either(self.host, &lower.host),
            host_address: either(self.host_address, &lower.host_address),
            user: either(self.user, &lower.user),
            password: self.password.or_else(|| lower.password.clone()),
            database: either(self.database, &lower.database),
            ssl_mode: either(self.ssl_mode, &lower.ssl_mode),
        }
    }
}

/// A server that can be connected to. It has a password in it, so it is never shown.
#[derive(Clone)]
pub struct Place {
    /// Where it listens.
    pub address: ServerAddress,
    options: PgConnectOptions,
    database: Option<String>,
    passwords: Option<PathBuf>,
    has_password: bool,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Environment {
    /// Reads them through `variable`.
    pub fn read(variable: impl Fn(&str) -> Option<OsString>) -> Self {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |name: &str| home.as_ref().map(|home| home.join(name));
        Self {
            settings: Settings {
                host: text("PGHOST"),
                host_address: text("PGHOSTADDR"),
                user: text("PGUSER"),
                password: text("PGPASSWORD").map(Secret::new),
                database: text("PGDATABASE"),
                ssl_mode: text("PGSSLMODE"),
            },
            service: text("PGSERVICE"),
            service_file: path("PGSERVICEFILE").or_else(|| below_home(".pg_service.conf")),
            system_service_file: path("PGSYSCONFDIR").map(|directory| directory.join("pg_service.conf")),
            password_file: path("PGPASSFILE").or_else(|| below_home(".pgpass")),
        }
    }

    /// The server that a trusted URL leads to, or else the one on `port`. Reads files.
    pub fn place(&self, url: Option<&DatabaseUrl>, port: u16) -> Result<Place, PlaceError> {
        self.at(url, None, url.and_then(|url| url.port).unwrap_or(port))
    }

    /// The server at an address that was asked before. Reads files.
    pub fn place_at(&self, url: Option<&DatabaseUrl>, address: &ServerAddress) -> Result<Place, PlaceError> {
        // What a URL says of one server is of no other.
        let leads_there = |url: &&DatabaseUrl| {
            url.host.as_ref().is_none_or(|host| *host == address.host)
                && url.port.is_none_or(|port| port == address.port)
        };
        self.at(url.filter(leads_there), Some(&address.host), address.port)
    }

    fn at(&self, url: Option<&DatabaseUrl>, host: Option<&str>, port: u16) -> Result<Place, PlaceError> {
        let settings = self.service()?.unwrap_or_default().or(&self.settings);
        let settings = url.map(Settings::of).unwrap_or_default().or(&settings);
        let named = settings.host.as_deref().or(settings.host_address.as_deref()).unwrap_or("localhost");
        let host = host.unwrap_or(named);
        let connect_to = settings.host_address.as_deref().filter(|_| host == named).unwrap_or(host);
        let mut options =
            PgConnectOptions::new_without_pgpass().host(connect_to).port(port).application_name("wtd");
        if let Some(user) = &settings.user {
            options = options.username(user);
        }
        if let Some(password) = &settings.password {
            options = options.password(password.reveal());
        }
        let ssl_mode = settings.ssl_mode.as_deref().and_then(|mode| mode.parse().ok());
        if let Some(mode) = ssl_mode {
            options = options.ssl_mode(mode);
        }
        if !is_local(connect_to) && !matches!(ssl_mode, Some(PgSslMode::Disable)) {
            return Err(PlaceError::Remote(connect_to.to_owned()));
        }
        Ok(Place {
            address: ServerAddress { host: host.to_owned(), port },
            options: options.extra_float_digits(None).disable_statement_logging(),
            database: settings.database,
            passwords: self.password_file.clone(),
            has_password: settings.password.is_some(),
        })
    }

    /// What the service file says of the service that is asked for, if one is.
    fn service(&self) -> Result<Option<Settings>, PlaceError> {
        let Some(name) = &self.service else { return Ok(None) };
        let files = [&self.service_file, &self.system_service_file].into_iter().flatten();
        let found = files.filter_map(|file| read(file)).find_map(|text| service(&text, name));
        found.map(Some).ok_or_else(|| PlaceError::NoService(name.clone()))
    }
}

impl Place {
    /// The database to connect to where none is meant in particular.
    pub fn maintenance_database(&self) -> &str {
        self.database.as_deref().unwrap_or(MAINTENANCE)
    }

    /// How to connect to a database there. Reads the password file.
    pub(super) fn options(&self, database: &str) -> PgConnectOptions {
        let options = self.options.clone().database(database);
        if self.has_password {
            return options;
        }
        let ServerAddress { host, port } = &self.address;
        let wanted = [host.as_str(), &port.to_string(), database, options.get_username()];
        let passwords = self.passwords.as_deref().filter(|file| is_private(file)).and_then(read);
        match passwords.as_deref().and_then(|text| password(text, wanted)) {
            Some(password) => options.password(&password),
            None => options,
        }
    }
}

/// Whether a host is this machine: a socket's directory, or a loopback address.
fn is_local(host: &str) -> bool {
    host.starts_with('/')
        || host == "localhost"
        || host.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

/// A password file that others can read is not used, as libpq doesn't use it: the last six bits of its mode are theirs.
fn is_private(file: &Path) -> bool {
    match file.metadata() {
        Ok(metadata) if metadata.is_file() && metadata.mode().trailing_zeros() >= 6 => true,
        Ok(_) => {
            debug!(file = %file.display(), "password file not used: others can read it");
            false
        }
        Err(_) => false,
    }
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    match File::open(file).and_then(|file| file.take(MAX_FILE_BYTES).read_to_string(&mut text)) {
        Ok(_) => Some(text),
        Err(error) => {
            debug!(file = %file.display(), error = &error as &dyn std::error::Error, "file not read");
            None
        }
    }
}

/// The settings in the section `[name]` of a service file.
fn service(text: &str, name: &str) -> Option<Settings> {
    let header = format!("[{name}]");
    let mut lines = text.lines().map(str::trim).skip_while(|line| *line != header);
    lines.next()?;
    let mut settings = Settings::default();
    for line in lines.take_while(|line| !line.starts_with('[')) {
        let Some((key, value)) = line.split_once('=').filter(|_| !line.starts_with('#')) else { continue };
        let value = value.trim().to_owned();
        match key.trim() {
            "host" => settings.host = Some(value),
            "hostaddr" => settings.host_address = Some(value),
            "user" => settings.user = Some(value),
            "password" => settings.password = Some(Secret::new(value)),
            "dbname" => settings.database = Some(value),
            "sslmode" => settings.ssl_mode = Some(value),
            // The port is the worktree's to say, and nothing else matters here.
            _ => {}
        }
    }
    Some(settings)
}

/// The password of the first line of a password file whose other fields match: host, port, database, user.
fn password(text: &str, wanted: [&str; 4]) -> Option<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(fields).find_map(|fields| {
        let [host, port, database, user, password] = <[String; 5]>::try_from(fields).ok()?;
        let matches = |(field, wanted): (&String, &str)| field == "*" || field == wanted;
        [host, port, database, user].iter().zip(wanted).all(matches).then_some(password)
    })
}

/// The five fields of a line; a backslash takes the meaning from the `:` or `\` behind it. The fifth goes on to the end.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        let is_last = fields.len() == 5;
        let Some(field) = fields.last_mut() else { break };
        match character {
            ':' if !is_last => fields.push(String::new()),
            '\\' => field.extend(characters.next()),
            other => field.push(other),
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn environment(set: &[(&str, &str)]) -> Environment {
        Environment::read(|name| set.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
    }

    #[test]
    fn without_a_word_it_is_this_machine_and_the_worktrees_port() {
        let place = environment(&[]).place(None, 15_432).unwrap();
        assert_eq!(place.address.to_string(), "localhost:15432");
        assert_eq!(place.maintenance_database(), "postgres");
        let options = place.options("postgres");
        assert_eq!((options.get_host(), options.get_port()), ("localhost", 15_432));
    }

    #[test]
    fn a_service_goes_before_the_environment() {
        let home = tempfile::tempdir().unwrap();
        let file = "# mine\n[other]\nhost=other\n[shop]\n# user=nobody\nhost = 127.0.0.2\nuser=shop\nport=1\n\n[more]\nuser=x\n";
        std::fs::write(home.path().join(".pg_service.conf"), file).unwrap();
        let home = home.path().to_str().unwrap();
        let place =
            environment(&[("HOME", home), ("PGSERVICE", "shop"), ("PGUSER", "me"), ("PGDATABASE", "d")])
                .place(None, 5432)
                .unwrap();
        let options = place.options(place.maintenance_database());
        assert_eq!(
            (options.get_host(), options.get_port(), options.get_username(), options.get_database()),
            ("127.0.0.2", 5432, "shop", Some("d"))
        );
        let missing = environment(&[("HOME", home), ("PGSERVICE", "none")]).place(None, 5432);
        assert_eq!(missing.unwrap_err(), PlaceError::NoService("none".into()));
    }

    #[test]
    fn a_trusted_url_goes_before_everything_and_only_to_its_own_server() {
        let url = DatabaseUrl::parse("postgresql://shop:hunter2@127.0.0.2:5433/admin").unwrap();
        let environment = environment(&[("PGHOST", "127.0.0.3"), ("PGUSER", "me")]);
        let place = environment.place(Some(&url), 5432).unwrap();
        assert_eq!(place.address.to_string(), "127.0.0.2:5433");
        assert_eq!(place.maintenance_database(), "admin");
        assert_eq!(place.options("x").get_username(), "shop");
        let other = ServerAddress { host: "127.0.0.3".into(), port: 5432 };
        let place = environment.place_at(Some(&url), &other).unwrap();
        assert_eq!((&place.address, place.options("x").get_username()), (&other, "me"));
        let same = ServerAddress { host: "127.0.0.2".into(), port: 5433 };
        assert_eq!(environment.place_at(Some(&url), &same).unwrap().options("x").get_username(), "shop");
    }

    #[test]
    fn nothing_goes_to_another_machine_in_the_clear_unless_told_to() {
        for host in ["db.example.org", "10.0.0.1", "2001:db8::1"] {
            let set = [("PGHOST", host), ("PGSSLMODE", "prefer")];
            assert_eq!(environment(&set).place(None, 1).unwrap_err(), PlaceError::Remote(host.into()));
            assert!(environment(&[("PGHOST", host), ("PGSSLMODE", "disable")]).place(None, 1).is_ok());
        }
        for host in ["localhost", "127.0.0.2", "::1", "/run/postgresql"] {
            assert!(environment(&[("PGHOST", host)]).place(None, 1).is_ok(), "{host}");
        }
    }

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        let text = "# localhost:*:*:*:comment\nhalf:a:line\nlocalhost:5433:*:me:port\nlocalhost:*:shop:me:a\\:b\\\\c:d\n*:*:*:*:rest";
        let of = |wanted| password(text, wanted);
        assert_eq!(of(["localhost", "5432", "shop", "me"]).as_deref(), Some("a:b\\c:d"));
        assert_eq!(of(["localhost", "5433", "shop", "me"]).as_deref(), Some("port"));
        assert_eq!(of(["h", "1", "d", "u"]).as_deref(), Some("rest"));
        assert_eq!(password("localhost:1:d:u:p", ["localhost", "2", "d", "u"]), None);
    }

    #[test]
    fn a_password_file_is_used_only_if_it_is_private() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("pass");
        std::fs::write(&file, "*:*:*:*:hidden").unwrap();
        assert!(!is_private(&home.path().join("none")) && !is_private(home.path()));
        for (mode, private) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_private(&file), private, "{mode:o}");
        }
    }

    #[test]
    fn a_password_is_never_shown() {
        let environment = environment(&[("PGPASSWORD", "hunter2")]);
        let place = environment.place(None, 5432).unwrap();
        for shown in [format!("{environment:?}"), format!("{place:?}")] {
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
