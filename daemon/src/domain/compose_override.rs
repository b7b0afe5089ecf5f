//! What an allocation's Compose override follows from, and what follows from it.

use sha2::{Digest as _, Sha256};
use wtd_protocol::compose::{FILE_NAME, SEPARATOR};

use super::allocation::Allocation;

/// What can separate paths, best first.
const SEPARATORS: [char; 4] = [SEPARATOR, ';', '|', ','];

/// A digest of what an override is made from beside the Compose files: offset, names, ports, shared volumes.
pub fn inputs(allocation: &Allocation) -> [u8; 32] {
    let mut digest = Sha256::new();
    digest.update(allocation.offset.0.to_le_bytes());
    let mut text = |text: &str| {
        digest.update((text.len() as u64).to_le_bytes());
        digest.update(text);
    };
    text(allocation.compose_project.as_ref().map_or("", |project| project.as_str()));
    text(allocation.volume.name().as_str());
    text(allocation.mode.as_str());
    for (variable, port) in allocation.ports.iter() {
        text(variable.as_str());
        text(&format!("{} {}", port.base, port.port));
    }
    for (variable, volume) in &allocation.volumes {
        text(variable.as_str());
        text(volume.as_str());
    }
    for volume in &allocation.shared_volumes {
        text(volume);
    }
    digest.finalize().into()
}

/// The value of `COMPOSE_FILE`, and what separates the paths in it where a shell has to be told: the project's files,
/// then the override. None without an override, and where the paths can't be written so (one is no UTF-8, or they hold
/// every separator).
pub fn compose_file(allocation: &Allocation) -> Option<(String, Option<char>)> {
    let compose = allocation.compose.as_ref()?;
    let own = allocation.git_dir.join(FILE_NAME);
    let files = compose.files.iter().map(|file| allocation.path.join(file)).chain([own]);
    let files = files.map(|file| file.to_str().map(str::to_owned)).collect::<Option<Vec<_>>>()?;
    let separator = std::iter::once(compose.separator)
        .chain(SEPARATORS)
        .find(|separator| !files.iter().any(|file| file.contains(*separator)))?;
    let is_default = separator == SEPARATOR && compose.separator == SEPARATOR;
    Some((files.join(&separator.to_string()), (!is_default).then_some(separator)))
}

/// Why the override no longer is what it should be, as far as the registry can tell.
pub fn complaint(allocation: &Allocation) -> Option<&'static str> {
    let compose = allocation.compose.as_ref()?;
    if compose.inputs != inputs(allocation) {
        return Some("the Compose override was written for other ports or names than the worktree has now");
    }
    if compose_file(allocation).is_none() {
        return Some(
            "the Compose override's path, or that of a Compose file, can't be written in COMPOSE_FILE",
        );
    }
    None
}

#[cfg(test)]
pub(super) mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::num::NonZeroU16;
    use std::path::PathBuf;

    use uuid::Uuid;
    use wtd_protocol::State;
    use wtd_protocol::variable::Variable;

    use super::super::allocation::{DatabaseVolume, Moment};
    use super::super::compose::Compose;
    use super::super::identity::{AllocationId, FileIdentity, RepositoryId};
    use super::super::names;
    use super::super::offset::Offset;
    use super::super::ports::{Port, Ports};
    use super::super::project::DatabaseMode;
    use super::super::variables::variables;
    use super::*;

    pub(in crate::domain) fn allocation(number: u128, offset: u16) -> Allocation {
        let base = NonZeroU16::new(5432).unwrap();
        let port = Port { base, port: 5432 + offset, shared: false };
        let path = PathBuf::from(format!("/w/{offset}"));
        Allocation {
            id: AllocationId(Uuid::from_u128(number)),
            repository: RepositoryId(Uuid::nil()),
            worktree_id: Some("x".into()),
            git_dir: path.join("git"),
            identity: FileIdentity { device: 1, inode: u64::from(offset), born_ns: None },
            path,
            device: 1,
            finished: true,
            offset: Offset(offset),
            ports: Ports::from_iter([(Variable::db_host_port(), port)]),
            project: "app".into(),
            project_is_configured: false,
            mode: DatabaseMode::Isolated,
            volume: DatabaseVolume::Own(names::volume_name("db_data", offset)),
            volumes: BTreeMap::new(),
            former_volumes: BTreeSet::new(),
            shared_volumes: BTreeSet::new(),
            compose: None,
            database: names::database_name("app", offset, true),
            schema: None,
            env: BTreeMap::new(),
            untrusted: false,
            template: None,
            objects: Vec::new(),
            compose_project: Some(names::compose_project("app", offset)),
            state: State::Active,
            reason: String::new(),
            since: Moment(0),
            created: Moment(0),
            ending: None,
            passed_over: Vec::new(),
            warnings: Vec::new(),
        }
    }

    pub(in crate::domain) fn compose(allocation: &Allocation, ports: &[u16]) -> Compose {
        Compose {
            files: vec!["compose.yaml".into(), "/elsewhere/x.yaml".into()],
            files_digest: String::new(),
            further: BTreeMap::new(),
            separator: SEPARATOR,
            digest: [0; 32],
            inputs: inputs(allocation),
            ports: ports.iter().copied().collect(),
        }
    }

    #[test]
    fn compose_file_has_the_projects_files_first() {
        let mut one = allocation(1, 0);
        assert!(!variables(&one).contains_key("COMPOSE_FILE"));
        one.compose = Some(compose(&one, &[]).into());
        let value = "/w/0/compose.yaml:/elsewhere/x.yaml:/w/0/git/wtd.compose.yaml";
        assert_eq!(variables(&one)["COMPOSE_FILE"], value);
        assert!(!variables(&one).contains_key("COMPOSE_PATH_SEPARATOR"));
        one.compose.as_mut().unwrap().separator = ';';
        assert_eq!(variables(&one)["COMPOSE_FILE"], value.replace(':', ";"));
        assert_eq!(variables(&one)["COMPOSE_PATH_SEPARATOR"], ";");
        // Moved to where the list would be cut elsewhere.
        one.path = "/w;0".into();
        assert_eq!(variables(&one)["COMPOSE_PATH_SEPARATOR"], ":");
        one.path = "/w:;|,".into();
        assert!(!variables(&one).contains_key("COMPOSE_FILE"));
        assert!(complaint(&one).is_some());
    }

    #[test]
    fn one_that_was_written_for_other_ports_is_complained_of() {
        let mut one = allocation(1, 0);
        one.compose = Some(compose(&one, &[]).into());
        assert_eq!(complaint(&one), None);
        one.shared_volumes.insert("cache".into());
        assert!(complaint(&one).is_some());
    }
}
