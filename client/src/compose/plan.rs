//! What isolates a worktree: from what Compose says of the project to the override. A pure function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

use super::model::{Model, Port};
use super::names::Names;
use super::notes;
use super::ports::{self, Move, Published};
use super::yaml::{self, Node};
use crate::error::Error;

/// What of the worktree goes into its override.
#[derive(Debug)]
pub(crate) struct Worktree<'a> {
    /// The allocation's id.
    pub(crate) id: &'a str,
    /// The offset.
    pub(crate) offset: u16,
    /// Whether it is the repository's main worktree.
    pub(crate) is_main: bool,
    /// Its root directory.
    pub(crate) root: &'a Path,
    /// `COMPOSE_PROJECT_NAME`; none for a main worktree, whose stack keeps the name that Compose gives it.
    pub(crate) project: Option<&'a str>,
    /// Names of volumes that are the worktree's by wtd's own variables: what has one of them is isolated already.
    pub(crate) volumes: BTreeSet<&'a str>,
    /// Volumes of the Compose files that all worktrees share.
    pub(crate) shared_volumes: BTreeSet<&'a str>,
    /// The Compose project of the main worktree, whose volumes those are.
    pub(crate) main_project: &'a str,
    /// Ports that do not move: of a server that worktrees share, where it is this worktree's to run it.
    pub(crate) staying: BTreeSet<u16>,
}

/// An override, and what to know about it.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The override as a Compose file.
    pub(crate) text: String,
    /// The host ports that the project publishes under it, each with the service.
    pub(crate) published: Published,
    /// The volumes that it names.
    pub(crate) volumes: BTreeSet<String>,
    /// The names that these volumes have without it, each with the one that it has now.
    pub(crate) left_behind: Vec<String>,
    /// What it does not isolate, one line each.
    pub(crate) notes: Vec<String>,
    /// What Compose has to make of the files and the override together.
    expected: Expected,
}

#[derive(Debug)]
struct Expected {
    project: Option<String>,
    ports: BTreeMap<String, Vec<Port>>,
    containers: BTreeMap<String, String>,
    volumes: BTreeMap<String, String>,
}

/// The override for `worktree`. `own` is the project as Compose reads it with the worktree's variables; `reference`
/// is the same at another offset: 0, or any other where the worktree's own is 0.
pub(crate) fn plan(worktree: &Worktree<'_>, own: &Model, reference: &Model) -> Result<Plan, Error> {
    let mut file = Node::Map(BTreeMap::new());
    if let Some(project) = worktree.project {
        file.set("name", Node::Text(project.to_owned()));
    }
    let moving = Move { offset: worktree.offset, staying: &worktree.staying };
    let mut published = Published::new();
    let mut expected_ports = BTreeMap::new();
    for (name, service) in &own.services {
        let at_0 = reference.services.get(name).filter(|_| worktree.offset != 0);
        let moved = moving.service(name, service, at_0)?;
        ports::collect(name, &moved.ports, &mut published)?;
        if moved.is_changed {
            let ports = moved.ports.iter().map(|port| Value::Object(port.0.clone())).collect();
            file.at("services").at(name).set("ports", Node::Override(Value::Array(ports)));
        }
        expected_ports.insert(name.clone(), moved.ports);
    }
    let mut names = Names::new(worktree, own, reference);
    names.containers(&mut file);
    names.volumes(&mut file)?;
    names.networks(&mut file);
    let Names { containers, volumes, named, left_behind, mut notes, .. } = names;
    notes.extend(notes::of(worktree, own, reference));
    Ok(Plan {
        text: yaml::document(&comment(worktree), &file),
        published,
        volumes: named,
        left_behind,
        notes,
        expected: Expected {
            project: worktree.project.map(str::to_owned),
            ports: expected_ports,
            containers,
            volumes,
        },
    })
}

fn comment(worktree: &Worktree<'_>) -> [String; 2] {
    [
        format!("Written by `wtd-client compose` for the worktree at offset {}.", worktree.offset),
        "Do not edit it: run `wtd-client compose --write` again when the Compose files have changed."
            .to_owned(),
    ]
}

impl Plan {
    /// Whether `model`, which Compose makes of the files and the override, is as planned; else what is not.
    pub(crate) fn check(&self, model: &Model) -> Result<(), String> {
        let Expected { project, ports, containers, volumes } = &self.expected;
        if project.as_ref().is_some_and(|project| *project != model.name) {
            return Err("the project's name".to_owned());
        }
        for (name, ports) in ports {
            let found = model.services.get(name).map_or(&[][..], |service| &service.ports);
            let as_planned =
                |(a, b): (&Port, &Port)| a.published() == b.published() && a.target() == b.target();
            if ports.len() != found.len() || !ports.iter().zip(found).all(as_planned) {
                return Err(format!("the ports of service {name}"));
            }
        }
        for (name, container) in containers {
            let found = model.services.get(name).and_then(|service| service.container_name.as_ref());
            if found != Some(container) {
                return Err(format!("the container of service {name}"));
            }
        }
        for (key, volume) in volumes {
            if model.volumes.get(key).is_none_or(|found| found.name != *volume) {
                return Err(format!("the volume {key}"));
            }
        }
        Ok(())
    }
}

/// The host ports that the main worktree publishes without an override: at offset 0 (`reference`), or what `own` does
/// not move by itself.
pub(crate) fn unmoved(own: &Model, reference: &Model, main_is_at_0: bool) -> Published {
    let at_0 = ports::of_model(reference);
    if main_is_at_0 {
        return at_0;
    }
    let own = ports::of_model(own);
    at_0.into_iter().filter(|(port, _)| own.contains_key(port)).collect()
}
