//! A Compose file as text. Every name and value comes from a repository, so each is written between double quotes
//! with what YAML or JSON would read otherwise escaped: no text can be anything but text.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

/// A node of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Node {
    /// A mapping.
    Map(BTreeMap<String, Self>),
    /// A value in place of what other files say, with which Compose else merges it (`!override`).
    Override(Value),
    /// Nothing in place of what other files say (`!reset`).
    Reset,
    /// Text.
    Text(String),
}

impl Node {
    /// The mapping at `key`, made if need be.
    pub(crate) fn at(&mut self, key: &str) -> &mut Self {
        if !matches!(self, Self::Map(_)) {
            *self = Self::Map(BTreeMap::new());
        }
        match self {
            Self::Map(map) => map.entry(key.to_owned()).or_insert_with(|| Self::Map(BTreeMap::new())),
            other => other,
        }
    }

    /// Sets the value at `key`.
    pub(crate) fn set(&mut self, key: &str, node: Self) {
        *self.at(key) = node;
    }

    /// Whether there is nothing in it.
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self, Self::Map(map) if map.is_empty())
    }
}

/// The text of a file with this content, below `comment`.
pub(crate) fn document(comment: &[String], content: &Node) -> String {
    let mut text = String::new();
    for line in comment {
        let line: String = line.chars().filter(|character| !character.is_control()).collect();
        text.push_str("# ");
        text.push_str(&line);
        text.push('\n');
    }
    if content.is_empty() {
        text.push_str("services: {}\n");
    } else {
        node(&mut text, content, 0);
    }
    text
}

fn node(text: &mut String, content: &Node, depth: usize) {
    match content {
        Node::Map(map) => {
            text.truncate(text.trim_end_matches(' ').len());
            if depth > 0 {
                text.push('\n');
            }
            for (key, value) in map {
                text.push_str(&"  ".repeat(depth));
                text.push_str(&quoted(key));
                text.push_str(": ");
                node(text, value, depth + 1);
            }
        }
        Node::Override(Value::Array(entries)) if !entries.is_empty() => {
            text.push_str("!override\n");
            for entry in entries {
                text.push_str(&"  ".repeat(depth));
                text.push_str("- ");
                text.push_str(&flow(entry));
                text.push('\n');
            }
        }
        Node::Override(value) => {
            text.push_str("!override ");
            text.push_str(&flow(value));
            text.push('\n');
        }
        Node::Reset => text.push_str("!reset null\n"),
        Node::Text(value) => {
            text.push_str(&quoted(value));
            text.push('\n');
        }
    }
}

/// A value in one line: JSON, which is YAML (YAML 1.2.2, 1.2), with keys in order.
fn flow(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(entries) => format!("[{}]", entries.iter().map(flow).collect::<Vec<_>>().join(", ")),
        Value::Object(map) => format!("{{{}}}", entries(map).join(", ")),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}

fn entries(map: &Map<String, Value>) -> Vec<String> {
    let sorted: BTreeMap<_, _> = map.iter().collect();
    sorted.into_iter().map(|(key, value)| format!("{}: {}", quoted(key), flow(value))).collect()
}

/// A string between double quotes. Characters that are not printable in YAML's sense (5.1) are escaped, and those
/// that it breaks lines at; all of them are in the basic plane, where JSON, YAML and TOML escape alike.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => {
                quoted.push('\\');
                quoted.push(character);
            }
            '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}' => {
                quoted.push_str(&escaped(character));
            }
            _ if character.is_control() => quoted.push_str(&escaped(character)),
            _ => quoted.push(character),
        }
    }
    quoted.push('"');
    quoted
}

fn escaped(character: char) -> String {
    format!("\\u{:04x}", u32::from(character))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_file_is_ordered_and_every_text_is_quoted() {
        let mut file = Node::Map(BTreeMap::new());
        file.set("name", Node::Text("shop-10000".into()));
        let db = file.at("services").at("db");
        db.set("ports", Node::Override(json!([{"target": 5432, "published": "15432", "host_ip": "::1"}])));
        db.set("container_name", Node::Text("no".into()));
        file.at("networks").at("a.b").set("ipam", Node::Reset);
        file.at("volumes").set("cache", Node::Override(json!({"name": "x", "external": true})));
        let text = document(&["one".into(), "two\n- x".into()], &file);
        assert_eq!(
            text,
            r#"# one
# two- x
"name": "shop-10000"
"networks":
  "a.b":
    "ipam": !reset null
"services":
  "db":
    "container_name": "no"
    "ports": !override
      - {"host_ip": "::1", "published": "15432", "target": 5432}
"volumes":
  "cache": !override {"external": true, "name": "x"}
"#
        );
        assert_eq!(document(&[], &Node::Map(BTreeMap::new())), "services: {}\n");
    }

    #[test]
    fn no_text_is_anything_but_text() {
        assert_eq!(
            quoted("a\"b\\c\nd\te\u{7f}\u{85}\u{2028}ü日😀"),
            "\"a\\\"b\\\\c\\u000ad\\u0009e\\u007f\\u0085\\u2028ü日😀\""
        );
        for hostile in ["\": {}\n\"x", "*a", "&a", "!override", "# c", "null", "- x", "{", "%YAML", "\u{0}"] {
            let parsed: String = serde_json::from_str(&quoted(hostile)).unwrap();
            assert_eq!(parsed, hostile);
        }
    }
}
