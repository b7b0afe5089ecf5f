//! Volumes, containers and networks of a worktree's own.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use wtd_protocol::names::volume_name;

use wtd_protocol::contract::ALLOCATION_LABEL;

use super::model::{Model, Network, Volume};
use super::plan::Worktree;
use super::yaml::Node;
use crate::error::Error;

/// The option of a bridge network that names the host's interface (Docker's manual, "Bridge network driver").
const BRIDGE_NAME: &str = "com.docker.network.bridge.name";

/// Drivers whose networks are the host's own network: their addresses are given from outside.
pub(super) const HOST_DRIVERS: [&str; 2] = ["macvlan", "ipvlan"];

/// What is being named.
#[derive(Debug)]
pub(super) struct Names<'a> {
    worktree: &'a Worktree<'a>,
    own: &'a Model,
    reference: &'a Model,
    /// The name of each service's container, where it has a fixed one.
    pub(super) containers: BTreeMap<String, String>,
    /// The name of each volume that the override speaks of.
    pub(super) volumes: BTreeMap<String, String>,
    /// The volumes' names that are made here.
    pub(super) named: BTreeSet<String>,
    /// The names that those volumes have in the project's files.
    pub(super) left_behind: Vec<String>,
    pub(super) notes: Vec<String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(worktree: &'a Worktree<'a>, own: &'a Model, reference: &'a Model) -> Self {
        Self {
            worktree,
            own,
            reference,
            containers: BTreeMap::new(),
            volumes: BTreeMap::new(),
            named: BTreeSet::new(),
            left_behind: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// `<name>-<offset>`. At offset 0 a name stays as it is: no other worktree has that offset, and scripts know it.
    fn suffixed(&self, name: &str) -> String {
        format!("{name}-{}", self.worktree.offset)
    }

    /// Fixed names of containers, and what refers to a container by its name.
    pub(super) fn containers(&mut self, file: &mut Node) {
        if self.worktree.offset == 0 {
            return;
        }
        let mut renamed = BTreeMap::new();
        for (service, configured) in &self.own.services {
            let Some(name) = &configured.container_name else { continue };
            let elsewhere =
                self.reference.services.get(service).and_then(|other| other.container_name.as_ref());
            if elsewhere != Some(name) {
                // It has one of wtd's variables in it.
                continue;
            }
            let unique = self.suffixed(name);
            renamed.insert(name.clone(), unique.clone());
            file.at("services").at(service).set("container_name", Node::Text(unique.clone()));
            self.containers.insert(service.clone(), unique);
        }
        let renamed = |reference: &str| {
            let reference = reference.strip_prefix("container:")?;
            let (name, options) =
                reference.split_at_checked(reference.find(':').unwrap_or(reference.len()))?;
            Some(format!("container:{}{options}", renamed.get(name)?))
        };
        for (service, configured) in &self.own.services {
            let modes = [
                ("network_mode", &configured.network_mode),
                ("pid", &configured.pid),
                ("ipc", &configured.ipc),
            ];
            for (key, mode) in modes {
                if let Some(mode) = mode.as_deref().and_then(renamed) {
                    file.at("services").at(service).set(key, Node::Text(mode));
                }
            }
            if configured.volumes_from.iter().any(|from| renamed(from).is_some()) {
                let from =
                    configured.volumes_from.iter().map(|from| renamed(from).unwrap_or_else(|| from.clone()));
                let from = from.map(Value::from).collect();
                file.at("services").at(service).set("volumes_from", Node::Override(Value::Array(from)));
            }
        }
    }

    /// Named volumes: each worktree's own, but those that are external or shared.
    pub(super) fn volumes(&mut self, file: &mut Node) -> Result<(), Error> {
        for (key, volume) in self.own.volumes.iter().filter(|(_, volume)| !volume.external) {
            if self.worktree.shared_volumes.contains(key.as_str()) {
                self.share(file, key, volume);
                continue;
            }
            if self.is_own(key, volume) {
                continue;
            }
            let name = volume_name(key, self.worktree.offset);
            if !self.named.insert(name.clone()) {
                return Err(Error::failed(
                    format!("the volumes of these Compose files can't be told apart: two would be {name}"),
                    format!("give volume {key} another key"),
                ));
            }
            let node = file.at("volumes").at(key);
            node.set("name", Node::Text(name.clone()));
            node.at("labels").set(ALLOCATION_LABEL, Node::Text(self.worktree.id.to_owned()));
            self.left_behind.push(format!("{} (now {name})", volume.name));
            self.volumes.insert(key.clone(), name);
        }
        let unknown = |name: &&&str| !self.own.volumes.contains_key(**name);
        let unknown: Vec<_> = self.worktree.shared_volumes.iter().filter(unknown).copied().collect();
        if !unknown.is_empty() {
            self.notes.push(format!("wtd.toml shares {}, which no service uses", unknown.join(", ")));
        }
        Ok(())
    }

    /// Whether a volume's name is the worktree's own already, through wtd's variables. Such a volume is left alone, its
    /// labels too: newer Composes offer to make a volume anew when its labels change.
    fn is_own(&self, key: &str, volume: &Volume) -> bool {
        if self.worktree.volumes.contains(volume.name.as_str()) {
            return true;
        }
        let is_default = volume.name == self.own.default_name(key);
        let elsewhere = self.reference.volumes.get(key).map(|other| &other.name);
        !is_default && elsewhere.is_some_and(|elsewhere| *elsewhere != volume.name)
    }

    /// A shared volume is the main worktree's. Elsewhere it is external: Compose neither makes it there, with that
    /// project's label by which gc would take it for a left-over, nor deletes it.
    fn share(&mut self, file: &mut Node, key: &str, volume: &Volume) {
        if self.worktree.is_main || volume.name != self.own.default_name(key) {
            return;
        }
        let name = format!("{}_{key}", self.worktree.main_project);
        self.notes.push(format!(
            "volume {key} is shared: it is {name}, which the main worktree's stack (or `docker volume create`) makes"
        ));
        file.at("volumes").set(key, Node::Override(json!({ "name": name, "external": true })));
        self.volumes.insert(key.to_owned(), name);
    }

    /// Fixed names, bridges and addresses of networks.
    pub(super) fn networks(&mut self, file: &mut Node) {
        if self.worktree.offset == 0 {
            return;
        }
        for (key, network) in self.own.networks.iter().filter(|(_, network)| !network.external) {
            let elsewhere = self.reference.networks.get(key);
            let is_default = network.name == self.own.default_name(key);
            if !is_default && elsewhere.is_some_and(|elsewhere| elsewhere.name == network.name) {
                let unique = self.suffixed(&network.name);
                file.at("networks").at(key).set("name", Node::Text(unique));
            }
            let same = |part: &dyn Fn(&Network) -> bool| elsewhere.is_some_and(part);
            if network.driver_opts.contains_key(BRIDGE_NAME)
                && same(&|elsewhere| {
                    elsewhere.driver_opts.get(BRIDGE_NAME) == network.driver_opts.get(BRIDGE_NAME)
                })
            {
                file.at("networks").at(key).at("driver_opts").set(BRIDGE_NAME, Node::Reset);
            }
            let is_hosts = network.driver.as_deref().is_some_and(|driver| HOST_DRIVERS.contains(&driver));
            if !network.ipam.config.is_empty()
                && !is_hosts
                && same(&|elsewhere| elsewhere.ipam == network.ipam)
            {
                self.free_addresses(file, key, network);
            }
        }
    }

    /// Two networks of one engine can't have the same addresses (`Pool overlaps`), so the engine chooses others.
    fn free_addresses(&mut self, file: &mut Node, key: &str, network: &Network) {
        file.at("networks").at(key).set("ipam", Node::Reset);
        let mut fixed = Vec::new();
        for (service, configured) in &self.own.services {
            let Some(Some(attachment)) = configured.networks.get(key) else { continue };
            let addresses =
                [("ipv4_address", &attachment.ipv4_address), ("ipv6_address", &attachment.ipv6_address)];
            for (name, address) in addresses {
                if let Some(address) = address {
                    file.at("services").at(service).at("networks").at(key).set(name, Node::Reset);
                    fixed.push(format!("{service} ({address})"));
                }
            }
        }
        let subnets: Vec<_> = network
            .ipam
            .config
            .iter()
            .filter_map(|config| config.get("subnet").and_then(Value::as_str))
            .collect();
        let mut note =
            format!("network {key} gets a subnet that the engine chooses, not {}", subnets.join(", "));
        if !fixed.is_empty() {
            note.push_str("; what names services by address has to name them by name: ");
            note.push_str(&fixed.join(", "));
        }
        self.notes.push(note);
    }
}
