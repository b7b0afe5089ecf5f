//! `init`: writes a `wtd.toml` by looking at the project.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use wtd_protocol::contract::PROJECT_FILE;
use wtd_protocol::variable::{COMPOSE_PROJECT_NAME, WTD_WORKTREE};

use crate::cli::InitArgs;
use crate::compose::docker::Docker;
use crate::compose::files::Files;
use crate::compose::model::Model;
use crate::daemon::variable;
use crate::environment::absolute;
use crate::error::Error;
use crate::git;
use crate::init::text::{Source, wtd_toml};
use crate::init::{Declared, Found};
use crate::output::{self, Printable, Progress};

/// Writes the file, or prints it. No daemon is asked: an allocation that is made afterwards has every port from the
/// start.
pub(crate) fn run(args: &InitArgs) -> Result<(), Error> {
    let path = absolute(args.path.as_deref())?;
    let root = git::root(&path).ok_or_else(|| Error::NotInAWorktree(path.clone()))?;
    let file = root.join(PROJECT_FILE);
    if !args.print && file.symlink_metadata().is_ok() {
        return Err(exists(&file));
    }
    let project = {
        let _progress = Progress::of("Reading the Compose files");
        Project::read(&root, &path, &args.files)
    };
    let project = match project {
        // Files that are there, or that a person has named, are meant to be read.
        Err(Unread::Failed(error)) => return Err(error),
        Err(Unread::Absent(error)) if !args.files.is_empty() => return Err(error),
        Err(Unread::Absent(error)) => Err(error),
        Ok(project) => Ok(project),
    };
    let why = project.as_ref().err().map(ToString::to_string);
    let (declared, source) = match (&project, &why) {
        (Ok(project), _) => (project.declared(), Source::Files(&project.names)),
        (Err(_), why) => {
            let why = why.as_deref().unwrap_or_default();
            (Declared::default(), Source::Nothing(why.split_once("; ").map_or(why, |(why, _)| why)))
        }
    };
    let text = wtd_toml(&declared, &main_name(&root), &source);
    if args.print {
        return output::bytes(text.as_bytes());
    }
    write(&file, &text)?;
    if let Source::Nothing(why) = source {
        output::note("init", &format!("the file is a template: {why}"));
    }
    let is_other = |main: &PathBuf| {
        main.canonicalize().is_ok_and(|main| file.canonicalize().is_ok_and(|own| own != main))
    };
    if let Some(main) = main_file(&root).filter(is_other) {
        output::note("init", &format!("this worktree uses it in place of {} from now on", main.display()));
    }
    output::styled(&told(&file, &declared, project.as_ref().ok()))
}

fn exists(file: &Path) -> Error {
    Error::failed(
        format!("{} is there already", file.display()),
        "change it by hand, or compare it with `wtd-client init --print`",
    )
}

/// Writes the file where there is none, and never over another one.
fn write(file: &Path, text: &str) -> Result<(), Error> {
    let written = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(file)
        .and_then(|mut created| created.write_all(text.as_bytes()));
    written.map_err(|error| match error.kind() {
        std::io::ErrorKind::AlreadyExists => exists(file),
        _ => Error::failed(
            format!("{} can't be written: {error}", file.display()),
            "see that the worktree has room and can be written",
        ),
    })
}

/// What was found, and what to do next.
fn told(file: &Path, declared: &Declared, project: Option<&Project>) -> String {
    let mut lines = vec![format!("Wrote {}: {}.", file.display(), declared.summary())];
    lines.push("Look it over and commit it; `wtd-client list` shows what each worktree has.".to_owned());
    if declared.takes_trust() {
        lines.push("Its [env] takes your word first: `wtd-client trust`.".to_owned());
    }
    if let Some(project) = project.filter(|project| project.found.has_plain_ports()) {
        lines.push(format!(
            "{} publishes ports as plain numbers: write variables there, or run `wtd-client compose --write` in each worktree.",
            project.names
        ));
    }
    output::lines(lines.iter().map(|line| Printable(line)))
}

/// Why a project can't be read.
enum Unread {
    /// There are no Compose files, or nothing that reads them.
    Absent(Error),
    /// They are there, and can't be read.
    Failed(Error),
}

/// The project as its Compose files have it.
struct Project {
    found: Found,
    /// The files, for people.
    names: String,
    /// The name of the directory that they are in.
    directory: String,
}

impl Project {
    fn read(root: &Path, path: &Path, named: &[PathBuf]) -> Result<Self, Unread> {
        let start = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        // The project's name is that of its files, not of the worktree that a shell has variables of.
        let environment = BTreeMap::from([(COMPOSE_PROJECT_NAME.to_owned(), None)]);
        let docker = Docker::find(&start, environment.clone()).map_err(Unread::Absent)?;
        let files = Files::find(root, &start, named, &[], &docker).map_err(Unread::Absent)?;
        let docker = Docker::find(files.directory(), environment).map_err(Unread::Absent)?;
        Self::of(root, &docker, &files).map_err(Unread::Failed)
    }

    fn of(root: &Path, docker: &Docker, files: &Files) -> Result<Self, Error> {
        let raw = docker.config(&files.paths, &["--no-interpolate"], None)?.output()?;
        let mut found = Found::parse(&raw)?;
        if found.unsaid().next().is_some() {
            // Values that wtd has given the shell are no base ports.
            let ours = variable(WTD_WORKTREE).is_some();
            let unset = found.unsaid().filter(|_| ours).map(|name| (name.to_owned(), None)).collect();
            let model = docker.with(&unset).config(&files.paths, &[], None)?.output();
            // Without values for all variables the project can't be read so; the container's ports stand in then.
            if let Some(model) = model.ok().and_then(|model| Model::parse(&model).ok()) {
                found.settle(&model);
            }
        }
        let name = |path: &PathBuf| path.strip_prefix(root).unwrap_or(path).display().to_string();
        Ok(Self {
            found,
            names: files.paths.iter().map(name).collect::<Vec<_>>().join(", "),
            directory: file_name(files.directory()),
        })
    }

    fn declared(&self) -> Declared {
        Declared::of(&self.found, &self.directory)
    }
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// The main worktree, where its git dir tells.
fn main_worktree(root: &Path) -> Option<PathBuf> {
    let common_dir = git::common_dir(root).filter(|dir| file_name(dir) == ".git");
    common_dir.as_deref().and_then(Path::parent).map(Path::to_owned)
}

/// The file that a linked worktree without one of its own uses.
fn main_file(root: &Path) -> Option<PathBuf> {
    main_worktree(root).map(|main| main.join(PROJECT_FILE))
}

/// The name of the main worktree's directory, after which projects are called.
fn main_name(root: &Path) -> String {
    main_worktree(root).map_or_else(|| file_name(root), |main| file_name(&main))
}
