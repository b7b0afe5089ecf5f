//! Which files Compose reads beside those that a project names: what they `include` or `extend`, and the env files that
//! variables in them come from. An override is of these as well.
//!
//! No option of Compose tells. The files are given to it again, below a key that means nothing to it: what comes out is
//! their content with all that YAML and variables do to it, and with `include` and `extends` still there.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use serde_json::Value;
use wtd_env_file::block;
use wtd_protocol::compose::{MAX_FURTHER_BYTES, MAX_FURTHER_FILES, digest};

use super::docker::{COMPOSE_ENV_FILES, Docker};
use super::files::{Files, content};
use crate::daemon::variable;

/// How many levels of files that lead to files are followed.
const DEPTH: usize = 16;

/// The keys that lead to files. Where a file has none of them, nobody needs to read it again.
const KEYS: [&str; 2] = ["include", "extends"];

/// A file, and the directory that relative paths in it are in.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Source {
    file: PathBuf,
    directory: PathBuf,
}

/// What one file leads to.
#[derive(Debug, Default)]
struct Leads {
    sources: Vec<Source>,
    env_files: Vec<PathBuf>,
}

/// The files by their paths, each with a digest of what counts in it; absent env files are among them, since they can
/// appear. Files that can't be read are not: they are fetched from elsewhere, or Compose does without them.
pub(super) fn find(files: &Files, docker: &Docker) -> BTreeMap<String, String> {
    let directory = files.directory();
    let own = files.paths.iter().map(|file| Source { file: file.clone(), directory: directory.to_owned() });
    let mut level: Vec<Source> = own.collect();
    let mut seen: BTreeSet<Source> = level.iter().cloned().collect();
    let mut found: BTreeSet<PathBuf> =
        env_files(directory, variable(COMPOSE_ENV_FILES)).into_iter().collect();
    for _ in 0..DEPTH {
        let leads = read(&level, docker);
        found.extend(leads.env_files);
        let new = leads.sources.into_iter().filter(|source| seen.insert(source.clone()));
        level = new.collect();
        found.extend(level.iter().map(|source| source.file.clone()));
        if level.is_empty() || found.len() > MAX_FURTHER_FILES {
            break;
        }
    }
    let mut bytes = 0;
    found
        .into_iter()
        .filter(|file| !files.paths.contains(file))
        .filter_map(|file| Some((file.to_str()?.to_owned(), digest_of(&file)?)))
        .take_while(|(file, _)| {
            bytes += file.len();
            bytes <= MAX_FURTHER_BYTES
        })
        .take(MAX_FURTHER_FILES)
        .collect()
}

fn digest_of(file: &Path) -> Option<String> {
    match file.metadata() {
        Ok(_) => content(file).ok().map(|content| digest([block::outside(&content)])),
        Err(_) => Some(digest([""])),
    }
}

/// What these files lead to, as far as it can be told.
fn read(level: &[Source], docker: &Docker) -> Leads {
    let texts = level.iter().filter_map(|source| {
        let text = String::from_utf8(content(&source.file).ok()?).ok()?;
        KEYS.iter().any(|key| text.contains(key)).then_some((source, text))
    });
    let (sources, texts): (Vec<&Source>, Vec<String>) = texts.unzip();
    let mut leads = Leads::default();
    if sources.is_empty() {
        return leads;
    }
    let question = question(&texts);
    let ask = |options| docker.config(&[], options, Some(&question))?.output();
    // A variable that must be set can be one that only an included file's own env file sets.
    let answer = ask(&[]).or_else(|_| ask(&["--no-interpolate"])).unwrap_or_default();
    let answer: Value = serde_json::from_slice(&answer).unwrap_or_default();
    for (number, source) in sources.into_iter().enumerate() {
        let documents = answer.pointer(&format!("/x-wtd/f{number}")).and_then(Value::as_array);
        for document in documents.into_iter().flatten() {
            leads.add(document, &source.directory);
        }
    }
    leads
}

/// A Compose file that has these below a key of its own, each as a list of its documents.
fn question(texts: &[String]) -> String {
    let mut question = "services: {x: {image: x}}\nx-wtd:\n".to_owned();
    for (number, text) in texts.iter().enumerate() {
        question.extend(["  f", &number.to_string(), ":\n  -\n"]);
        for line in text.trim_start_matches('\u{feff}').lines() {
            let marks = |mark: &str| {
                let rest = line.strip_prefix(mark)?;
                (rest.is_empty() || rest.starts_with([' ', '\t', '\r'])).then_some(rest)
            };
            if let Some(rest) = marks("---") {
                question.extend(["  -\n    ", rest, "\n"]);
            } else if marks("...").is_none() && !line.starts_with('%') {
                question.extend(["    ", line, "\n"]);
            }
        }
    }
    question
}

impl Leads {
    /// What one document leads to, in which paths are relative to `directory`.
    fn add(&mut self, document: &Value, directory: &Path) {
        for entry in list(document.get("include")) {
            self.include(entry, directory);
        }
        let services = document.get("services").and_then(Value::as_object);
        for service in services.into_iter().flat_map(|services| services.values()) {
            if let Some(file) = service.pointer("/extends/file").and_then(Value::as_str) {
                let file = path(directory, file);
                let directory = file.parent().unwrap_or(directory).to_owned();
                self.sources.extend(file.is_file().then_some(Source { file, directory }));
            }
        }
    }

    /// Compose specification, "Include": paths in the file are in its project directory, which is that of its first file.
    fn include(&mut self, entry: &Value, directory: &Path) {
        let paths = if entry.is_string() { Some(entry) } else { entry.get("path") };
        let files: Vec<PathBuf> = texts(paths).map(|file| path(directory, file)).collect();
        let own = entry.get("project_directory").and_then(Value::as_str).map(|own| path(directory, own));
        let Some(inside) = own.or_else(|| Some(files.first()?.parent()?.to_owned())) else { return };
        let named: Vec<PathBuf> = texts(entry.get("env_file")).map(|file| path(directory, file)).collect();
        self.env_files.extend(if named.is_empty() { vec![inside.join(".env")] } else { named });
        let files = files.into_iter().filter(|file| file.is_file());
        self.sources.extend(files.map(|file| Source { file, directory: inside.clone() }));
    }
}

/// The env files that variables of the project come from.
fn env_files(directory: &Path, named: Option<OsString>) -> Vec<PathBuf> {
    let named = named.and_then(|named| named.into_string().ok()).unwrap_or_default();
    let named: Vec<_> =
        named.split(',').filter(|name| !name.is_empty()).map(|name| path(directory, name)).collect();
    if named.is_empty() { vec![directory.join(".env")] } else { named }
}

/// `text` as a path in `directory`, without what leads nowhere.
fn path(directory: &Path, text: &str) -> PathBuf {
    let text = text.replace("$$", "$");
    directory.join(text).components().collect()
}

fn list(value: Option<&Value>) -> impl Iterator<Item = &Value> {
    let (many, one) = match value {
        Some(Value::Array(many)) => (many.as_slice(), None),
        one => (&[][..], one),
    };
    many.iter().chain(one)
}

fn texts(value: Option<&Value>) -> impl Iterator<Item = &str> {
    list(value).filter_map(Value::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn files_are_found_where_compose_looks_for_them() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        for name in ["a.yaml", "b.yaml", "c$.yaml", "sub/d.yaml"] {
            std::fs::create_dir_all(root.join("sub")).unwrap();
            std::fs::write(root.join(name), "").unwrap();
        }
        let document = json!({
            "include": [
                "sub/d.yaml",
                { "path": ["a.yaml", "./sub/d.yaml"], "env_file": ["x.env", "/y.env"] },
                { "path": "b.yaml", "project_directory": "sub" },
                "oci://elsewhere/x",
                7,
            ],
            "services": {
                "one": { "extends": { "file": "c$$.yaml", "service": "x" } },
                "two": { "extends": "one" },
                "three": { "extends": { "service": "one" } },
                "four": null,
            },
        });
        let mut leads = Leads::default();
        leads.add(&document, root);
        let sources: Vec<_> =
            leads.sources.iter().map(|it| (it.file.clone(), it.directory.clone())).collect();
        let expected =
            [("sub/d.yaml", "sub"), ("a.yaml", ""), ("sub/d.yaml", ""), ("b.yaml", "sub"), ("c$.yaml", "")];
        assert_eq!(sources, expected.map(|(file, directory)| (root.join(file), path(root, directory))));
        let env_files: Vec<_> =
            leads.env_files.iter().map(|file| file.strip_prefix(root).unwrap_or(file)).collect();
        let expected = ["sub/.env", "x.env", "/y.env", "sub/.env", "oci:/elsewhere/.env"].map(Path::new);
        assert_eq!(env_files, expected);
        leads.add(&json!(["x", null]), root);
        leads.add(&Value::Null, root);
    }

    #[test]
    fn env_files_are_those_that_are_named_else_the_usual_one() {
        let of = |named: Option<&str>| env_files(Path::new("/w"), named.map(OsString::from));
        assert_eq!(of(None), [Path::new("/w/.env")]);
        assert_eq!(of(Some("")), [Path::new("/w/.env")]);
        assert_eq!(of(Some("a.env,/b")), ["/w/a.env", "/b"].map(Path::new));
    }

    #[test]
    fn markers_of_documents_are_those_of_a_list() {
        let text = "\u{feff}%YAML 1.2\n--- # one\na: |\n  ----\n...\n---\nb: 1\n".to_owned();
        let expected = "  f0:\n  -\n  -\n     # one\n    a: |\n      ----\n  -\n    \n    b: 1\n";
        assert!(question(&[text]).ends_with(expected));
    }
}
