//! Which volumes are copied, and how.

use std::collections::{BTreeMap, HashMap};

use super::{PORT, User};
use crate::domain::allocation::{Allocation, DatabaseVolume};
use crate::domain::gc::belongings::{COMPOSE_PROJECT_LABEL, COMPOSE_VOLUME_LABEL, COMPOSE_WORKING_DIR_LABEL};
use crate::domain::gc::{EngineView, Volume};
use crate::domain::names::{DatabaseName, VolumeName};

/// What a plan is made from.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// The worktree that is copied.
    pub source: &'a Allocation,
    /// The worktree whose volumes are to be filled.
    pub target: &'a Allocation,
    /// What the engine has.
    pub engine: &'a EngineView,
    /// The containers that use a volume of the source, by the volume's name.
    pub users: &'a HashMap<String, Vec<User>>,
    /// Every volume that both have, not the database's alone.
    pub all: bool,
    /// Whether containers may be paused.
    pub may_pause: bool,
}

/// One volume to be filled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The volume that is copied.
    pub source: VolumeName,
    /// The volume that is filled.
    pub volume: VolumeName,
    /// The volume as it is, if it is there; only one that is empty is taken.
    pub existing: Option<Volume>,
    /// The labels that the new one gets beside wtd's.
    pub labels: BTreeMap<String, String>,
    /// How it is copied.
    pub method: Method,
    /// The database in it that gets the target's name.
    pub rename: Option<Rename>,
}

impl Copy {
    /// The containers that may be paused for it: id and name.
    pub fn users(&self) -> &[(String, String)] {
        match &self.method {
            Method::Files(users) => users,
            Method::BaseBackup(backup) => &backup.users,
        }
    }
}

/// How a volume is copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Method {
    /// By `pg_basebackup` while the server runs; where the server refuses that, paused, if that is allowed.
    BaseBackup(BaseBackup),
    /// File by file. These containers are paused for it: id and name.
    Files(Vec<(String, String)>),
}

/// What `pg_basebackup` has to know of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseBackup {
    /// The container that the server runs in.
    pub container: String,
    /// The container's image.
    pub image: String,
    /// The data directory.
    pub data_directory: String,
    /// Where the volume is mounted.
    pub mount: String,
    /// The port, in the container.
    pub port: String,
    /// The superuser.
    pub user: String,
    /// The password, where the container's environment has one.
    pub password: Option<String>,
    /// The containers that are paused where the server refuses: id and name.
    pub users: Vec<(String, String)>,
}

/// A database that has the name of the worktree that it was copied from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rename {
    /// The image that has a server for it.
    pub image: String,
    /// The data directory.
    pub data_directory: String,
    /// Where the volume is mounted.
    pub mount: String,
    /// The name that it has.
    pub from: DatabaseName,
    /// The name that it gets.
    pub to: DatabaseName,
}

/// Why nothing is copied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A worktree is no copy of itself.
    #[error("a worktree can't be seeded from itself")]
    Itself,
    /// There is nothing that both worktrees have.
    #[error("the engine has no {} of the worktree that is copied from", what(*.0))]
    Nothing(bool),
    /// The volume is in use.
    #[error("volume {volume} is used by {users}")]
    InUse {
        /// The volume.
        volume: VolumeName,
        /// The names of the containers.
        users: String,
    },
    /// The volume is none that wtd makes.
    #[error("volume {0} is there, with a driver or options of its own")]
    Foreign(VolumeName),
    /// It can't be copied while something runs, and nothing may be paused.
    #[error("volume {volume} can't be copied while these run: {users}")]
    Running {
        /// The volume.
        volume: VolumeName,
        /// The names of the containers.
        users: String,
    },
}

fn what(all: bool) -> &'static str {
    if all { "volume" } else { "database volume" }
}

impl Refusal {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Itself => "name another with --from",
            Self::Nothing(true) => "start its stack once, or name another worktree with --from",
            Self::Nothing(false) => {
                "start its stack once, name another worktree with --from, or see what else there is with --all"
            }
            Self::InUse { .. } => "run `docker compose down` in the worktree first",
            Self::Foreign(_) => "wtd fills none but plain volumes of the engine",
            Self::Running { .. } => "stop them, or leave out --no-pause",
        }
    }
}

/// What is copied and how, or why nothing is.
pub fn plan(question: &Question<'_>) -> Result<Vec<Copy>, Refusal> {
    if question.source.id == question.target.id {
        return Err(Refusal::Itself);
    }
    let copies: Vec<Copy> = pairs(question)
        .into_iter()
        .filter(|(source, _)| question.all || is_of_database(question, source))
        .map(|(source, volume)| copy(question, source, volume))
        .collect::<Result<_, _>>()?;
    if copies.is_empty() { Err(Refusal::Nothing(question.all)) } else { Ok(copies) }
}

/// The volumes of the source that the engine has, each with the target's that corresponds to it.
pub fn pairs(question: &Question<'_>) -> BTreeMap<VolumeName, VolumeName> {
    let Question { source, target, engine, .. } = question;
    let mut pairs = BTreeMap::new();
    if let (DatabaseVolume::Own(from), DatabaseVolume::Own(to)) = (&source.volume, &target.volume) {
        pairs.insert(from.clone(), to.clone());
    }
    for (variable, from) in &source.volumes {
        if let Some(to) = target.volumes.get(variable) {
            pairs.insert(from.clone(), to.clone());
        }
    }
    // Those that a Compose override names end in the offset.
    for from in &source.former_volumes {
        let stem = from.as_str().strip_suffix(&format!("_{}", source.offset));
        let to = stem.and_then(|stem| VolumeName::new(&format!("{stem}_{}", target.offset)).ok());
        if let Some(to) = to.filter(|to| target.former_volumes.contains(to)) {
            pairs.insert(from.clone(), to);
        }
    }
    let projects = (compose_project(question), &target.compose_project);
    if let (Some(project), Some(to_project)) = projects {
        for volume in &engine.volumes {
            let Some(short) = volume.labels.get(COMPOSE_VOLUME_LABEL) else { continue };
            let is_of_project = volume.labels.get(COMPOSE_PROJECT_LABEL) == Some(&project)
                && volume.name == format!("{project}_{short}");
            let to = VolumeName::new(&format!("{to_project}_{short}"));
            if let (true, Ok(from), Ok(to)) = (is_of_project, VolumeName::new(&volume.name), to) {
                pairs.entry(from).or_insert(to);
            }
        }
    }
    let is_there = |name: &VolumeName| engine.volumes.iter().any(|volume| volume.name == name.as_str());
    pairs.retain(|from, to| from != to && is_there(from));
    pairs
}

/// The Compose project of the source. That of a main worktree has whatever name Compose gives it.
fn compose_project(question: &Question<'_>) -> Option<String> {
    if let Some(project) = &question.source.compose_project {
        return Some(project.to_string());
    }
    let is_its = |labels: &BTreeMap<String, String>| {
        let directory = labels.get(COMPOSE_WORKING_DIR_LABEL).map(std::path::Path::new);
        directory.is_some_and(|directory| directory == question.source.path)
    };
    let container = question.engine.containers.iter().find(|container| is_its(&container.labels))?;
    container.labels.get(COMPOSE_PROJECT_LABEL).cloned()
}

fn users<'a>(question: &Question<'a>, volume: &VolumeName) -> &'a [User] {
    question.users.get(volume.as_str()).map_or(&[], Vec::as_slice)
}

fn is_of_database(question: &Question<'_>, source: &VolumeName) -> bool {
    question.source.volume.name() == source
        || users(question, source).iter().any(|user| user.data_directory(source).is_some())
}

fn copy(question: &Question<'_>, source: VolumeName, volume: VolumeName) -> Result<Copy, Refusal> {
    let existing = question.engine.volumes.iter().find(|there| there.name == volume.as_str()).cloned();
    if existing
        .as_ref()
        .is_some_and(|there| there.driver != "local" || !there.is_local || !there.options.is_empty())
    {
        return Err(Refusal::Foreign(volume));
    }
    let holders = question.engine.containers.iter();
    let holders: Vec<&str> = holders
        .filter(|container| container.volumes.iter().any(|used| used == volume.as_str()))
        .map(|container| container.name.as_str())
        .collect();
    if !holders.is_empty() {
        return Err(Refusal::InUse { volume, users: holders.join(", ") });
    }
    let users = users(question, &source);
    let to_pause: Vec<(String, String)> = users
        .iter()
        .filter(|user| user.is_running && !user.is_paused)
        .map(|user| (user.id.clone(), user.name.clone()))
        .collect();
    let server = users
        .iter()
        .find(|user| user.is_running && !user.is_paused && user.data_directory(&source).is_some());
    let method = match server.and_then(|server| base_backup(server, &source, &to_pause)) {
        Some(backup) => Method::BaseBackup(backup),
        None if !to_pause.is_empty() && !question.may_pause => {
            let users: Vec<&str> = to_pause.iter().map(|(_, name)| name.as_str()).collect();
            return Err(Refusal::Running { volume: source, users: users.join(", ") });
        }
        None => Method::Files(to_pause),
    };
    let rename = rename(question, users, &source);
    Ok(Copy { labels: labels(question, &source), source, volume, existing, method, rename })
}

fn base_backup(server: &User, source: &VolumeName, users: &[(String, String)]) -> Option<BaseBackup> {
    let (data_directory, mount) = server.data_directory(source)?;
    let variable = |name: &str| server.env.get(name).filter(|value| !value.is_empty()).cloned();
    Some(BaseBackup {
        container: server.id.clone(),
        image: server.image.clone(),
        data_directory: data_directory.to_owned(),
        mount: mount.to_owned(),
        port: variable("PGPORT")
            .filter(|port| port.parse::<u16>().is_ok())
            .unwrap_or_else(|| PORT.to_owned()),
        user: variable("POSTGRES_USER").unwrap_or_else(|| "postgres".to_owned()),
        password: variable("POSTGRES_PASSWORD"),
        users: users.to_vec(),
    })
}

/// Each worktree's database has a name of its own, so a copy has the name of the one that it was copied from.
fn rename(question: &Question<'_>, users: &[User], source: &VolumeName) -> Option<Rename> {
    let (from, to) = (&question.source.database, &question.target.database);
    let (user, (data_directory, mount)) =
        users.iter().find_map(|user| Some((user, user.data_directory(source)?)))?;
    (from != to).then(|| Rename {
        image: user.image.clone(),
        data_directory: data_directory.to_owned(),
        mount: mount.to_owned(),
        from: from.clone(),
        to: to.clone(),
    })
}

/// The labels by which Compose takes the volume for one that it has made.
fn labels(question: &Question<'_>, source: &VolumeName) -> BTreeMap<String, String> {
    let Some(project) = &question.target.compose_project else { return BTreeMap::new() };
    let source = question.engine.volumes.iter().find(|volume| volume.name == source.as_str());
    let short = source.and_then(|volume| volume.labels.get(COMPOSE_VOLUME_LABEL));
    short.map_or_else(BTreeMap::new, |short| {
        BTreeMap::from([
            (COMPOSE_PROJECT_LABEL.to_owned(), project.to_string()),
            (COMPOSE_VOLUME_LABEL.to_owned(), short.clone()),
        ])
    })
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
