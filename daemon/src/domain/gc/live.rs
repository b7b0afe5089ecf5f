//! What live allocations have, which gc never drops.

use std::collections::HashMap;
use std::path::Path;

use wtd_protocol::State;

use super::Volume;
use super::belongings::{ALLOCATION_LABEL, COMPOSE_PROJECT_LABEL, is_labelled};
use super::keep::Keep;
use crate::domain::allocation::{Allocation, DatabaseVolume};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::domain::names::ComposeProject;
use crate::domain::project::DatabaseMode;

/// What live allocations have.
pub(super) struct Live<'a> {
    /// By volume name; the registry allows one claim, and this does not count on it.
    names: HashMap<&'a str, Vec<(AllocationId, &'a Path)>>,
    /// Volumes of servers that worktrees share, each with a worktree that uses it.
    shared: HashMap<&'a str, &'a Path>,
    /// Ports of servers that live worktrees share, each with one of them.
    servers: HashMap<u16, &'a Path>,
    ids: HashMap<String, (AllocationId, &'a Path)>,
    projects: HashMap<&'a str, &'a Path>,
    /// By the name that Compose gives the project of whoever starts a stack there without the worktree's variables, or in
    /// a main worktree, which has no other.
    directories: HashMap<String, &'a Path>,
}

impl<'a> Live<'a> {
    pub(super) fn of(ledger: &'a Ledger) -> Self {
        let mut live = Self {
            names: HashMap::new(),
            shared: HashMap::new(),
            servers: HashMap::new(),
            ids: HashMap::new(),
            projects: HashMap::new(),
            directories: HashMap::new(),
        };
        for allocation in ledger.allocations() {
            // The volume of a server that worktrees share is nobody's own, whatever becomes of them.
            if let DatabaseVolume::Shared(name) = &allocation.volume {
                live.shared.insert(name.as_str(), &allocation.path);
            }
            if !allocation.is_live() {
                continue;
            }
            if let Some(port) =
                allocation.database_port().filter(|_| allocation.mode != DatabaseMode::Isolated)
            {
                live.servers.insert(port, &allocation.path);
            }
            let entry = (allocation.id, allocation.path.as_path());
            for name in allocation.own_volumes() {
                live.names.entry(name.as_str()).or_default().push(entry);
            }
            live.ids.insert(allocation.id.to_string(), entry);
            live.directories.insert(compose_default(&allocation.path), &allocation.path);
            if let Some(project) =
                allocation.compose_project.as_ref().filter(|_| allocation.state == State::Active)
            {
                live.projects.insert(project.as_str(), &allocation.path);
            }
        }
        live
    }

    /// Whether a live allocation other than this one has the volume, by name, by label or by Compose project.
    pub(super) fn claims(&self, allocation: &Allocation, volume: &Volume) -> Option<Keep> {
        let label = |name| volume.labels.get(name).map(String::as_str);
        let named = self.names.get(volume.name.as_str()).into_iter().flatten();
        let labelled = label(ALLOCATION_LABEL).and_then(|id| self.ids.get(id));
        let other = named.chain(labelled).find(|(id, _)| *id != allocation.id);
        let path = other.map(|(_, path)| *path);
        let project = label(COMPOSE_PROJECT_LABEL);
        let by_project = project.and_then(|name| self.projects.get(name).copied());
        // Its project is all that speaks for it then, and the same would be said of the live worktree's own.
        let is_found_by_project = !is_labelled(allocation, volume)
            && !allocation.own_volumes().any(|name| name.as_str() == volume.name);
        let by_directory =
            project.filter(|_| is_found_by_project).and_then(|name| self.directories.get(name).copied());
        let shared = self.shared.get(volume.name.as_str()).copied();
        let path = path.or(by_project).or(by_directory).or(shared);
        path.map(|path| Keep::Live(path.display().to_string()))
    }

    /// Whether live allocations share a server on the port that this one's own server had: one that was made in mode
    /// `isolated`, before the project's mode was changed. Their databases are in its volume then.
    pub(super) fn shares_server(&self, allocation: &Allocation, volume: &Volume) -> Option<Keep> {
        let DatabaseVolume::Own(own) = &allocation.volume else { return None };
        let path = self.servers.get(&allocation.database_port()?).filter(|_| own.as_str() == volume.name)?;
        Some(Keep::SharedServer(path.display().to_string()))
    }

    pub(super) fn has_project(&self, project: &ComposeProject) -> Option<String> {
        self.projects.get(project.as_str()).map(|path| path.display().to_string())
    }
}

/// The project's name that Compose makes from a directory's (Compose specification, "Name top-level element"; in
/// compose-go `NormalizeProjectName`): lower case, without the characters that a name can't have.
pub(super) fn compose_default(directory: &Path) -> String {
    let name = directory.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
    let kept =
        name.chars().filter(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '_' | '-'));
    kept.collect::<String>().trim_start_matches(['_', '-']).to_owned()
}
