//! Single values: how each is read from a flag or a variable, and from the configuration file.

use std::ffi::OsString;
use std::fmt::Display;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;
use std::time::Duration;

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, de::Error};
use tracing_subscriber::filter::LevelFilter;

use super::{ConfigError, Engine, Settings};
use crate::domain::port_ranges::PortRanges;

const MAX_STEP: u16 = 60_000;

/// What the `WTD_*` variables say.
pub(super) fn from_environment(
    variable: &impl Fn(&str) -> Option<OsString>,
) -> Result<Settings, ConfigError> {
    Ok(Settings {
        roots: variable("WTD_ROOTS")
            .map(|roots| std::env::split_paths(&roots).filter(|root| !root.as_os_str().is_empty()).collect()),
        reserved_ports: value("WTD_RESERVED_PORTS", variable, str::parse)?.map(|ports| vec![ports]),
        probe: value("WTD_PROBE", variable, boolean)?,
        engine: value("WTD_ENGINE", variable, engine)?,
        resync: value("WTD_RESYNC", variable, resync)?,
        log: value("WTD_LOG", variable, log)?,
        step: value("WTD_STEP", variable, step)?,
        avoid_ephemeral: value("WTD_AVOID_EPHEMERAL", variable, boolean)?,
        listen: value("WTD_LISTEN", variable, listen)?,
    })
}

fn value<T, E: Display>(
    name: &'static str,
    variable: &impl Fn(&str) -> Option<OsString>,
    parse: impl Fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    let Some(text) = variable(name) else { return Ok(None) };
    let wrong = |reason: String| ConfigError::Variable { name, reason };
    let text = text.to_str().ok_or_else(|| wrong(format!("{} is not UTF-8", text.display())))?;
    parse(text).map(Some).map_err(|reason| wrong(reason.to_string()))
}

fn boolean(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "y" | "on" | "t" => Ok(true),
        "0" | "false" | "no" | "n" | "off" | "f" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

/// A Docker host as `DOCKER_HOST` has it, the bare path of a socket, or `none`.
pub(super) fn engine(text: &str) -> Result<Engine, String> {
    if text == "none" {
        return Ok(Engine::None);
    }
    if text.starts_with('/') {
        return Ok(Engine::Host(format!("unix://{text}")));
    }
    match text.split_once("://") {
        Some(("unix" | "tcp" | "http" | "https" | "ssh", rest)) if !rest.is_empty() => {
            Ok(Engine::Host(text.to_owned()))
        }
        _ => Err(format!(
            "{text:?} is not a Docker host: write unix:///run/docker.sock, tcp://HOST:PORT or none"
        )),
    }
}

/// A length of time; a number alone is seconds, as systemd has it (systemd.time(7)).
pub(super) fn resync(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().map(SignedDuration::from_secs);
    let time = seconds
        .or_else(|_| text.parse::<SignedDuration>())
        .map_err(|_| format!("{text:?} is not a length of time: write 30s, 5m or 1h 30m"))?;
    match Duration::try_from(time) {
        Ok(time) if time >= Duration::from_secs(1) => Ok(time),
        _ => Err(format!("{text:?} is too short: at least 1s")),
    }
}

pub(super) fn log(text: &str) -> Result<String, String> {
    // A word that is no level would be taken for the name of a target, and everything else would be off.
    let is_target =
        |word: &str| word.contains(['=', ':', '[']) || word == "wtd" || word.parse::<LevelFilter>().is_ok();
    if let Some(word) = text.split(',').map(str::trim).find(|word| !word.is_empty() && !is_target(word)) {
        return Err(format!("{word:?} is no level: write off, error, warn, info, debug or trace"));
    }
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!("{text:?} is not a log filter: {error}")),
    }
}

pub(super) fn step(text: &str) -> Result<NonZeroU16, String> {
    text.parse::<NonZeroU16>()
        .ok()
        .filter(|step| step.get() <= MAX_STEP)
        .ok_or_else(|| format!("{text:?} is not a step: write a number from 1 to {MAX_STEP}"))
}

/// Loopback only: whatever listens elsewhere is for others to reach.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).ok(),
        None => text.parse().ok(),
    };
    match address {
        Some(address) if address.ip().is_loopback() => Ok(address),
        Some(_) => Err(format!("{text:?} is not a loopback address: wtd answers no other machine")),
        None => Err(format!("{text:?} is not an address: write 127.0.0.1:PORT or [::1]:PORT")),
    }
}

/// Roots in a file are absolute or below the home directory: it is nowhere said what else they could be
/// relative to.
pub(super) fn roots_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Vec<PathBuf>>, D::Error> {
    let roots = Vec::<PathBuf>::deserialize(input)?;
    match roots.iter().find(|root| !root.is_absolute() && !root.starts_with("~")) {
        Some(root) => {
            Err(D::Error::custom(format!("{} is not absolute: begin it with / or ~/", root.display())))
        }
        None => Ok(Some(roots)),
    }
}

/// A port or range in the file: a number, or the text of one or more.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a port such as 5432 or a range such as \"9000-9010\"")]
enum PortsEntry {
    Number(i64),
    Text(String),
}

pub(super) fn ports_in_file<'de, D: Deserializer<'de>>(
    input: D,
) -> Result<Option<Vec<PortRanges>>, D::Error> {
    let ports = |entry| match entry {
        PortsEntry::Number(number) => number.to_string().parse(),
        PortsEntry::Text(text) => text.parse(),
    };
    let entries = Vec::<PortsEntry>::deserialize(input)?.into_iter();
    entries.map(ports).collect::<Result<_, _>>().map(Some).map_err(D::Error::custom)
}

pub(super) fn engine_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Engine>, D::Error> {
    engine(&String::deserialize(input)?).map(Some).map_err(D::Error::custom)
}

/// A length of time in the file: the text of one, or seconds.
#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a length of time such as \"5m\", or seconds")]
enum Time {
    Seconds(i64),
    Text(String),
}

pub(super) fn resync_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<Duration>, D::Error> {
    let text = match Time::deserialize(input)? {
        Time::Seconds(seconds) => seconds.to_string(),
        Time::Text(text) => text,
    };
    resync(&text).map(Some).map_err(D::Error::custom)
}

pub(super) fn log_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<String>, D::Error> {
    log(&String::deserialize(input)?).map(Some).map_err(D::Error::custom)
}

pub(super) fn step_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<NonZeroU16>, D::Error> {
    step(&i64::deserialize(input)?.to_string()).map(Some).map_err(D::Error::custom)
}

pub(super) fn listen_in_file<'de, D: Deserializer<'de>>(input: D) -> Result<Option<SocketAddr>, D::Error> {
    listen(&String::deserialize(input)?).map(Some).map_err(D::Error::custom)
}
