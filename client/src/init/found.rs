//! What of a project is worth declaring, from what `docker compose config --no-interpolate` says.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::Value;
use wtd_protocol::compose::range;
use wtd_protocol::contract::POSTGRESQL_PORT;

use super::expression::{Expression, RawPort};
use crate::compose::model::{Model, Port};
use crate::error::Error;

/// Parts of the names of images that hold a PostgreSQL.
const POSTGRESQL_IMAGES: [&str; 5] = ["postgres", "postgis", "timescale", "pgvector", "pgvecto"];

/// Names that a database's service often has, best first.
const DATABASE_SERVICES: [&str; 6] = ["db", "database", "postgres", "postgresql", "pg", "timescaledb"];

/// Where PostgreSQL's image keeps data.
const POSTGRESQL_DATA: &str = "/var/lib/postgresql";

/// A project, as found.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// The project's name.
    pub(super) name: String,
    /// Published ports with the service, in the order in which they are to be named: the database's first.
    pub(super) ports: Vec<FoundPort>,
    /// Named volumes that Compose makes: key, and the name that is given to it, if any.
    pub(super) volumes: BTreeMap<String, Option<Expression>>,
    /// The service that is the database.
    pub(super) database: Option<Database>,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FoundPort {
    pub(super) service: String,
    /// Whether it is the database's.
    pub(super) is_database: bool,
    /// The variable that the file takes it from.
    pub(super) variable: Option<String>,
    /// The port, and the last one of a range.
    pub(super) base: u16,
    pub(super) last: u16,
    /// Whether the file does not say it: the container's port is taken for it.
    pub(super) is_guess: bool,
    /// The container's port, where it is a plain one.
    pub(super) container: Option<u16>,
    /// Which of how many entries of the service it is.
    pub(super) entry: (usize, usize),
}

/// The database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Database {
    pub(super) service: String,
    /// The key of its volume.
    pub(super) volume: Option<String>,
    /// `POSTGRES_DB`.
    pub(super) name: Option<Expression>,
}

#[derive(Debug, Default, Deserialize)]
struct Raw {
    #[serde(default)]
    name: String,
    #[serde(default)]
    services: Option<BTreeMap<String, Option<RawService>>>,
    #[serde(default)]
    volumes: Option<BTreeMap<String, Option<RawVolume>>>,
}

#[derive(Debug, Default, Deserialize)]
struct RawService {
    image: Option<Value>,
    ports: Option<Vec<Value>>,
    volumes: Option<Vec<Value>>,
    environment: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct RawVolume {
    name: Option<Value>,
    external: Option<Value>,
}

impl Found {
    /// Reads what Compose printed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let raw: Raw = serde_json::from_slice(bytes).map_err(|error| {
            Error::failed(
                format!("what docker compose config printed can't be read: {error}"),
                "look at `docker compose version`, and report this",
            )
        })?;
        let services: BTreeMap<String, RawService> = raw
            .services
            .unwrap_or_default()
            .into_iter()
            .map(|(name, service)| (name, service.unwrap_or_default()))
            .collect();
        let database = services
            .iter()
            .filter_map(|(name, service)| Some((rank(name, service)?, name)))
            .min()
            .map(|(_, name)| name.clone());
        let mut ports: Vec<FoundPort> = services
            .iter()
            .flat_map(|(name, service)| {
                let is_database = database.as_ref() == Some(name);
                let entries = service.ports.as_deref().unwrap_or_default();
                let count = entries.len();
                entries.iter().enumerate().filter_map(move |(index, entry)| {
                    let found = FoundPort::of(name, is_database, &RawPort::of(entry)?)?;
                    Some(FoundPort { entry: (index, count), ..found })
                })
            })
            .collect();
        // PostgreSQL's own port before whatever else the database's service publishes.
        ports.sort_by_key(|port| (!port.is_database, port.container != Some(POSTGRESQL_PORT)));
        // Compose makes no volume that no service mounts.
        let mounted: BTreeSet<String> = services.values().flat_map(named_volumes).collect();
        let is_made = |key: &str, volume: &RawVolume| {
            mounted.contains(key) && !matches!(volume.external, Some(Value::Bool(true) | Value::Object(_)))
        };
        let volumes = raw.volumes.unwrap_or_default().into_iter();
        let volumes = volumes.map(|(key, volume)| (key, volume.unwrap_or_default()));
        Ok(Self {
            name: raw.name,
            ports,
            volumes: volumes
                .filter(|(key, volume)| is_made(key, volume))
                .map(|(key, volume)| {
                    let name = volume.name.as_ref().and_then(Value::as_str).map(Expression::of);
                    (key, name)
                })
                .collect(),
            database: database.and_then(|name| {
                let service = services.get(&name)?;
                Some(Database {
                    volume: data_volume(service),
                    name: environment(service, "POSTGRES_DB").map(|text| Expression::of(&text)),
                    service: name,
                })
            }),
        })
    }

    /// The variables whose values the files don't say.
    pub(crate) fn unsaid(&self) -> impl Iterator<Item = &str> {
        self.ports.iter().filter(|port| port.is_guess).filter_map(|port| port.variable.as_deref())
    }

    /// Takes from `model`, the project with values for variables, what the files don't say.
    pub(crate) fn settle(&mut self, model: &Model) {
        for port in self.ports.iter_mut().filter(|port| port.is_guess) {
            let (index, count) = port.entry;
            // A range is more than one entry there.
            let entries = model.services.get(&port.service).map(|service| &service.ports);
            let entry =
                entries.filter(|entries| entries.len() == count).and_then(|entries| entries.get(index));
            if let Some(ports) = entry.and_then(Port::published).and_then(|text| range(&text)) {
                (port.base, port.last, port.is_guess) = (*ports.start(), *ports.end(), false);
            }
        }
    }

    /// Whether any port is published by a plain number, so that it moves only under an override.
    pub(crate) fn has_plain_ports(&self) -> bool {
        self.ports.iter().any(|port| port.variable.is_none())
    }
}

impl FoundPort {
    fn of(service: &str, is_database: bool, port: &RawPort) -> Option<Self> {
        let told = port.bases();
        let (base, last) = told.or_else(|| port.container.map(|container| (container, container)))?;
        let variable = match &port.host {
            Expression::Variable { name, .. } => Some(name.clone()),
            Expression::Text(_) => None,
            // A part of a number is no port that could be declared.
            Expression::Mixed => return None,
        };
        // Of a number that is no port there is nothing to say.
        if variable.is_none() && told.is_none() {
            return None;
        }
        let (service, is_guess) = (service.to_owned(), told.is_none());
        let container = port.container;
        Some(Self { service, is_database, variable, base, last, is_guess, container, entry: (0, 0) })
    }
}

/// How much a service looks like the project's database; less is more, none is not at all.
fn rank(name: &str, service: &RawService) -> Option<(bool, usize)> {
    let image = service.image.as_ref().and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    // Not the whole name: `postgres-exporter` and `postgrest` are no databases.
    let image = image.rsplit('/').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let is_postgresql = POSTGRESQL_IMAGES.iter().any(|part| {
        image.contains(part)
            && !["exporter", "postgrest", "meta", "backup"].iter().any(|other| image.contains(other))
    });
    let known = DATABASE_SERVICES.iter().position(|known| *known == name);
    let publishes = || {
        let mut ports = service.ports.iter().flatten().filter_map(RawPort::of);
        ports.any(|port| port.container == Some(POSTGRESQL_PORT))
    };
    if is_postgresql || known.is_some() || publishes() {
        Some((!is_postgresql, known.unwrap_or(DATABASE_SERVICES.len())))
    } else {
        None
    }
}

/// The named volume in which the database's data is.
fn data_volume(service: &RawService) -> Option<String> {
    let of_data = service
        .volumes
        .iter()
        .flatten()
        .find(|mount| mount_field(mount, "target").is_some_and(|target| target.starts_with(POSTGRESQL_DATA)))
        .and_then(named_volume);
    of_data.or_else(|| named_volumes(service).next())
}

/// The keys of the named volumes that a service mounts.
fn named_volumes(service: &RawService) -> impl Iterator<Item = String> + '_ {
    service.volumes.iter().flatten().filter_map(named_volume)
}

fn named_volume(mount: &Value) -> Option<String> {
    let source = mount_field(mount, "source").filter(|_| mount_field(mount, "type") == Some("volume"));
    source.map(str::to_owned)
}

fn mount_field<'m>(mount: &'m Value, key: &str) -> Option<&'m str> {
    mount.get(key).and_then(Value::as_str)
}

/// A variable of a service, from either form of `environment`.
fn environment(service: &RawService, name: &str) -> Option<String> {
    match service.environment.as_ref()? {
        Value::Object(map) => map.get(name)?.as_str().map(str::to_owned),
        Value::Array(list) => list
            .iter()
            .filter_map(Value::as_str)
            .find_map(|entry| entry.strip_prefix(name)?.strip_prefix('=').map(str::to_owned)),
        _ => None,
    }
}
