//! The reconcile step against a model of a disk: whatever is done to repositories, in whatever order, and however
//! seldom anybody looks, an incarnation of a worktree keeps its allocation, and no two share an offset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use uuid::Uuid;
use wtd_protocol::State;

use super::*;
use crate::domain::allocator::Rules;
use crate::domain::observation::{Origin, RootMarks, RootStamp};
use crate::domain::project::Project;

const DISK: u64 = 1;
const DISK_BELOW: u64 = 2;

/// A worktree on the model's disk. Its inode is never used again, so it names the incarnation.
#[derive(Debug, Clone)]
struct Worktree {
    inode: u64,
    path: PathBuf,
    standing: bool,
    file: Option<(AllocationId, u16)>,
}

#[derive(Debug, Clone)]
struct Repo {
    inode: u64,
    common_dir: PathBuf,
    main: Worktree,
    linked: BTreeMap<String, Worktree>,
}

#[derive(Debug, Default)]
struct World {
    repos: Vec<Repo>,
    inodes: u64,
    mounted: bool,
    clock: i64,
    ids: u128,
    rules: Rules,
    ledger: Ledger,
    /// Which allocation each incarnation was given.
    given: HashMap<u64, AllocationId>,
    /// Incarnations that git removed.
    removed: HashSet<u64>,
}

impl Surroundings for World {
    fn now(&self) -> Moment {
        Moment(self.clock)
    }
    fn new_allocation_id(&mut self) -> AllocationId {
        self.ids += 1;
        AllocationId(Uuid::from_u128(self.ids))
    }
    fn new_repository_id(&mut self) -> RepositoryId {
        self.ids += 1;
        RepositoryId(Uuid::from_u128(self.ids))
    }
    fn listener(&mut self, _: u16, _: &Path) -> Option<String> {
        None
    }
    fn rules(&self) -> &Rules {
        &self.rules
    }
}

fn identity(inode: u64) -> FileIdentity {
    FileIdentity { device: DISK, inode, born_ns: Some(i64::try_from(inode).unwrap()) }
}

impl Repo {
    fn git_dir(&self, id: &str) -> PathBuf {
        self.common_dir.join("worktrees").join(id)
    }

    /// Every worktree with the name of its entry and its git dir.
    fn worktrees(&self) -> impl Iterator<Item = (Option<&str>, PathBuf, &Worktree)> {
        let main = (None, self.common_dir.clone(), &self.main);
        let linked = self.linked.iter().map(|(id, worktree)| (Some(id.as_str()), self.git_dir(id), worktree));
        std::iter::once(main).chain(linked)
    }
}

impl World {
    fn inode(&mut self) -> u64 {
        self.inodes += 1;
        self.inodes
    }

    fn new_worktree(&mut self, path: PathBuf) -> Worktree {
        Worktree { inode: self.inode(), path, standing: true, file: None }
    }

    fn new_repo(&mut self, name: &str) {
        let root = PathBuf::from("/w").join(name);
        let mut main = self.new_worktree(root.clone());
        let inode = self.inode();
        main.inode = inode;
        self.repos.push(Repo { inode, common_dir: root.join(".git"), main, linked: BTreeMap::new() });
    }

    fn observe(&self, repo: &Repo) -> Observation {
        let mut origins = HashMap::new();
        let mut observed = Vec::new();
        for (id, git_dir, worktree) in repo.worktrees() {
            let main_gone_elsewhere = self.someone_else_at(&worktree.path, worktree.inode);
            let presence = if worktree.standing && !main_gone_elsewhere {
                let dot_git = identity(worktree.inode);
                let marks = RootMarks { dot_git, modified_ns: None, project_file: Some(0) };
                let stamp = RootStamp { marks, local: true };
                Presence::Present { device: DISK, stamp, finished: true }
            } else if main_gone_elsewhere {
                Presence::Foreign
            } else {
                Presence::Missing { device_above: Some(self.device()) }
            };
            let claim = match worktree.file {
                Some((id, offset)) => Claim::Allocation { id, offset, digest: [0; 32] },
                None => Claim::None,
            };
            if let Some((claimed, _)) = worktree.file
                && let Some(known) = self.ledger.allocation(claimed)
                && known.git_dir != git_dir
            {
                let stands = self.repos.iter().flat_map(Repo::worktrees).any(|(_, git_dir, other)| {
                    git_dir == known.git_dir && identity(other.inode) == known.identity
                });
                let look = if stands { OriginLook::Standing } else { OriginLook::Gone };
                origins.insert(claimed, Origin { git_dir: known.git_dir.clone(), look });
            }
            observed.push(ObservedWorktree {
                id: id.map(Into::into),
                git_dir,
                identity: identity(worktree.inode),
                path: worktree.path.clone(),
                presence,
                locked: false,
                claim,
                lost_override: None,
                project: Project::named("project").into(),
            });
        }
        let main = observed.remove(0);
        let absences = self.absences(repo, &main, &observed);
        Observation {
            common_dir: repo.common_dir.clone(),
            repository: ObservedRepository::Present {
                identity: identity(repo.inode),
                main: Some(main),
                linked: observed,
                unlisted: None,
            },
            absences,
            origins,
            unsettled: false,
        }
    }

    fn device(&self) -> u64 {
        if self.mounted { DISK } else { DISK_BELOW }
    }

    fn someone_else_at(&self, path: &Path, inode: u64) -> bool {
        let all = self.repos.iter().flat_map(Repo::worktrees);
        all.filter(|(_, _, other)| other.standing && other.path == path && other.inode > inode).count() > 0
    }

    fn absences(
        &self,
        repo: &Repo,
        main: &ObservedWorktree,
        linked: &[ObservedWorktree],
    ) -> HashMap<AllocationId, Absence> {
        let Some(known) = self.ledger.repository_of(identity(repo.inode)) else { return HashMap::new() };
        let answered = |allocation: &Allocation| {
            std::iter::once(main).chain(linked).any(|worktree| worktree.identity == allocation.identity)
        };
        self.ledger
            .of_repository(known.id)
            .filter(|allocation| allocation.is_live() && !answered(allocation))
            .map(|allocation| {
                let someone = self.someone_else_at(&allocation.path, 0);
                let directory = if someone {
                    DirectoryLook::PointsElsewhere { device: DISK }
                } else {
                    DirectoryLook::Gone { device_above: Some(self.device()) }
                };
                let git = if someone || self.mounted { GitAnswer::NotListed } else { GitAnswer::NotAsked };
                (allocation.id, Absence { git_dir: allocation.git_dir.clone(), directory, git })
            })
            .collect()
    }

    /// One look at a repository, with everything checked that the contract promises.
    fn look(&mut self, index: usize) {
        self.clock += 1;
        let repo = self.repos[index].clone();
        let observation = self.observe(&repo);
        let ledger = self.ledger.clone();
        let outcome = reconcile(&ledger, &observation, self).unwrap();
        assert!(!outcome.look_again, "the model answers every question");
        assert!(outcome.unallocated.is_empty());
        self.ledger = outcome.ledger;

        let again = reconcile(&self.ledger.clone(), &self.observe(&repo), self).unwrap();
        assert!(again.records.is_empty(), "a second step changes something: {:?}", again.records);

        let seen: HashMap<FileIdentity, AllocationId> = outcome
            .sightings
            .iter()
            .map(|sighting| (self.ledger.allocation(sighting.id).unwrap().identity, sighting.id))
            .collect();
        for (_, _, worktree) in repo.worktrees() {
            let Some(id) = seen.get(&identity(worktree.inode)) else {
                assert!(!worktree.standing || self.someone_else_at(&worktree.path, worktree.inode));
                continue;
            };
            let allocation = self.ledger.allocation(*id).unwrap();
            assert_eq!((allocation.state, &allocation.path), (State::Active, &worktree.path));
            let first = *self.given.entry(worktree.inode).or_insert(*id);
            assert_eq!(first, *id, "an incarnation got a second allocation");
        }
        let offsets = self.ledger.allocations().map(|allocation| allocation.offset);
        assert_eq!(offsets.collect::<HashSet<_>>().len(), self.ledger.allocations().count());
        let owners: HashSet<_> = self.given.values().collect();
        assert_eq!(owners.len(), self.given.len(), "two incarnations share an allocation");
        for allocation in self.ledger.allocations().filter(|allocation| allocation.state == State::Stale) {
            assert!(
                self.removed.contains(&allocation.identity.inode),
                "stale, but nobody removed it: {allocation:?}"
            );
        }
        // As the daemon does after the commit.
        let files: HashMap<FileIdentity, (AllocationId, u16)> = seen
            .into_iter()
            .map(|(identity, id)| (identity, (id, self.ledger.allocation(id).unwrap().offset.0)))
            .collect();
        let repo = &mut self.repos[index];
        for worktree in std::iter::once(&mut repo.main).chain(repo.linked.values_mut()) {
            if let Some(file) = files.get(&identity(worktree.inode)) {
                worktree.file = Some(*file);
            }
        }
    }

    fn apply(&mut self, operation: &Operation) {
        let index = operation.repo % self.repos.len();
        let name = format!("w{}", operation.name % 4);
        match operation.kind {
            Kind::Add => {
                let path = PathBuf::from(format!("/w/{name}-of-{index}"));
                let is_free =
                    self.repos.iter().flat_map(Repo::worktrees).all(|(_, _, other)| other.path != path);
                if is_free && !self.repos[index].linked.contains_key(&name) {
                    let worktree = self.new_worktree(path);
                    self.repos[index].linked.insert(name, worktree);
                }
            }
            Kind::Remove => {
                if let Some(worktree) = self.repos[index].linked.remove(&name) {
                    self.removed.insert(worktree.inode);
                }
            }
            Kind::Move => {
                let clock = self.clock;
                if let Some(worktree) =
                    self.repos[index].linked.get_mut(&name).filter(|worktree| worktree.standing)
                {
                    worktree.path = PathBuf::from(format!("/w/moved-{clock}-{name}-{index}"));
                }
            }
            Kind::DeleteDirectory => {
                if let Some(worktree) = self.repos[index].linked.get_mut(&name) {
                    worktree.standing = false;
                }
            }
            Kind::BringBack => {
                if let Some(worktree) = self.repos[index].linked.get_mut(&name) {
                    worktree.standing = true;
                }
            }
            Kind::LoseFile => {
                if let Some(worktree) = self.repos[index].linked.get_mut(&name) {
                    worktree.file = None;
                }
            }
            Kind::MoveRepository => {
                let root = PathBuf::from(format!("/w/repo-{}-{index}", self.clock));
                self.repos[index].common_dir = root.join(".git");
                self.repos[index].main.path = root;
            }
            Kind::CopyRepository if self.repos.len() < 5 => {
                // The copy's entries lead to the original's worktrees, so it has a main worktree only.
                let mut copy = self.repos[index].clone();
                let root = PathBuf::from(format!("/w/copy-{}-{index}", self.clock));
                copy.inode = self.inode();
                copy.main.inode = copy.inode;
                copy.common_dir = root.join(".git");
                copy.main.path = root;
                copy.linked.clear();
                self.repos.push(copy);
            }
            Kind::CopyRepository => {}
            Kind::Mount => self.mounted = true,
            Kind::Unmount => self.mounted = false,
            Kind::Look => self.look(index),
        }
        self.clock += 1;
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Add,
    Remove,
    Move,
    DeleteDirectory,
    BringBack,
    LoseFile,
    MoveRepository,
    CopyRepository,
    Mount,
    Unmount,
    Look,
}

#[derive(Debug, Clone)]
struct Operation {
    kind: Kind,
    repo: usize,
    name: usize,
}

fn operations() -> impl Strategy<Value = Vec<Operation>> {
    let kind = prop_oneof![
        6 => Just(Kind::Add),
        3 => Just(Kind::Remove),
        2 => Just(Kind::Move),
        1 => Just(Kind::DeleteDirectory),
        1 => Just(Kind::BringBack),
        1 => Just(Kind::LoseFile),
        1 => Just(Kind::MoveRepository),
        1 => Just(Kind::CopyRepository),
        1 => Just(Kind::Mount),
        1 => Just(Kind::Unmount),
        8 => Just(Kind::Look),
    ];
    let operation =
        (kind, 0..8_usize, 0..8_usize).prop_map(|(kind, repo, name)| Operation { kind, repo, name });
    prop::collection::vec(operation, 1..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]
    #[test]
    fn an_incarnation_keeps_its_allocation_whatever_happens(operations in operations()) {
        let mut world = World { mounted: true, ..World::default() };
        world.new_repo("a");
        world.new_repo("b");
        for index in 0..world.repos.len() {
            world.look(index);
        }
        for operation in &operations {
            world.apply(operation);
        }
        // Once all is settled, what git removed is stale and everything that stands is active.
        world.mounted = true;
        for index in 0..world.repos.len() {
            world.look(index);
        }
        for (incarnation, id) in &world.given {
            let allocation = world.ledger.allocation(*id).unwrap();
            if world.removed.contains(incarnation) {
                prop_assert_eq!(allocation.state, State::Stale);
            } else {
                prop_assert_ne!(allocation.state, State::Stale);
            }
        }
    }
}

fn look_at(world: &World, repository: ObservedRepository) -> Observation {
    Observation {
        common_dir: world.repos[0].common_dir.clone(),
        repository,
        absences: HashMap::new(),
        origins: HashMap::new(),
        unsettled: false,
    }
}

/// A repository with one linked worktree, looked at.
fn world() -> (World, AllocationId) {
    let mut world = World { mounted: true, ..World::default() };
    world.new_repo("a");
    world.apply(&Operation { kind: Kind::Add, repo: 0, name: 0 });
    world.look(0);
    let id = world.given[&world.repos[0].linked["w0"].inode];
    (world, id)
}

#[test]
fn a_repository_that_is_gone_or_unreadable_leaves_its_allocations_missing() {
    let (mut world, id) = world();
    for repository in [ObservedRepository::Gone, ObservedRepository::Unknown("permission denied".into())] {
        let observation = look_at(&world, repository);
        let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
        assert!(outcome.ledger.allocations().all(|allocation| allocation.state == State::Missing));
    }
    world.look(0);
    assert_eq!(world.ledger.allocation(id).unwrap().state, State::Active);
}

#[test]
fn nothing_is_removed_unless_every_part_of_the_proof_is_there() {
    let (world, id) = world();
    let git_dir = world.ledger.allocation(id).unwrap().git_dir.clone();
    let gone = || DirectoryLook::Gone { device_above: Some(DISK) };
    let cases = [
        (gone(), GitAnswer::NotListed, State::Stale),
        (DirectoryLook::PointsElsewhere { device: DISK }, GitAnswer::NotListed, State::Stale),
        (gone(), GitAnswer::Listed, State::Missing),
        (gone(), GitAnswer::Failed("fatal".into()), State::Missing),
        (DirectoryLook::Gone { device_above: Some(DISK_BELOW) }, GitAnswer::NotListed, State::Missing),
        (DirectoryLook::Gone { device_above: None }, GitAnswer::NotListed, State::Missing),
        (DirectoryLook::StillPointsBack, GitAnswer::NotListed, State::Missing),
        (DirectoryLook::Unknown("EACCES".into()), GitAnswer::NotListed, State::Missing),
    ];
    for (directory, git, expected) in cases {
        let mut world =
            World { ledger: world.ledger.clone(), repos: world.repos.clone(), ..World::default() };
        world.repos[0].linked.clear();
        let mut observation = world.observe(&world.repos[0].clone());
        let story = format!("{directory:?} {git:?}");
        observation.absences = HashMap::from([(id, Absence { git_dir: git_dir.clone(), directory, git })]);
        let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
        assert_eq!(outcome.ledger.allocation(id).unwrap().state, expected, "{story}");
    }
}

#[test]
fn an_incomplete_listing_removes_nothing() {
    let (mut world, id) = world();
    world.repos[0].linked.clear();
    let mut observation = world.observe(&world.repos[0].clone());
    let ObservedRepository::Present { unlisted, .. } = &mut observation.repository else {
        panic!("it is there")
    };
    *unlisted = Some("input/output error".into());
    let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
    assert_eq!(outcome.ledger.allocation(id).unwrap().state, State::Missing);
}

#[test]
fn an_answer_about_another_git_dir_is_no_answer() {
    let (mut world, id) = world();
    world.repos[0].linked.clear();
    let mut observation = world.observe(&world.repos[0].clone());
    for absence in observation.absences.values_mut() {
        absence.git_dir = "/somewhere/else".into();
    }
    let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
    assert!(outcome.look_again);
    assert_eq!(outcome.ledger.allocation(id).unwrap().state, State::Active);
}

#[test]
fn a_configured_port_comes_and_goes_and_the_offset_stays() {
    let (mut world, id) = world();
    let before = world.ledger.allocation(id).unwrap().clone();
    let mut observation = world.observe(&world.repos[0].clone());
    let ObservedRepository::Present { linked, .. } = &mut observation.repository else {
        panic!("it is there")
    };
    let ui_port = wtd_protocol::variable::Variable::new("UI_PORT").unwrap();
    Arc::make_mut(&mut linked[0].project)
        .base_ports
        .insert(ui_port.clone(), std::num::NonZeroU16::new(3000).unwrap());
    let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
    let after = outcome.ledger.allocation(id).unwrap();
    assert_eq!(after.offset, before.offset);
    assert_eq!(after.ports.get(ui_port.as_str()).unwrap().port, 3000 + before.offset.0);

    // A port beyond 65535 at this offset is left out and told of; the others stand.
    let too_high = std::num::NonZeroU16::new(65_535).unwrap();
    let ObservedRepository::Present { linked, .. } = &mut observation.repository else {
        panic!("it is there")
    };
    Arc::make_mut(&mut linked[0].project).base_ports.insert(ui_port.clone(), too_high);
    let outcome = reconcile(&outcome.ledger, &observation, &mut world).unwrap();
    let after = outcome.ledger.allocation(id).unwrap();
    assert_eq!(after.ports.get(ui_port.as_str()), None);
    assert_eq!(after.ports.values().count(), before.ports.values().count());
    assert_eq!((after.offset, after.warnings.len()), (before.offset, 1));
}

#[test]
fn a_lost_registry_gives_every_worktree_the_offset_that_its_file_names() {
    let (mut world, _) = world();
    world.apply(&Operation { kind: Kind::Add, repo: 0, name: 1 });
    world.look(0);
    let offsets = |world: &World| {
        world.ledger.allocations().map(|known| (known.path.clone(), known.offset)).collect::<BTreeMap<_, _>>()
    };
    let before = offsets(&world);
    world.repos[0].linked.remove("w0");
    world.ledger = Ledger::default();
    world.given.clear();
    world.look(0);
    let after = offsets(&world);
    assert_eq!(after.len(), 2);
    assert!(
        after.iter().all(|(path, offset)| before[path] == *offset),
        "a worktree opens onto another's data"
    );
}

#[test]
fn worktrees_that_are_new_together_choose_as_git_made_them_but_none_takes_what_anothers_file_names() {
    let (mut world, _) = world();
    let offset_of = |world: &World, name: &str| {
        let worktree = &world.repos[0].linked[name];
        world.ledger.allocation(world.given[&worktree.inode]).unwrap().offset
    };
    for name in [2, 1] {
        world.apply(&Operation { kind: Kind::Add, repo: 0, name });
    }
    world.look(0);
    assert_eq!((offset_of(&world, "w2"), offset_of(&world, "w1")), (Offset(20_000), Offset(30_000)));

    let linked = &mut world.repos[0].linked;
    linked.remove("w0");
    linked.get_mut("w2").unwrap().file = None;
    linked.get_mut("w1").unwrap().file.as_mut().unwrap().1 = 10_000;
    world.ledger = Ledger::default();
    world.given.clear();
    world.look(0);
    assert_eq!((offset_of(&world, "w1"), offset_of(&world, "w2")), (Offset(10_000), Offset(20_000)));
}

#[test]
fn an_add_that_never_finished_goes_stale_once_its_directory_is_gone() {
    let (mut world, id) = world();
    let mut allocation = (**world.ledger.allocation(id).unwrap()).clone();
    allocation.finished = false;
    world.ledger.put(allocation.into()).unwrap();
    world.repos[0].linked.get_mut("w0").unwrap().standing = false;
    let observation = world.observe(&world.repos[0].clone());
    let mut state_after = |milliseconds| {
        world.clock += milliseconds;
        let outcome = reconcile(&world.ledger.clone(), &observation, &mut world).unwrap();
        world.ledger = outcome.ledger;
        world.ledger.allocation(id).unwrap().state
    };
    assert_eq!(state_after(0), State::Missing);
    assert_eq!(state_after(UNFINISHED_MS - 1), State::Missing);
    assert_eq!(state_after(1), State::Stale);
}
