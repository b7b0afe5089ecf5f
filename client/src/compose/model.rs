//! What `docker compose config --format json` says of a project, as far as an override concerns it.
//!
//! Text in it is as Compose writes it: `$` stands doubled, so that it can be read again as it is.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Map, Value};

use crate::error::Error;

/// A project.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Model {
    /// Its name.
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) services: BTreeMap<String, Service>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) volumes: BTreeMap<String, Volume>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) networks: BTreeMap<String, Network>,
}

/// A service.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Service {
    pub(crate) container_name: Option<String>,
    pub(crate) image: Option<String>,
    pub(crate) build: Option<IgnoredAny>,
    pub(crate) network_mode: Option<String>,
    pub(crate) pid: Option<String>,
    pub(crate) ipc: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) volumes_from: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ports: Vec<Port>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) volumes: Vec<Mount>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) networks: BTreeMap<String, Option<Attachment>>,
}

/// A published port in its long form, with all that it says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub(crate) struct Port(pub(crate) Map<String, Value>);

impl Port {
    /// The host port, or range of host ports; none where the engine chooses one.
    pub(crate) fn published(&self) -> Option<String> {
        match self.0.get("published")? {
            Value::String(text) if text.is_empty() || text == "0" => None,
            Value::String(text) => Some(text.clone()),
            Value::Number(number) if number.as_u64() != Some(0) => Some(number.to_string()),
            _ => None,
        }
    }

    /// The same port of the container on another host port.
    pub(crate) fn on(&self, published: &str) -> Self {
        let mut port = self.clone();
        port.0.insert("published".to_owned(), published.into());
        port
    }

    /// Which port of the container it is.
    pub(crate) fn target(&self) -> [Option<&Value>; 2] {
        ["target", "protocol"].map(|key| self.0.get(key))
    }
}

/// What a service mounts.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Mount {
    #[serde(rename = "type", default)]
    pub(crate) kind: String,
    pub(crate) source: Option<String>,
    #[serde(default)]
    pub(crate) read_only: bool,
}

/// A service's place in a network.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Attachment {
    pub(crate) ipv4_address: Option<String>,
    pub(crate) ipv6_address: Option<String>,
}

/// A named volume.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Volume {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) external: bool,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) driver_opts: BTreeMap<String, Value>,
}

/// A network.
#[derive(Debug, Clone, Default, Deserialize)]
pub(crate) struct Network {
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) external: bool,
    pub(crate) driver: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) driver_opts: BTreeMap<String, Value>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) ipam: Ipam,
}

/// A network's addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub(crate) struct Ipam {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) config: Vec<Value>,
}

impl Model {
    /// Reads what Compose printed.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(bytes).map_err(|error| {
            Error::failed(
                format!("what docker compose config printed can't be read: {error}"),
                "look at `docker compose version`, and report this",
            )
        })
    }

    /// The name that Compose gives something of the project that has none of its own.
    pub(crate) fn default_name(&self, key: &str) -> String {
        format!("{}_{key}", self.name)
    }
}

/// Compose writes `null` for what is empty.
fn or_default<'de, T: Deserialize<'de> + Default, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// The project's name that Compose makes of a directory's (compose-go, `NormalizeProjectName`).
pub(crate) fn compose_name(directory: &str) -> String {
    let lower = directory.to_lowercase();
    let kept: String = lower
        .chars()
        .filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
        .collect();
    kept.trim_start_matches(['-', '_']).to_owned()
}
