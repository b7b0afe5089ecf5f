//! The Compose project of a worktree, and the override that is made for it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use wtd_protocol::compose::{range, ranges};
use wtd_protocol::requests::{ComposeRequest, PathRequest};
use wtd_protocol::variable::COMPOSE_PROJECT_NAME;
use wtd_protocol::{Allocation, PathText, Worktree, routes};

use super::docker::{self, Docker};
use super::files::{self, Files};
use super::further;
use super::model::{Model, compose_name};
use super::plan::{self, Plan, plan, unmoved};
use super::variables;
use crate::daemon::Daemon;
use crate::environment::Environment;
use crate::error::Error;
use crate::output::Progress;

/// The project of a worktree, as Compose reads it.
#[derive(Debug)]
pub(crate) struct Project {
    allocation: Allocation,
    root: PathBuf,
    files: Files,
    docker: Docker,
    /// With the worktree's variables.
    own: Model,
    /// At another offset.
    reference: Model,
}

impl Project {
    /// Has Compose read the project of the worktree that holds `path`.
    pub(crate) fn read(daemon: &Daemon, path: &Path, named: &[PathBuf]) -> Result<Self, Error> {
        let allocation = daemon.allocation(path, &mut || {})?;
        let environment = Environment::of_allocation(&allocation)?;
        environment.tell_mistakes("compose");
        let _progress = Progress::of("Reading the Compose files");
        let root = environment.worktree.clone();
        let variables = variables::own(&environment);
        let written = allocation.compose.as_ref().map_or(&[][..], |compose| &compose.files);
        let start = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let files = Files::find(&root, &start, named, written, &Docker::find(&start, variables.clone())?)?;
        let docker = Docker::find(files.directory(), variables)?;
        let (own, reference) = variables::models(&allocation, &environment, &docker, &files)?;
        Ok(Self { allocation, root, files, docker, own, reference })
    }

    /// Whether the worktree has an override already.
    pub(crate) fn has_override(&self) -> bool {
        self.allocation.compose.is_some()
    }

    /// The override: as planned, free of other worktrees' ports, and taken by Compose as it is meant.
    pub(crate) fn plan(&self, daemon: &Daemon) -> Result<Plan, Error> {
        let allocation = &self.allocation;
        let others: Vec<Worktree> =
            daemon.again().get(&format!("{}?state=active,missing,stale", routes::WORKTREES))?;
        let main_project = self.main_project(&others);
        let shared = |name: &&String| {
            allocation.offset != 0 && allocation.base_ports.get(*name) == allocation.ports.get(*name)
        };
        let staying: BTreeSet<u16> = allocation
            .ports
            .iter()
            .filter(|(name, _)| allocation.main && shared(name))
            .map(|(_, port)| *port)
            .collect();
        let own_database = (allocation.mode == "isolated" || allocation.main).then_some(&allocation.volume);
        let worktree = plan::Worktree {
            id: &allocation.id,
            offset: allocation.offset,
            is_main: allocation.main,
            root: &self.root,
            project: allocation.variables.get(COMPOSE_PROJECT_NAME).map(String::as_str),
            volumes: allocation.volumes.values().chain(own_database).map(String::as_str).collect(),
            shared_volumes: allocation.shared_volumes.iter().map(String::as_str).collect(),
            main_project: &main_project,
            staying,
        };
        let plan = plan(&worktree, &self.own, &self.reference)?;
        self.refuse_taken(&plan, &others)?;
        let made = self.docker.config(&self.files.paths, &[], Some(&plan.text))?.output()?;
        plan.check(&Model::parse(&made)?).map_err(|what| docker::too_old(&what))?;
        Ok(plan)
    }

    /// Fails when another allocation has a port that the project would publish.
    fn refuse_taken(&self, plan: &Plan, others: &[Worktree]) -> Result<(), Error> {
        let allocation = &self.allocation;
        let mut taken: BTreeMap<u16, String> = BTreeMap::new();
        for other in others.iter().map(|other| &other.allocation).filter(|other| other.id != allocation.id) {
            let whose = format!("{} (offset {})", other.path, other.offset);
            for (name, port) in &other.ports {
                taken.insert(*port, format!("taken by {whose}: {name}"));
            }
            let published = other.compose.iter().flat_map(|compose| &compose.ports);
            for port in published.filter_map(|text| range(text)).flatten() {
                taken
                    .entry(port)
                    .or_insert_with(|| format!("taken by {whose}, whose Compose files publish it"));
            }
            let is_sibling = other.repository == allocation.repository && other.main;
            if is_sibling && other.compose.is_none() && allocation.offset != 0 {
                for (port, service) in unmoved(&self.own, &self.reference, other.offset == 0) {
                    taken
                        .entry(port)
                        .or_insert_with(|| format!("what service {service} publishes in {whose}"));
                }
            }
        }
        // A server that worktrees share is this one's as well.
        for port in allocation.ports.values() {
            taken.remove(port);
        }
        for (port, service) in &plan.published {
            if let Some(whose) = taken.get(port) {
                return Err(Error::failed(
                    format!("service {service}: port {port} is {whose}"),
                    "declare the ports in wtd.toml's [ports] (`wtd-client init` does), then `wtd-client reassign` finds an offset for all",
                ));
            }
        }
        Ok(())
    }

    /// The Compose project of the repository's main worktree: the name in the files, else that of its directory.
    fn main_project(&self, others: &[Worktree]) -> String {
        let allocation = &self.allocation;
        let of_directory = |directory: &Path| {
            directory.file_name().map(|name| compose_name(&name.to_string_lossy())).unwrap_or_default()
        };
        let directory = self.files.directory();
        if self.reference.name != of_directory(directory) {
            return self.reference.name.clone();
        }
        let main = others
            .iter()
            .map(|other| &other.allocation)
            .find(|other| other.main && other.repository == allocation.repository)
            .and_then(|main| main.path().ok());
        match (main, directory.strip_prefix(&self.root)) {
            (Some(main), Ok(below)) => of_directory(&main.join(below)),
            _ => allocation.project.clone(),
        }
    }

    /// What has the daemon write the override.
    pub(crate) fn request(&self, plan: Plan) -> Result<ComposeRequest, Error> {
        let text = |path: &PathBuf| {
            path.to_str().map(str::to_owned).ok_or_else(|| {
                Error::failed(
                    format!("{} is not UTF-8", path.display()),
                    "move the worktree to a path in UTF-8",
                )
            })
        };
        let paths = self.files.paths.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        let PathText { text: root, base64 } = PathText::of(&self.root);
        let ports: BTreeSet<u16> = plan.published.keys().copied().collect();
        Ok(ComposeRequest {
            path: PathRequest { path: root, path_base64: base64 },
            allocation: self.allocation.id.clone(),
            files_digest: self.files.digest.clone(),
            further: further::find(&self.files, &self.docker),
            separator: files::separator(),
            files: paths,
            text: plan.text,
            ports: ranges(&ports),
            volumes: plan.volumes.into_iter().collect(),
        })
    }
}
