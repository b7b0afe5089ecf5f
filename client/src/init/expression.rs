//! Published ports as Compose files write them, before variables have values (Compose specification, "ports" and
//! "Interpolation").

use serde_json::Value;
use wtd_protocol::compose::range;

/// What stands for a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Expression {
    /// The value itself.
    Text(String),
    /// One variable, with the text that stands in where it is not set.
    Variable { name: String, default: Option<String> },
    /// Text and variables together.
    Mixed,
}

impl Expression {
    /// What `text` is, as it stands in a file.
    pub(super) fn of(text: &str) -> Self {
        if !text.contains('$') {
            return Self::Text(text.to_owned());
        }
        let braced = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
        let Some(inner) = braced.or_else(|| text.strip_prefix('$')) else { return Self::Mixed };
        let end = inner.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(inner.len());
        let (name, rest) = inner.split_at(end);
        if name.is_empty() || (braced.is_none() && !rest.is_empty()) {
            return Self::Mixed;
        }
        let default = rest.strip_prefix(":-").or_else(|| rest.strip_prefix('-'));
        let name = name.to_owned();
        match default {
            Some(default) => match Self::of(default) {
                Self::Text(default) => Self::Variable { name, default: Some(default) },
                Self::Variable { default, .. } => Self::Variable { name, default },
                Self::Mixed => Self::Mixed,
            },
            None if rest.is_empty() || rest.starts_with(":?") || rest.starts_with('?') => {
                Self::Variable { name, default: None }
            }
            None => Self::Mixed,
        }
    }

    /// The value, as far as the file alone tells it.
    pub(super) fn value(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Variable { default, .. } => default.as_deref(),
            Self::Mixed => None,
        }
    }
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RawPort {
    /// The host port or ports.
    pub(super) host: Expression,
    /// The container's port, where it is a plain one.
    pub(super) container: Option<u16>,
}

impl RawPort {
    /// The port that an entry of `ports` publishes; none where the engine chooses one.
    pub(super) fn of(entry: &Value) -> Option<Self> {
        match entry {
            Value::String(text) => Self::short(text),
            Value::Object(long) => {
                let text = |key: &str| match long.get(key)? {
                    Value::String(text) => Some(text.clone()),
                    Value::Number(number) => Some(number.to_string()),
                    _ => None,
                };
                let host = text("published").filter(|host| !host.is_empty() && host != "0")?;
                let container = text("target").and_then(|target| target.parse().ok());
                Some(Self { host: Expression::of(&host), container })
            }
            _ => None,
        }
    }

    /// `[[ip:]host:]container[/protocol]`.
    fn short(text: &str) -> Option<Self> {
        let parts = split(text);
        let [.., host, container] = parts.as_slice() else { return None };
        if host.is_empty() {
            return None;
        }
        let container = container.split('/').next().unwrap_or_default();
        Some(Self {
            host: Expression::of(host),
            container: Expression::of(container).value().and_then(|port| port.parse().ok()),
        })
    }

    /// The first and the last host port, where the file alone tells them.
    pub(super) fn bases(&self) -> Option<(u16, u16)> {
        range(self.host.value()?).map(|ports| (*ports.start(), *ports.end()))
    }
}

/// The parts of the short form. A colon in a variable's default, or in an IPv6 address, separates nothing.
fn split(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_usize, 0);
    for (at, character) in text.char_indices() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth = depth.saturating_sub(1),
            ':' if depth == 0 => {
                parts.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.extend(text.get(start..));
    parts
}
