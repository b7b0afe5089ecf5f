//! What an override can't isolate, to be told.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use serde_json::Value;

use super::model::{Model, Mount, Volume};
use super::names::HOST_DRIVERS;
use super::plan::Worktree;

/// Directories of the system that containers mount for what is in them, and not to keep data there.
const SYSTEM: [&str; 8] = ["/dev", "/etc", "/lib", "/proc", "/run", "/sys", "/usr", "/var/run"];

/// One line for each thing that worktrees go on sharing.
pub(super) fn of(worktree: &Worktree<'_>, own: &Model, reference: &Model) -> Vec<String> {
    let mut notes = Vec::new();
    let services = |is_so: &dyn Fn(&str) -> bool| {
        own.services.keys().filter(|name| is_so(name)).map(String::as_str).collect::<Vec<_>>()
    };
    let on_host = services(&|name| {
        own.services.get(name).is_some_and(|service| service.network_mode.as_deref() == Some("host"))
    });
    if !on_host.is_empty() {
        notes.push(format!(
            "{} can't be isolated: with network_mode host, ports are not Compose's to move",
            list("service", "services", &on_host)
        ));
    }
    for (key, network) in &own.networks {
        if network.external {
            notes.push(format!(
                "network {key} is external: services of all worktrees meet there under the same names"
            ));
        } else if let Some(driver) = network.driver.as_deref().filter(|driver| HOST_DRIVERS.contains(driver))
        {
            notes.push(format!("network {key} can't be isolated: its driver is {driver}"));
        }
    }
    for (key, volume) in own.volumes.iter().filter(|(_, volume)| !volume.external) {
        if let Some(device) = device(worktree.root, volume) {
            notes.push(format!("volume {key} can't be isolated: its data is in {device}, for all worktrees"));
        }
    }
    let mut mounts: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, service) in &own.services {
        for source in service.volumes.iter().filter_map(|mount| outside(worktree.root, mount)) {
            let of_source = mounts.entry(source).or_default();
            if !of_source.contains(&name.as_str()) {
                of_source.push(name);
            }
        }
    }
    for (source, services) in mounts {
        let services = list("service", "services", &services);
        notes.push(format!("{services} can write to {source}, which is outside of the worktree"));
    }
    let built = services(&|name| {
        let image = |model: &Model| model.services.get(name).and_then(|service| service.image.clone());
        let is_built = own.services.get(name).is_some_and(|service| service.build.is_some());
        is_built && image(own).is_some() && image(own) == image(reference)
    });
    if !built.is_empty() {
        notes.push(format!(
            "the {} of {} has the same name in all worktrees: whoever builds last replaces it; without `image:`, or with ${{COMPOSE_PROJECT_NAME}} in it, each has its own",
            if built.len() == 1 { "image" } else { "images" },
            list("service", "services", &built)
        ));
    }
    notes
}

fn list(one: &str, many: &str, names: &[&str]) -> String {
    format!("{} {}", if names.len() == 1 { one } else { many }, names.join(", "))
}

/// Where a volume of the local driver keeps its data, if that is another place than a directory of the engine's or
/// one of the worktree's.
fn device<'a>(root: &Path, volume: &'a Volume) -> Option<&'a str> {
    let device = volume.driver_opts.get("device").and_then(Value::as_str)?;
    let kind = volume.driver_opts.get("type").and_then(Value::as_str).unwrap_or_default();
    (kind != "tmpfs" && !is_below(root, device)).then_some(device)
}

/// The directory outside of the worktree that a mount writes to.
fn outside<'a>(root: &Path, mount: &'a Mount) -> Option<&'a str> {
    let source = mount.source.as_deref().filter(|_| mount.kind == "bind" && !mount.read_only)?;
    let is_systems = SYSTEM.iter().any(|system| Path::new(source).starts_with(system));
    let is_socket = Path::new(source).extension().is_some_and(|extension| extension == "sock");
    (!is_systems && !is_socket && !is_below(root, source)).then_some(source)
}

/// Whether a path is in the worktree, as far as its text tells.
fn is_below(root: &Path, path: &str) -> bool {
    let mut clean = PathBuf::new();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir => drop(clean.pop()),
            Component::CurDir => {}
            other => clean.push(other),
        }
    }
    clean.starts_with(root)
}
