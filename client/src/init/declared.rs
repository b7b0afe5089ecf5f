//! Which variable each port and volume of a project gets, by the rules that the daemon reads `wtd.toml` by.

use std::collections::{BTreeMap, BTreeSet};

use wtd_protocol::contract::{POSTGRESQL_PORT, VOLUME_STEM};
use wtd_protocol::names::{is_volume_name, project_name};
use wtd_protocol::variable::{DB_HOST_PORT, DB_VOLUME, POSTGRES_DB, Variable};

use super::expression::Expression;
use super::found::{Found, FoundPort};
use crate::compose::model::compose_name;

/// The lowest port that an offset may give: a lower base port would keep the main worktree from offset 0.
const LOWEST_PORT: u16 = 1024;

/// The most ports, and the most further volumes, that can be declared.
const MAX_ENTRIES: usize = 64;

/// What a `wtd.toml` is to say.
#[derive(Debug, Default)]
pub(crate) struct Declared {
    /// The project's name, where it is not the directory's.
    pub(super) project: Option<String>,
    pub(super) ports: Vec<Port>,
    /// Variables of the project's own that stand for a port that has another one.
    pub(super) aliases: BTreeMap<String, String>,
    /// The database's name, and whether it is the same in every worktree.
    pub(super) database: Option<(String, bool)>,
    /// The stem of the database's volume, where it is not the built-in one.
    pub(super) volume: Option<String>,
    /// Further volumes: variable and stem.
    pub(super) volumes: BTreeMap<String, String>,
}

/// A declared port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Port {
    pub(super) variable: String,
    pub(super) base: u16,
    /// The service that publishes it.
    pub(super) service: String,
    pub(super) is_guess: bool,
    /// Whether it is only mentioned: it is too low to be declared.
    pub(super) is_low: bool,
}

impl Declared {
    /// What to declare of a project whose Compose files are in a directory of this name.
    pub(crate) fn of(found: &Found, directory: &str) -> Self {
        let mut declared = Self::default();
        if !found.name.is_empty() && found.name != compose_name(directory) {
            declared.project = Some(project_name(&found.name));
        }
        for port in &found.ports {
            declared.port(port);
        }
        declared.database(found);
        declared.volumes(found);
        declared
    }

    /// Whether it has templates, which take trust.
    pub(crate) fn takes_trust(&self) -> bool {
        !self.aliases.is_empty()
    }

    /// What was found, in words.
    pub(crate) fn summary(&self) -> String {
        let declared = self.ports.iter().filter(|port| !port.is_low);
        let ports: Vec<_> =
            declared.map(|port| format!("{} {} ({})", port.variable, port.base, port.service)).collect();
        let volumes: Vec<_> = self.volume.iter().chain(self.volumes.values()).map(String::as_str).collect();
        let database: Vec<_> = self.database.iter().map(|(name, _)| name.as_str()).collect();
        let kinds =
            [("ports", ports.join(", ")), ("volumes", volumes.join(", ")), ("database", database.join(", "))];
        let found = kinds.iter().filter(|(_, names)| !names.is_empty());
        let words: Vec<_> = found.map(|(kind, names)| format!("{kind} {names}")).collect();
        if words.is_empty() { "nothing to declare was found".to_owned() } else { words.join("; ") }
    }

    fn port(&mut self, found: &FoundPort) {
        let ends = if found.base == found.last { vec![found.base] } else { vec![found.base, found.last] };
        for (index, base) in ends.into_iter().enumerate() {
            let own = found.variable.as_deref().filter(|name| Variable::new(name).is_ok() && index == 0);
            let same_port =
                self.ports.iter().find(|port| port.base == base).map(|port| port.variable.clone());
            if let Some(other) = same_port {
                self.alias(own, &other);
                continue;
            }
            if self.ports.len() >= MAX_ENTRIES - 1 {
                return;
            }
            let is_free = |name: &str| !self.ports.iter().any(|port| port.variable == name);
            // What another variable has the port of, it is; and 5432 is DB_HOST_PORT's unless that has another.
            let is_databases =
                base >= LOWEST_PORT && ((found.is_database && index == 0) || base == POSTGRESQL_PORT);
            let variable = if is_databases && is_free(DB_HOST_PORT) {
                self.alias(own, DB_HOST_PORT);
                DB_HOST_PORT.to_owned()
            } else {
                match own.filter(|name| is_free(name) && *name != DB_HOST_PORT) {
                    Some(own) => own.to_owned(),
                    None => derived(found, base, &is_free),
                }
            };
            self.aliases.remove(&variable);
            self.ports.push(Port {
                variable,
                base,
                service: found.service.clone(),
                is_guess: found.is_guess,
                is_low: base < LOWEST_PORT,
            });
        }
    }

    /// Has the project's own variable follow another one.
    fn alias(&mut self, own: Option<&str>, other: &str) {
        if let Some(own) = own.filter(|own| *own != other)
            && !self.ports.iter().any(|port| port.variable == own || (port.variable == other && port.is_low))
        {
            self.aliases.insert(own.to_owned(), other.to_owned());
        }
    }

    fn database(&mut self, found: &Found) {
        let Some(name) = found.database.as_ref().and_then(|database| database.name.as_ref()) else { return };
        // A name in the file is the name in every worktree; one from POSTGRES_DB is the worktree's.
        let is_same = !matches!(name, Expression::Variable { name, .. } if name == POSTGRES_DB);
        let stem = name.value().filter(|stem| is_database_stem(stem));
        self.database = stem.map(|stem| (stem.to_owned(), is_same));
    }

    fn volumes(&mut self, found: &Found) {
        let of_database = found.database.as_ref().and_then(|database| database.volume.as_deref());
        let mut stems = BTreeSet::from([VOLUME_STEM.to_owned()]);
        if let Some(key) = of_database.filter(|key| found.volumes.contains_key(*key)) {
            let is_variable = matches!(found.volumes.get(key), Some(Some(Expression::Variable { name, .. })) if name == DB_VOLUME);
            if !is_variable && key != VOLUME_STEM && is_volume_name(key) {
                self.volume = Some(key.to_owned());
                stems = BTreeSet::from([key.to_owned()]);
            }
        }
        for (key, name) in found.volumes.iter().filter(|(key, _)| of_database != Some(key.as_str())) {
            let own = match name {
                Some(Expression::Variable { name, .. }) => Some(name.as_str()),
                _ => None,
            };
            let stem = own.and(name.as_ref()).and_then(Expression::value).unwrap_or(key);
            let is_taken = |variable: &str| {
                self.volumes.contains_key(variable)
                    || self.aliases.contains_key(variable)
                    || self.ports.iter().any(|port| port.variable == variable)
            };
            let variable = own
                .filter(|own| Variable::new(own).is_ok())
                .map_or_else(|| volume_variable(key), str::to_owned);
            let is_good = is_volume_name(stem) && Variable::new(&variable).is_ok() && !is_taken(&variable);
            if is_good && self.volumes.len() < MAX_ENTRIES && stems.insert(stem.to_owned()) {
                self.volumes.insert(variable, stem.to_owned());
            }
        }
    }
}

/// Whether a text can be the stem of a database's name.
fn is_database_stem(text: &str) -> bool {
    text.len() <= 63
        && text.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-'))
}

/// `REDIS_VOLUME` for a volume that is called `redis_data`.
fn volume_variable(key: &str) -> String {
    let upper = upper(key);
    format!("{}_VOLUME", upper.strip_suffix("_DATA").unwrap_or(&upper))
}

/// A variable for a port of a service: `WEB_PORT`, then `WEB_PORT_9229` and so on.
fn derived(found: &FoundPort, base: u16, is_free: &dyn Fn(&str) -> bool) -> String {
    let service = upper(&found.service);
    let container = found.container.filter(|_| base == found.base).unwrap_or(base);
    let names =
        [format!("{service}_PORT"), format!("{service}_PORT_{container}"), format!("{service}_PORT_{base}")];
    // A service that is called as a tool is (`node`, `git`) would name a variable that the tool obeys.
    let spared = names.iter().map(|name| format!("APP_{name}"));
    names
        .iter()
        .cloned()
        .chain(spared)
        .find(|name| is_free(name) && Variable::new(name).is_ok())
        .unwrap_or_else(|| format!("PORT_{base}"))
}

fn upper(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' })
        .take(40)
        .collect();
    let name = name.trim_matches('_');
    if name.starts_with(|c: char| c.is_ascii_uppercase()) { name.to_owned() } else { format!("APP_{name}") }
}
