//! What a container engine still has of an allocation.

use std::collections::HashMap;

use super::allocation::Allocation;

/// The label that says which allocation a volume belongs to.
pub const ALLOCATION_LABEL: &str = "dev.wtd.allocation";

/// The label in which Compose names the project (Compose specification, "labels").
pub const COMPOSE_PROJECT_LABEL: &str = "com.docker.compose.project";

/// The label in which Compose names the directory that the project was started from.
pub const COMPOSE_WORKING_DIR_LABEL: &str = "com.docker.compose.project.working_dir";

/// A volume or a container of the engine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resource {
    /// Its name.
    pub name: String,
    /// Its labels.
    pub labels: HashMap<String, String>,
}

/// Volumes and containers that there are.
#[derive(Debug, Clone, Default)]
pub struct Resources {
    /// All volumes.
    pub volumes: Vec<Resource>,
    /// All containers, stopped ones too.
    pub containers: Vec<Resource>,
}

/// The names of what is left of an allocation: volumes with its label or a recorded name, volumes and containers of
/// its Compose project.
pub fn left_overs(allocation: &Allocation, resources: &Resources) -> Vec<String> {
    let id = allocation.id.to_string();
    let recorded: Vec<&str> = allocation.own_volumes().map(super::names::VolumeName::as_str).collect();
    let of_project = |resource: &Resource| {
        let project = resource.labels.get(COMPOSE_PROJECT_LABEL);
        allocation
            .compose_project
            .as_ref()
            .is_some_and(|ours| project.is_some_and(|project| project == ours.as_str()))
    };
    let is_left = |volume: &&Resource| {
        volume.labels.get(ALLOCATION_LABEL) == Some(&id)
            || recorded.contains(&volume.name.as_str())
            || of_project(volume)
    };
    let volumes = resources.volumes.iter().filter(is_left).map(|volume| format!("volume {}", volume.name));
    let containers = resources.containers.iter().filter(|container| of_project(container));
    volumes.chain(containers.map(|container| format!("container {}", container.name))).collect()
}
