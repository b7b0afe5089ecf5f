//! From the text of a `wtd.toml` to a project.

mod database;

use std::fmt::Display;
use std::num::NonZeroU16;
use std::ops::Range;
use std::path::Path;

use toml::Spanned;
use toml::de::{DeString, DeTable, DeValue};
use wtd_env_file::EnvFilePath;
use wtd_protocol::variable::{DB_HOST_PORT, Variable, VariableError};

use super::FILE_NAME;
use crate::domain::content_hash::ContentHash;
use crate::domain::names::VolumeName;
use crate::domain::project::Project;
use crate::domain::template::Template;
use crate::text::{excerpt, line_of, plain};

/// The most ports, the most further volumes, and the most further variables that a project can declare.
pub(super) const MAX_ENTRIES: usize = 64;

/// The most files that are kept for a worktree.
const MAX_FILES: usize = 16;

/// The most warnings that one file gives; the rest are counted.
pub(super) const MAX_WARNINGS: usize = 20;

type Key<'t> = Spanned<DeString<'t>>;
type Value<'t> = Spanned<DeValue<'t>>;

/// What `bytes`, the content of `file`, make of the built-in values.
pub(crate) fn parse(built_in: Project, file: &Path, bytes: &[u8]) -> Project {
    let mut parser = Parser { project: built_in, text: bytes, complaints: Vec::new(), note: None };
    match std::str::from_utf8(bytes) {
        Err(error) => {
            parser.complain_at(error.valid_up_to(), "this is not UTF-8, so nothing in the file is used");
        }
        Ok(text) => {
            let (document, errors) = DeTable::parse_recoverable(text);
            // The parser reports what it misses at the end before what it can't read on the way; the first in
            // the file is most often the cause of the others.
            let start_of = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);
            match errors.iter().min_by_key(|error| start_of(error)) {
                Some(error) => parser.complain_at(
                    start_of(error),
                    format!("{}, so nothing in the file is used", plain(error.message())),
                ),
                None => parser.document(document.get_ref()),
            }
        }
    }
    parser.finish(file)
}

struct Parser<'t> {
    project: Project,
    text: &'t [u8],
    /// What is wrong, with the byte where it is.
    complaints: Vec<(usize, String)>,
    /// What is told of the project's name, which is no mistake.
    note: Option<String>,
}

impl Parser<'_> {
    fn document(&mut self, document: &DeTable<'_>) {
        self.know(document, "", &["project", "ports", "database", "volumes", "env", "files", "shared"]);
        if let Some(value) = document.get("project") {
            self.project_name(value);
        }
        // The database first: whether a volume's name is free depends on it. Then ports, since a volume's
        // variable may not be a port's.
        if let Some(database) = self.table_at(document, "database") {
            self.database(database);
        }
        if let Some(ports) = self.table_at(document, "ports") {
            self.ports(ports);
        }
        if let Some(volumes) = self.table_at(document, "volumes") {
            self.volumes(volumes);
        }
        if let Some(env) = self.table_at(document, "env") {
            self.templates(env);
        }
        if let Some(files) = self.table_at(document, "files") {
            self.env_files(files);
        }
        if let Some(value) = document.get("shared") {
            self.shared(value);
        }
    }

    fn project_name(&mut self, value: &Value<'_>) {
        let Some(name) = self.string("project", value) else { return };
        if !name.contains(|c: char| c.is_ascii_alphanumeric()) {
            return self.complain(
                "project",
                value.span(),
                format_args!("{:?} has no letter or digit", excerpt(name)),
            );
        }
        self.project.rename(name);
        self.project.name_is_configured = true;
        if self.project.name != name {
            self.note = Some(format!(
                "project {:?} in {FILE_NAME} is taken as {:?}, which Compose allows",
                excerpt(name),
                self.project.name
            ));
        }
    }

    fn ports(&mut self, ports: &DeTable<'_>) {
        let mut entries = in_order(ports);
        // A port that DB_HOST_PORT gives up can be another variable's, wherever in the file that is.
        entries.sort_by_key(|(name, _)| name.get_ref() != DB_HOST_PORT);
        for (name, value) in entries {
            let label = format!("ports.{}", shown(name));
            let Some(variable) = self.variable(&label, name) else { continue };
            let Some(port) = self.port(&label, value) else { continue };
            let same_port =
                self.project.base_ports.iter().find(|(other, base)| **base == port && **other != variable);
            if let Some((other, _)) = same_port {
                let reason = format!("{port} is the port of {other} already");
                self.complain(&label, value.span(), reason);
            } else if self.project.base_ports.len() >= MAX_ENTRIES
                && !self.project.base_ports.contains_key(&variable)
            {
                return self.complain(
                    &label,
                    name.span(),
                    format_args!("only {MAX_ENTRIES} ports can be declared"),
                );
            } else {
                self.project.base_ports.insert(variable, port);
            }
        }
    }

    fn port(&mut self, label: &str, value: &Value<'_>) -> Option<NonZeroU16> {
        let DeValue::Integer(number) = value.get_ref() else {
            self.complain(label, value.span(), wanted("a port number", value.get_ref()));
            return None;
        };
        let port =
            i64::from_str_radix(number.as_str(), number.radix()).ok().and_then(|port| port.try_into().ok());
        let port = port.and_then(NonZeroU16::new);
        if port.is_none() {
            let reason = format!("{} is not a port: ports go from 1 to 65535", excerpt(number.as_str()));
            self.complain(label, value.span(), reason);
        }
        port
    }

    fn volumes(&mut self, volumes: &DeTable<'_>) {
        for (name, value) in in_order(volumes) {
            let label = format!("volumes.{}", shown(name));
            let Some(variable) = self.variable(&label, name) else { continue };
            let Some(stem) = self.volume_stem(&label, value) else { continue };
            if self.project.base_ports.contains_key(&variable) {
                self.complain(&label, name.span(), "a port has that variable already");
            } else if self.project.volume_stem == stem
                || self.project.volume_stems.values().any(|other| *other == stem)
            {
                self.complain(
                    &label,
                    value.span(),
                    format_args!("{stem:?} is another volume's name already"),
                );
            } else if self.project.volume_stems.len() >= MAX_ENTRIES {
                return self.complain(
                    &label,
                    name.span(),
                    format_args!("only {MAX_ENTRIES} volumes can be declared"),
                );
            } else {
                self.project.volume_stems.insert(variable, stem);
            }
        }
    }

    /// The templates, last of all: whether a name is free depends on the others, and so does what a template can use.
    fn templates(&mut self, env: &DeTable<'_>) {
        for (name, value) in in_order(env) {
            let label = format!("env.{}", shown(name));
            let Some(variable) = self.variable(&label, name) else { continue };
            let Some(text) = self.string(&label, value) else { continue };
            if self.project.base_ports.contains_key(&variable)
                || self.project.volume_stems.contains_key(&variable)
            {
                self.complain(&label, name.span(), "a port or a volume has that variable already");
            } else if self.project.templates.len() >= MAX_ENTRIES {
                return self.complain(
                    &label,
                    name.span(),
                    format_args!("only {MAX_ENTRIES} variables can be declared"),
                );
            } else {
                match Template::parse(text, |name| self.is_given(name)) {
                    Ok(template) => drop(self.project.templates.insert(variable, template)),
                    Err(error) => self.complain(&label, value.span(), plain(&error.to_string())),
                }
            }
        }
    }

    /// Whether a worktree can have a variable of this name without any template. Not every one has all of wtd's own.
    fn is_given(&self, name: &str) -> bool {
        matches!(Variable::new(name), Err(VariableError::Ours(_)))
            || self.project.base_ports.contains_key(name)
            || self.project.volume_stems.contains_key(name)
    }

    fn env_files(&mut self, files: &DeTable<'_>) {
        self.know(files, "files.", &["env"]);
        let Some(value) = files.get("env") else { return };
        for (path, span) in self.strings("files.env", value) {
            match EnvFilePath::new(Path::new(path)) {
                Ok(file) if self.project.env_files.contains(&file) => {}
                Ok(_) if self.project.env_files.len() >= MAX_FILES => {
                    return self.complain(
                        "files.env",
                        span,
                        format_args!("only {MAX_FILES} files can be kept"),
                    );
                }
                Ok(file) => self.project.env_files.push(file),
                Err(error) => {
                    self.complain("files.env", span, format_args!("{:?}: {error}", excerpt(path)));
                }
            }
        }
    }

    /// Volumes of the project's Compose files, as they are called there.
    fn shared(&mut self, value: &Value<'_>) {
        for (name, span) in self.strings("shared", value) {
            if !is_compose_key(name) {
                let name = excerpt(name);
                let reason =
                    format!("{name:?} is not a volume of a Compose file: use letters, digits, _ . and -");
                self.complain("shared", span, reason);
            } else if self.project.shared_volumes.len() >= MAX_ENTRIES
                && !self.project.shared_volumes.contains(name)
            {
                let reason = format!("only {MAX_ENTRIES} volumes can be declared");
                return self.complain("shared", span, reason);
            } else {
                self.project.shared_volumes.insert(name.to_owned());
            }
        }
    }

    /// Complains of every key that is not among the known ones.
    fn know(&mut self, table: &DeTable<'_>, prefix: &str, known: &[&str]) {
        for (name, _) in table {
            if !known.contains(&name.get_ref().as_ref()) {
                let reason = format!("there is no such key; the keys are {}", known.join(", "));
                self.complain(&format!("{prefix}{}", shown(name)), name.span(), reason);
            }
        }
    }

    fn table_at<'d, 't>(&mut self, document: &'d DeTable<'t>, key: &str) -> Option<&'d DeTable<'t>> {
        let value = document.get(key)?;
        let table = value.get_ref().as_table();
        if table.is_none() {
            self.complain(key, value.span(), wanted("a table", value.get_ref()));
        }
        table
    }

    fn string<'v>(&mut self, label: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let string = value.get_ref().as_str();
        if string.is_none() {
            self.complain(label, value.span(), wanted("a string", value.get_ref()));
        }
        string
    }

    /// The strings of an array, each with its place.
    fn strings<'v>(&mut self, label: &str, value: &'v Value<'_>) -> Vec<(&'v str, Range<usize>)> {
        let Some(array) = value.get_ref().as_array() else {
            self.complain(label, value.span(), wanted("an array of strings", value.get_ref()));
            return Vec::new();
        };
        array.iter().filter_map(|entry| Some((self.string(label, entry)?, entry.span()))).collect()
    }

    fn variable(&mut self, label: &str, name: &Key<'_>) -> Option<Variable> {
        Variable::new(name.get_ref()).map_err(|error| self.complain(label, name.span(), error)).ok()
    }

    fn volume_stem(&mut self, label: &str, value: &Value<'_>) -> Option<String> {
        let stem = self.string(label, value)?;
        match VolumeName::new(stem) {
            Ok(stem) => Some(stem.to_string()),
            Err(error) => {
                self.complain(label, value.span(), error);
                None
            }
        }
    }

    fn complain(&mut self, label: &str, span: Range<usize>, reason: impl Display) {
        self.complain_at(span.start, format!("{label}: {reason}"));
    }

    fn complain_at(&mut self, offset: usize, complaint: impl Into<String>) {
        self.complaints.push((offset, complaint.into()));
    }

    fn finish(mut self, file: &Path) -> Project {
        let file = plain(&file.to_string_lossy());
        self.complaints.sort_by_key(|(offset, _)| *offset);
        let omitted = self.complaints.len().saturating_sub(MAX_WARNINGS);
        self.project.warnings = self
            .complaints
            .iter()
            .take(MAX_WARNINGS)
            .map(|(offset, complaint)| format!("{file}:{}: {complaint}", line_of(self.text, *offset)))
            .collect();
        if self.project.takes_trust() {
            self.project.content = Some(ContentHash::of(self.text));
        }
        if omitted > 0 {
            self.project.warnings.push(format!("{file}: {omitted} more complaints"));
        }
        self.project.warnings.extend(self.note);
        self.project
    }
}

/// Whether a Compose file can have a volume of this key (the Compose specification's schema:
/// `^[a-zA-Z0-9._-]+$`).
fn is_compose_key(key: &str) -> bool {
    (1..=128).contains(&key.len())
        && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The entries of a table as they stand in the file; the table itself is sorted by key.
fn in_order<'d, 't>(table: &'d DeTable<'t>) -> Vec<(&'d Key<'t>, &'d Value<'t>)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries
}

fn shown(key: &Key<'_>) -> String {
    plain(excerpt(key.get_ref()))
}

fn wanted(what: &str, value: &DeValue<'_>) -> String {
    let found = match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    };
    format!("wanted {what}, found {found}")
}
