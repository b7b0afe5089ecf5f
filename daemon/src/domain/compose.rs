//! The Compose override of a worktree, as far as the registry answers for it.
//!
//! A person has the client write it; here is recorded what it goes with. A file that lies in a git dir without such a
//! record is nobody's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use sha2::{Digest as _, Sha256};
use wtd_protocol::compose::{FILE_NAME, SEPARATOR};

use super::allocation::Allocation;
use super::draft::Draft;
use super::identity::AllocationId;
use super::ledger::{Ledger, Overlap};
use super::names::VolumeName;

/// What can separate paths, best first.
const SEPARATORS: [char; 4] = [SEPARATOR, ';', '|', ','];

/// An override that a person had written for a worktree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compose {
    /// The project's Compose files, in the order in which Compose reads them; relative ones are below the worktree's
    /// root, so that they move with it.
    pub files: Vec<PathBuf>,
    /// [`wtd_protocol::compose::digest`] of what those files held.
    pub files_digest: String,
    /// The files that Compose read beside those, as far as they are known, and the digest of what counted in each. Paths
    /// are as in `files`.
    pub further: BTreeMap<PathBuf, String>,
    /// What separates the paths in `COMPOSE_FILE`, unless one of them holds it.
    pub separator: char,
    /// SHA-256 of the override.
    pub digest: [u8; 32],
    /// [`inputs`] of the allocation, when it was written.
    pub inputs: [u8; 32],
    /// The host ports that are published under it.
    pub ports: BTreeSet<u16>,
}

/// A port of an override that another allocation has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTaken {
    /// The port.
    pub port: u16,
    /// Who has it; none when it is that of a server which other worktrees share.
    pub holder: Option<AllocationId>,
}

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
/// then the override. None
/// without an override, and where the paths can't be written so (one is no UTF-8, or they hold every separator).
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

impl Draft {
    /// Records an override, and the volumes that it names. Refused when another allocation has one of its ports.
    pub fn set_override(
        &mut self,
        allocation: &Allocation,
        compose: Compose,
        volumes: &BTreeSet<VolumeName>,
    ) -> Result<Result<(), PortTaken>, Overlap> {
        if let Some(taken) = compose.ports.iter().find_map(|port| taken(&self.ledger, allocation, *port)) {
            return Ok(Err(taken));
        }
        let mut after = allocation.clone();
        after.compose = Some(compose.into());
        // They are the worktree's from now on, whatever becomes of the override.
        let further: Vec<_> = volumes.iter().filter(|volume| !after.names_volume(volume)).cloned().collect();
        after.former_volumes.extend(further);
        self.put(after).map(|_| Ok(()))
    }

    /// Records that a worktree has no override (any more).
    pub fn remove_override(&mut self, allocation: &Allocation) -> Result<(), Overlap> {
        self.put(Allocation { compose: None, ..allocation.clone() }).map(drop)
    }
}

/// Whether somebody else than `allocation` has `port`.
fn taken(ledger: &Ledger, allocation: &Allocation, port: u16) -> Option<PortTaken> {
    let own = |holder| holder == allocation.id;
    let shares = || allocation.ports.values().any(|ours| ours.shared && ours.port == port);
    match ledger.holder_of_port(port) {
        Some(holder) if !own(holder) => Some(PortTaken { port, holder: Some(holder) }),
        None if ledger.is_shared(port) && !shares() => Some(PortTaken { port, holder: None }),
        _ => None,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::num::NonZeroU16;

    use uuid::Uuid;
    use wtd_protocol::State;
    use wtd_protocol::variable::Variable;

    use super::super::allocation::{DatabaseVolume, Moment};
    use super::super::identity::{FileIdentity, RepositoryId};
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

    fn compose(allocation: &Allocation, ports: &[u16]) -> Compose {
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

    fn draft(allocations: &[&Allocation]) -> Draft {
        let mut ledger = Ledger::default();
        for allocation in allocations {
            ledger.put((*allocation).clone().into()).unwrap();
        }
        Draft::new(&ledger)
    }

    #[test]
    fn no_two_allocations_publish_one_port() {
        let (one, two) = (allocation(1, 0), allocation(2, 10000));
        let mut draft = draft(&[&one, &two]);
        let mut set = |of: &Allocation, ports: &[u16]| {
            draft.set_override(of, compose(of, ports), &BTreeSet::new()).unwrap().map_err(|taken| taken.port)
        };
        assert_eq!(set(&one, &[5432, 8080]), Ok(()), "a declared port is its own");
        assert_eq!(set(&two, &[15432, 8080]), Err(8080), "published by the other");
        assert_eq!(set(&two, &[5432]), Err(5432), "declared by the other");
        assert_eq!(set(&two, &[15432, 18080]), Ok(()));
        assert_eq!(set(&one, &[9090]), Ok(()), "written again");
        assert_eq!(set(&two, &[8080]), Ok(()), "given up by the other");
        assert_eq!(draft.ledger.holder_of_port(8080), Some(two.id));
        assert_eq!(draft.ledger.holder_of_port(18080), None);
    }

    #[test]
    fn a_server_that_others_share_is_not_published_over() {
        let mut one = allocation(1, 0);
        let base = NonZeroU16::new(5432).unwrap();
        one.ports = Ports::from_iter([(Variable::db_host_port(), Port { base, port: 5432, shared: true })]);
        let two = allocation(2, 10000);
        let mut draft = draft(&[&one, &two]);
        let taken = draft.set_override(&two, compose(&two, &[5432]), &BTreeSet::new()).unwrap();
        assert_eq!(taken, Err(PortTaken { port: 5432, holder: None }));
        assert_eq!(draft.set_override(&one, compose(&one, &[5432]), &BTreeSet::new()).unwrap(), Ok(()));
    }

    #[test]
    fn the_volumes_that_it_names_stay_the_worktrees() {
        let one = allocation(1, 0);
        let mut draft = draft(&[&one]);
        let named = BTreeSet::from([names::volume_name("db_data", 0), names::volume_name("cache", 0)]);
        draft.set_override(&one, compose(&one, &[]), &named).unwrap().unwrap();
        let with = (**draft.ledger.allocation(one.id).unwrap()).clone();
        draft.remove_override(&with).unwrap();
        let without = draft.ledger.allocation(one.id).unwrap();
        assert_eq!(without.compose, None);
        assert_eq!(without.former_volumes, BTreeSet::from([names::volume_name("cache", 0)]));
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
