//! One function for each parser of foreign bytes, which fails where an answer is none that such a parser may give.
//! `tests/fuzz` calls them with what it makes up; `cargo test` with what is in its corpora.

#![expect(clippy::missing_panics_doc, reason = "each of them is an assertion about a parser")]

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path};

use wtd_env_file::Block;
use wtd_protocol::gc::{GcRequest, RestoreRequest};
use wtd_protocol::names::is_volume_name;
use wtd_protocol::requests::{ComposeRequest, ForgetRequest, PathRequest, ReassignRequest, TrustRequest};
use wtd_protocol::variable::Variable;
use wtd_protocol::{AllocationFile, PathText};

use crate::domain::database_url::DatabaseUrl;
use crate::domain::project::Project;
use crate::domain::template::Template;
use crate::{config, git, project_file};

/// What is called with input.
#[cfg(test)]
type Parser = fn(&[u8]);

/// The parsers, by the names of their corpora.
#[cfg(test)]
const PARSERS: [(&str, Parser); 8] = [
    ("allocation_file", allocation_file),
    ("config", config),
    ("database_url", database_url),
    ("env_file", env_file),
    ("git_files", git_files),
    ("requests", requests),
    ("template", template),
    ("wtd_toml", wtd_toml),
];

/// A repository's `wtd.toml`.
pub fn wtd_toml(bytes: &[u8]) {
    let file = Path::new("/w/wtd.toml");
    let project = project_file::parsing::parse(Project::named("w"), file, bytes);
    assert!(project.base_ports.contains_key(&Variable::db_host_port()), "DB_HOST_PORT is gone");
    let variables =
        project.base_ports.keys().chain(project.volume_stems.keys()).chain(project.templates.keys());
    for variable in variables {
        assert!(Variable::new(variable.as_str()).is_ok(), "{variable:?}");
    }
    for stem in project.volume_stems.values().chain([&project.volume_stem]) {
        assert!(is_volume_name(stem), "{stem:?}");
    }
    for file in &project.env_files {
        let is_name = |part| matches!(part, Component::Normal(name) if name != ".git");
        assert!(file.as_path().components().all(is_name), "{}", file.as_path().display());
    }
    for warning in &project.warnings {
        assert!(!warning.chars().any(char::is_control), "{warning:?}");
    }
    let takes_trust =
        !project.templates.is_empty() || !project.env_files.is_empty() || project.database_url.is_some();
    assert!(!takes_trust || project.content.is_some(), "what takes trust has no content to be trusted");
}

/// The files by which git's directories name each other, and git's own list of worktrees.
pub fn git_files(bytes: &[u8]) {
    let here = Path::new("/r/.git/worktrees/w");
    let named = [
        git::links::root_from_gitdir(bytes, here),
        git::links::git_dir_from_dot_git(bytes, here),
        git::links::common_dir_from(bytes, here),
    ];
    for path in named.into_iter().flatten() {
        assert!(path.is_absolute(), "{}", path.display());
    }
    drop(git::ask::parse(bytes));
}

/// An allocation file: what is read of it can be written, and read again.
pub fn allocation_file(bytes: &[u8]) {
    if let Ok(file) = AllocationFile::parse(bytes)
        && let Ok(written) = file.to_bytes()
    {
        assert_eq!(AllocationFile::parse(&written).ok(), Some(file));
    }
}

/// The daemon's own configuration file.
pub fn config(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Err(error) = config::parse(Path::new("/c/config.toml"), text)
    {
        assert!(!error.to_string().contains('\n'), "{error}");
    }
}

/// A template of `[env]`: it is only text and placeholders.
pub fn template(bytes: &[u8]) {
    if let Ok(text) = str::from_utf8(bytes)
        && let Ok(template) = Template::parse(text, |name| name == "DB_HOST_PORT")
    {
        assert_eq!(template.text(), text);
    }
}

/// The URL of a database server. No error repeats it, since there can be a password in it.
pub fn database_url(bytes: &[u8]) {
    const SECRET: &str = "xG4vPq9ZtW1n";
    let Ok(text) = str::from_utf8(bytes) else { return };
    for text in [text.to_owned(), format!("{text}{SECRET}")] {
        if let Err(error) = DatabaseUrl::parse(&text) {
            assert!(!error.to_string().contains(SECRET), "{error}");
        }
    }
}

/// A file that a block of variables is kept in: every byte of it that is not the block's stays, and a second time changes
/// nothing.
pub fn env_file(bytes: &[u8]) {
    let block = Block::of([("PORT_OFFSET", OsStr::new("10000")), ("DB_VOLUME", OsStr::new("$(x)"))]);
    let Ok(once) = block.put_into(bytes) else { return };
    assert_eq!(block.put_into(&once).as_deref(), Ok(&*once));
    let begins = once.windows(MARK.len()).position(|part| part == MARK).unwrap_or_default();
    assert!(bytes.starts_with(once.get(..begins).unwrap_or_default()) || !bytes.ends_with(b"\n"));
}

/// How a block begins.
const MARK: &[u8] = b"# >>> wtd >>>";

/// The bodies of requests.
pub fn requests(bytes: &[u8]) {
    if let Ok(request) = serde_json::from_slice::<PathRequest>(bytes)
        && let Ok(path) = request.path()
    {
        let again = PathText::of(&path);
        let again = PathText::path(&again.text, again.base64.as_deref());
        assert_eq!(again.ok().as_deref(), Some(path.as_path()));
    }
    drop(serde_json::from_slice::<ReassignRequest>(bytes));
    drop(serde_json::from_slice::<ComposeRequest>(bytes));
    drop(serde_json::from_slice::<ForgetRequest>(bytes));
    drop(serde_json::from_slice::<TrustRequest>(bytes));
    drop(serde_json::from_slice::<GcRequest>(bytes));
    drop(serde_json::from_slice::<RestoreRequest>(bytes));
    // A path is bytes before it is text.
    let path = Path::new(OsStr::from_bytes(bytes));
    let text = PathText::of(path);
    let again = PathText::path(&text.text, text.base64.as_deref());
    assert!(bytes.contains(&0) || again.ok().as_deref() == Some(path), "{}", path.display());
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::PARSERS;

    #[test]
    fn every_parser_takes_what_is_in_its_corpus() {
        let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, parser) in PARSERS {
            let files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "nothing in the corpus of {name}");
            for file in files {
                parser(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
