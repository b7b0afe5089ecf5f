//! Errors on the wire: `application/problem+json` (RFC 9457).

use serde::{Deserialize, Serialize};

/// The media type of a problem.
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The kinds of problem. The `type` of each is stable; programs may branch on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ProblemType {
    /// The path is in no worktree.
    #[serde(rename = "urn:wtd:problem:not-in-a-worktree")]
    NotInAWorktree,
    /// The path does not exist.
    #[serde(rename = "urn:wtd:problem:path-not-found")]
    PathNotFound,
    /// The path, or something of git's behind it, can't be read.
    #[serde(rename = "urn:wtd:problem:path-unreadable")]
    PathUnreadable,
    /// The request is not one that this API knows.
    #[serde(rename = "urn:wtd:problem:bad-request")]
    BadRequest,
    /// The request's path, method or version is not one that this API knows.
    #[serde(rename = "urn:wtd:problem:unknown-route")]
    UnknownRoute,
    /// The body is not of a type or size that is read.
    #[serde(rename = "urn:wtd:problem:unreadable-body")]
    UnreadableBody,
    /// The caller may not ask this daemon.
    #[serde(rename = "urn:wtd:problem:forbidden")]
    Forbidden,
    /// No offset is left for the worktree's base ports.
    #[serde(rename = "urn:wtd:problem:offsets-exhausted")]
    OffsetsExhausted,
    /// The change would part a worktree from its data.
    #[serde(rename = "urn:wtd:problem:volume-exists")]
    VolumeExists,
    /// The content that is to be trusted is not the one that is there.
    #[serde(rename = "urn:wtd:problem:content-changed")]
    ContentChanged,
    /// The container engine can't be asked, or failed.
    #[serde(rename = "urn:wtd:problem:engine-unavailable")]
    EngineUnavailable,
    /// Another gc is under way.
    #[serde(rename = "urn:wtd:problem:gc-running")]
    GcRunning,
    /// A worktree's volumes can't be filled with copies of another's.
    #[serde(rename = "urn:wtd:problem:seed-refused")]
    SeedRefused,
    /// A port is another allocation's.
    #[serde(rename = "urn:wtd:problem:port-taken")]
    PortTaken,
    /// What was asked is about an allocation that the worktree no longer has.
    #[serde(rename = "urn:wtd:problem:allocation-changed")]
    AllocationChanged,
    /// The registry knows nothing of what was asked.
    #[serde(rename = "urn:wtd:problem:not-registered")]
    NotRegistered,
    /// The daemon's configuration can't be read, or makes no sense.
    #[serde(rename = "urn:wtd:problem:invalid-configuration")]
    InvalidConfiguration,
    /// The registry can't be written.
    #[serde(rename = "urn:wtd:problem:registry-unavailable")]
    RegistryUnavailable,
    /// The answer took too long.
    #[serde(rename = "urn:wtd:problem:timeout")]
    Timeout,
    /// The daemon is about to end.
    #[serde(rename = "urn:wtd:problem:shutting-down")]
    ShuttingDown,
    /// A defect of the daemon.
    #[serde(rename = "urn:wtd:problem:internal")]
    Internal,
    /// A type that this version doesn't know.
    #[serde(other, rename = "about:blank")]
    Other,
}

impl ProblemType {
    /// The HTTP status that goes with the type.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotInAWorktree | Self::PathNotFound | Self::UnknownRoute | Self::NotRegistered => 404,
            Self::PathUnreadable => 422,
            Self::BadRequest | Self::UnreadableBody => 400,
            Self::Forbidden => 403,
            Self::VolumeExists
            | Self::GcRunning
            | Self::SeedRefused
            | Self::PortTaken
            | Self::AllocationChanged
            | Self::InvalidConfiguration
            | Self::ContentChanged => 409,
            Self::OffsetsExhausted => 507,
            Self::RegistryUnavailable | Self::EngineUnavailable | Self::ShuttingDown => 503,
            Self::Timeout => 504,
            Self::Internal | Self::Other => 500,
        }
    }

    /// A short name for people, the same for every problem of the type.
    pub const fn title(self) -> &'static str {
        match self {
            Self::NotInAWorktree => "not in a worktree",
            Self::PathNotFound => "no such path",
            Self::PathUnreadable => "path can't be read",
            Self::BadRequest => "bad request",
            Self::UnknownRoute => "unknown route",
            Self::UnreadableBody => "unreadable body",
            Self::Forbidden => "forbidden",
            Self::OffsetsExhausted => "no offset left",
            Self::ContentChanged => "the content has changed",
            Self::VolumeExists => "the volume exists",
            Self::EngineUnavailable => "the container engine can't be asked",
            Self::GcRunning => "another gc is under way",
            Self::SeedRefused => "the volume can't be filled",
            Self::PortTaken => "the port is taken",
            Self::AllocationChanged => "the worktree has another allocation now",
            Self::NotRegistered => "not registered",
            Self::InvalidConfiguration => "the configuration is invalid",
            Self::RegistryUnavailable => "the registry can't be written",
            Self::Timeout => "timed out",
            Self::ShuttingDown => "shutting down",
            Self::Internal => "internal error",
            Self::Other => "error",
        }
    }
}

/// A problem, as RFC 9457 has it, with the remedy as an extension.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// The stable type.
    #[serde(rename = "type")]
    pub kind: ProblemType,
    /// The type in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What failed, on what, and why.
    pub detail: String,
    /// What to do about it; empty when there is nothing to do.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub remedy: String,
}

impl Problem {
    /// A problem of this type.
    pub fn new(kind: ProblemType, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            kind,
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            remedy: remedy.into(),
        }
    }
}
