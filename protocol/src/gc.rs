//! What `POST` on [`crate::routes::GC`] takes and gives: what of removed worktrees is left, and what becomes of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::Problem;
use crate::requests::PathRequest;

/// A length of time as `--older-than` takes it: a number and `s`, `m`, `h`, `d` or `w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Age {
    /// In seconds.
    pub seconds: u64,
}

/// A text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a length of time; write 90s, 30m, 12h, 7d or 2w")]
pub struct AgeError(String);

/// The units of an [`Age`], each with its seconds, largest first.
const UNITS: [(&str, u64); 5] = [("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl FromStr for Age {
    type Err = AgeError;

    fn from_str(text: &str) -> Result<Self, AgeError> {
        let refuse = || AgeError(text.chars().take(40).collect());
        let (number, seconds) = UNITS
            .iter()
            .find_map(|(unit, seconds)| Some((text.strip_suffix(unit)?, *seconds)))
            // Without a unit nobody can tell whether days are meant; none is none in any.
            .or_else(|| (text == "0").then_some((text, 1)))
            .ok_or_else(refuse)?;
        if !number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(refuse());
        }
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let seconds = number.checked_mul(seconds).filter(|seconds| *seconds <= i64::MAX as u64 / 1000);
        Ok(Self { seconds: seconds.ok_or_else(refuse)? })
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, seconds): &&(&str, u64)| self.seconds.is_multiple_of(*seconds) && self.seconds > 0;
        let (unit, seconds) = UNITS.iter().find(whole).unwrap_or(&("s", 1));
        write!(f, "{}{unit}", self.seconds / seconds)
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Seconds(u64),
            Text(String),
        }
        let text = match Written::deserialize(deserializer)? {
            Written::Seconds(seconds) => format!("{seconds}s"),
            Written::Text(text) => text,
        };
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Which engine a person means: what their shell has, since the daemon does not see it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EngineHint {
    /// `DOCKER_HOST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_host: Option<String>,
    /// `DOCKER_CONTEXT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub docker_context: Option<String>,
}

/// Body of a request to [`crate::routes::GC`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub struct GcRequest {
    /// Only say what would be done. Without this field nothing is done either.
    #[serde(default = "yes")]
    pub dry_run: bool,
    /// Include what is missing, forgotten or reassigned.
    #[serde(default)]
    pub missing: bool,
    /// Only what has been gone for so long: `"7d"`, or a number of seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, example = "7d"))]
    pub older_than: Option<Age>,
    /// Remove the containers of removed worktrees' own Compose projects first.
    #[serde(default)]
    pub down: bool,
    /// Ask no engine, and release offsets all the same: for an engine that is gone for good.
    #[serde(default)]
    pub no_engine: bool,
    /// A directory into which each volume is written before it is dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<PathRequest>,
    /// The tokens of what a person was shown: nothing else is touched. Without this field, all that is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<String>>,
    /// Answer with a line of JSON for each step ([`GcEvent`]), the report last.
    #[serde(default)]
    pub progress: bool,
    /// The engine that is meant.
    #[serde(flatten)]
    pub engine: EngineHint,
}

fn yes() -> bool {
    true
}

/// What kind of thing holds a worktree's data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GcKind {
    /// A volume of a container engine.
    Volume,
    /// A database of a shared server.
    Database,
    /// A schema of a shared database.
    Schema,
}

impl GcKind {
    /// The word for this kind, as in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Volume => "volume",
            Self::Database => "database",
            Self::Schema => "schema",
        }
    }
}

/// What becomes of a thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "lowercase")]
pub enum GcAction {
    /// It is dropped.
    Drop,
    /// It stays.
    Keep,
}

/// One thing that a worktree left, and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcItem {
    /// The worktree's path.
    pub path: String,
    /// Exact bytes of `path` in base64, where it is not UTF-8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_base64: Option<String>,
    /// The worktree's offset.
    pub offset: u16,
    /// What it is.
    pub kind: GcKind,
    /// Its name.
    pub name: String,
    /// What becomes of it.
    pub action: GcAction,
    /// Why.
    pub reason: String,
    /// Whether it is gone.
    pub done: bool,
    /// Whether it is kept since its server gave no answer.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unanswered: bool,
    /// Its size in bytes, where the engine tells.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    /// Where it was written before it was dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backup: Option<String>,
    /// When the worktree went: RFC 3339, UTC.
    pub since: String,
    /// The allocation's UUID.
    pub allocation: String,
    /// Stands for this very thing as it was seen, in [`GcRequest::only`].
    pub token: String,
}

/// A container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcContainer {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its state, in the engine's word.
    pub state: String,
}

/// The containers of a worktree's own Compose project.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcStack {
    /// The worktree's path.
    pub path: String,
    /// The worktree's offset.
    pub offset: u16,
    /// The Compose project.
    pub project: String,
    /// Its containers.
    pub containers: Vec<GcContainer>,
    /// What becomes of them.
    pub action: GcAction,
    /// Why.
    pub reason: String,
    /// Whether they are gone.
    pub done: bool,
    /// Stands for these very containers in [`GcRequest::only`].
    pub token: String,
}

/// The offset of a worktree that is gone, or the one that a restored volume holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcOffset {
    /// The worktree's path, or `volume` and the restored volume's name.
    pub path: String,
    /// The offset.
    pub offset: u16,
    /// `drop` when it is to be free again.
    pub action: GcAction,
    /// Why.
    pub reason: String,
    /// Whether it is free again.
    pub done: bool,
    /// The allocation's UUID, or the restoring's.
    pub allocation: String,
    /// Stands for this offset in [`GcRequest::only`].
    pub token: String,
}

/// What is left of removed worktrees, and what becomes of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GcReport {
    /// The engine that was asked; none where there is none on this machine, or none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub engine: Option<String>,
    /// What holds data.
    pub items: Vec<GcItem>,
    /// Containers that are left.
    pub stacks: Vec<GcStack>,
    /// The offsets of the worktrees that are concerned.
    pub offsets: Vec<GcOffset>,
    /// Why the run ended before its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Problem>,
}

/// One line of the answer to a request with [`GcRequest::progress`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum GcEvent {
    /// Something is begun.
    Begin {
        /// What is done, such as `dropping volume db_data_10000`.
        what: String,
    },
    /// Bytes that were written of what was begun last.
    Written {
        /// So many so far.
        bytes: u64,
    },
    /// Something of the plan was dealt with.
    Item(GcItem),
    /// What came of it all.
    Report(GcReport),
}

/// Body of a request to [`crate::routes::RESTORE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RestoreRequest {
    /// The file that `gc --backup` wrote.
    #[serde(flatten)]
    pub file: PathRequest,
    /// The volume's name [default: the one that it had].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volume: Option<String>,
    /// The engine that is meant.
    #[serde(flatten)]
    pub engine: EngineHint,
}

/// A volume that was brought back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Restored {
    /// Its name.
    pub volume: String,
    /// The engine that has it.
    pub engine: String,
    /// How many files and directories it holds.
    pub entries: u64,
    /// Why it could not be brought back, when that became clear on the way; then there is no such volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Problem>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_have_units() {
        for (text, seconds) in
            [("7d", 604_800), ("1w", 604_800), ("90s", 90), ("5m", 300), ("0", 0), ("0d", 0)]
        {
            assert_eq!(text.parse::<Age>().unwrap().seconds, seconds, "{text}");
        }
        for bad in [
            "",
            "7",
            "90",
            "d",
            "-1d",
            "1.5d",
            "7 d",
            "7D",
            "1y",
            "99999999999999999999",
            "9223372036854775807w",
        ] {
            assert!(bad.parse::<Age>().is_err(), "{bad:?}");
        }
        for text in ["1w", "8d", "12h", "90s", "0s"] {
            assert_eq!(text.parse::<Age>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn a_request_that_says_nothing_asks_for_nothing() {
        let request: GcRequest = serde_json::from_str("{}").unwrap();
        assert!(request.dry_run && !request.missing && request.only.is_none());
        let request: GcRequest =
            serde_json::from_str(r#"{"dry_run":false,"older_than":60,"docker_host":"unix:///x","later":1}"#)
                .unwrap();
        assert!(!request.dry_run);
        assert_eq!(request.older_than, Some(Age { seconds: 60 }));
        assert_eq!(request.engine.docker_host.as_deref(), Some("unix:///x"));
        assert!(serde_json::from_str::<GcRequest>(r#"{"older_than":"soon"}"#).is_err());
    }
}
