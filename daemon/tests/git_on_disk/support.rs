//! Scratch repositories, made by the git program.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;
use wtd::domain::identity::AllocationId;
use wtd::domain::observation::{
    Claim, Observation, ObservedRepository, ObservedWorktree, Presence, Recorded,
};
use wtd::domain::project::Project;
use wtd::git::{Look, Memory, ObserveRequest, observe};

/// A directory that is gone with the test.
pub(crate) struct Scratch(TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    /// A path in it; the directory itself for the empty name.
    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        let root = fs::canonicalize(self.0.path()).unwrap();
        if name.as_ref().as_os_str().is_empty() { root } else { root.join(name) }
    }

    /// A repository with one commit; its root.
    pub(crate) fn repository(&self, name: impl AsRef<Path>) -> PathBuf {
        let root = self.path(name);
        git(&self.path(""), [OsStr::new("init"), OsStr::new("-q"), OsStr::new("--"), root.as_os_str()]);
        commit(&root);
        root
    }

    /// A repository with one commit and a linked worktree; the roots of both.
    pub(crate) fn with_linked(&self) -> (PathBuf, PathBuf) {
        let root = self.repository("main");
        let linked = self.path("linked");
        add(&root, &linked);
        (root, linked)
    }
}

pub(crate) fn commit(root: &Path) {
    git(root, ["commit", "-q", "--allow-empty", "-m", "one"]);
}

/// `git worktree add --detach`.
pub(crate) fn add(repository: &Path, worktree: &Path) {
    let add = ["worktree", "add", "-q", "--detach", "--"].map(OsStr::new);
    git(repository, add.into_iter().chain([worktree.as_os_str()]));
}

/// Runs git, which has to succeed; its output.
pub(crate) fn git<S: AsRef<OsStr>>(directory: &Path, arguments: impl IntoIterator<Item = S>) -> Vec<u8> {
    let output = try_git(directory, arguments);
    assert!(output.status.success(), "git: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

pub(crate) fn try_git<S: AsRef<OsStr>>(directory: &Path, arguments: impl IntoIterator<Item = S>) -> Output {
    Command::new("git")
        .args(["-c", "init.defaultBranch=main", "-c", "protocol.file.allow=always"])
        .args(arguments)
        .current_dir(directory)
        .env_clear()
        .envs(["PATH", "HOME"].into_iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
        .envs([
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_AUTHOR_NAME", "a"),
            ("GIT_AUTHOR_EMAIL", "a@example.org"),
            ("GIT_COMMITTER_NAME", "a"),
            ("GIT_COMMITTER_EMAIL", "a@example.org"),
            ("LC_ALL", "C"),
        ])
        .output()
        .unwrap()
}

/// Runs another program, which has to succeed.
pub(crate) fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) {
    assert!(Command::new(program).args(arguments).status().unwrap().success(), "{program}");
}

/// What `git rev-parse` says of a path, without the line end.
pub(crate) fn rev_parse(directory: &Path, option: &str) -> PathBuf {
    let output = git(directory, ["rev-parse", "--path-format=absolute", option]);
    PathBuf::from(OsStr::from_bytes(output.strip_suffix(b"\n").unwrap()))
}

/// The paths that git lists, sorted.
pub(crate) fn listed(common_dir: &Path) -> Vec<PathBuf> {
    let output = git(common_dir, ["worktree", "list", "--porcelain", "-z"]);
    let paths = output.split(|&byte| byte == 0).filter_map(|attribute| attribute.strip_prefix(b"worktree "));
    let mut paths: Vec<PathBuf> = paths.map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
    paths.sort();
    paths
}

/// Whether the git program is at least this version. When it isn't, says that `test` is skipped.
pub(crate) fn has_git(major: u32, minor: u32, test: &str) -> bool {
    let version = String::from_utf8(git(Path::new("/"), ["--version"])).unwrap();
    let numbers: Vec<u32> =
        version.split([' ', '.']).filter_map(|word| word.trim().parse().ok()).take(2).collect();
    let enough = numbers >= vec![major, minor];
    if !enough {
        eprintln!("skipped: {test}: it needs git {major}.{minor}");
    }
    enough
}

/// When git has to have answered.
pub(crate) fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

/// Looks at a repository of which nothing is recorded.
pub(crate) fn look(common_dir: &Path) -> Observation {
    look_with(common_dir, &[]).observation
}

/// Looks at a repository of which this is recorded.
pub(crate) fn look_with(common_dir: &Path, recorded: &[Recorded]) -> Look {
    look_hinted(common_dir, None, recorded)
}

pub(crate) fn look_hinted(common_dir: &Path, root_hint: Option<&Path>, recorded: &[Recorded]) -> Look {
    look_at(common_dir, root_hint, recorded, Memory::default())
}

/// Looks at a repository of which this is remembered.
pub(crate) fn look_remembering(common_dir: &Path, memory: Memory) -> Look {
    look_at(common_dir, None, &[], memory)
}

fn look_at(common_dir: &Path, root_hint: Option<&Path>, recorded: &[Recorded], memory: Memory) -> Look {
    observe(&ObserveRequest {
        common_dir: common_dir.to_owned(),
        root_hint: root_hint.map(Path::to_owned),
        recorded: recorded.to_vec(),
        claims: &|id| recorded.iter().find(|recorded| recorded.id == id).cloned(),
        memory: memory.into(),
        load_project: &|root, _, _| Project::named(&root.to_string_lossy()),
        ask_git: &|common_dir| Some(wtd::git::ask::worktree_paths(common_dir)),
    })
}

pub(crate) fn main_of(observation: &Observation) -> Option<&ObservedWorktree> {
    match &observation.repository {
        ObservedRepository::Present { main, .. } => main.as_ref(),
        other => panic!("{other:?}"),
    }
}

/// The linked worktrees, in the order of their ids.
pub(crate) fn linked_of(observation: &Observation) -> &[ObservedWorktree] {
    match &observation.repository {
        ObservedRepository::Present { linked, unlisted: None, .. } => linked,
        other => panic!("{other:?}"),
    }
}

/// The only linked worktree.
pub(crate) fn only(observation: &Observation) -> &ObservedWorktree {
    match linked_of(observation) {
        [only] => only,
        other => panic!("{other:?}"),
    }
}

pub(crate) fn is_present(worktree: &ObservedWorktree) -> bool {
    matches!(worktree.presence, Presence::Present { .. })
}

pub(crate) fn is_finished(worktree: &ObservedWorktree) -> bool {
    matches!(worktree.presence, Presence::Present { finished: true, .. })
}

pub(crate) fn is_missing(worktree: &ObservedWorktree) -> bool {
    matches!(worktree.presence, Presence::Missing { .. })
}

pub(crate) fn is_unknown(worktree: &ObservedWorktree) -> bool {
    matches!(worktree.presence, Presence::Unknown(_))
}

/// What the registry would record of a worktree that was seen to be there.
pub(crate) fn recorded(worktree: &ObservedWorktree, id: u128) -> Recorded {
    let Presence::Present { device, .. } = worktree.presence else { panic!("{worktree:?}") };
    Recorded {
        id: match worktree.claim {
            Claim::Allocation { id, .. } => id,
            _ => allocation(id),
        },
        git_dir: worktree.git_dir.clone(),
        identity: worktree.identity,
        path: worktree.path.clone(),
        device,
        main: worktree.id.is_none(),
        override_digest: None,
    }
}

/// An allocation's id.
pub(crate) fn allocation(id: u128) -> AllocationId {
    format!("{id:032x}").parse().unwrap()
}

/// Makes a file or directory old, as far as its time of change goes.
pub(crate) fn age(path: &Path) {
    let long_ago = SystemTime::now() - Duration::from_hours(1);
    fs::File::open(path).unwrap().set_modified(long_ago).unwrap();
}

/// Set in a process that runs a test again.
const AGAIN: &str = "WTD_TEST_AGAIN";

/// Runs the calling test again in a process of another user, since nothing is forbidden to root. True in that
/// process, where the test then does its work.
pub(crate) fn as_nobody(test: &str) -> bool {
    if !rustix::process::geteuid().is_root() {
        return true;
    }
    again(test, Path::new("/"), |command| command.uid(65534).gid(65534))
}

/// Runs the calling test again in a process that works in `directory`. True in that process.
pub(crate) fn working_in(directory: &Path, test: &str) -> bool {
    again(test, directory, |command| command)
}

fn again(test: &str, directory: &Path, set: impl Fn(&mut Command) -> &mut Command) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env(AGAIN, "1").env_remove("TMPDIR").env("HOME", "/");
    let output = set(command.current_dir(directory)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}");
    false
}

/// A file system of its own, unmounted with the test at the latest.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    mounted: bool,
}

impl Disk {
    /// None where mounting isn't allowed; then it says that `test` is skipped.
    pub(crate) fn mount(path: &Path, test: &str) -> Option<Self> {
        fs::create_dir_all(path).unwrap();
        let mount = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(path).output();
        if mount.is_ok_and(|mount| mount.status.success()) {
            return Some(Self { path: path.to_owned(), mounted: true });
        }
        eprintln!("skipped: {test}: it may not mount");
        None
    }

    pub(crate) fn unmount(&mut self) {
        run("umount", [&self.path]);
        self.mounted = false;
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if self.mounted {
            Command::new("umount").arg("-l").arg(&self.path).status().ok();
        }
    }
}
