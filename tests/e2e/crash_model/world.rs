//! The world: real repositories, the real daemon, and what is known of both.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::mirror::Mirror;
use super::model::{Incarnation, Life, Model};
use super::step::{Home, Place, REPOSITORIES, Repo, Step, Worktree};
use crate::harness::{self, Daemon, Ran, Sandbox, require};

/// What a main worktree's `wtd.toml` says in turn. None of it may move an offset.
pub(super) const PROJECTS: [&str; 4] = [
    "",
    "[ports]\nUI_PORT = 3000\n",
    "project = \"other\"\n[ports]\nDB_HOST_PORT = 6000\nAPI_PORT = 8003\n[database]\nvolume = \"data\"\n",
    "[ports\nUI_PORT = = 3\n",
];

/// How long a client may take that is told to wait for a tenth of a second: a machine can be slow, a client that hangs
/// is slower.
const BOUNDED: Duration = Duration::from_secs(15);

/// An allocation as somebody was told of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Allocation {
    pub(super) id: String,
    pub(super) offset: u64,
}

/// Real repositories and a real daemon in a sandbox.
pub(super) struct World<'s> {
    pub(super) sandbox: &'s Sandbox,
    pub(super) daemon: Option<Daemon<'s>>,
    pub(super) mirror: Mirror,
    /// What each incarnation was given; it must never be given anything else.
    pub(super) given: BTreeMap<Incarnation, Allocation>,
    /// How long it may take until everything is at rest.
    pub(super) patience: Duration,
    clock: Option<PathBuf>,
    branches: u32,
}

impl<'s> World<'s> {
    /// An empty world with a daemon; `clock` is the library that sets its wall clock, if that is to be set.
    pub(super) fn new(sandbox: &'s Sandbox, clock: Option<PathBuf>, patience: Duration) -> Self {
        sandbox.repo("template");
        fs::write(sandbox.path("clock"), "+0").unwrap();
        let mut world = Self {
            sandbox,
            daemon: None,
            mirror: Mirror::default(),
            given: BTreeMap::new(),
            patience,
            clock,
            branches: 0,
        };
        world.start();
        world
    }

    /// The path of a repository's main worktree.
    pub(super) fn home(&self, repo: Repo, home: Home) -> PathBuf {
        self.sandbox.path(format!("r{repo}-{home}"))
    }

    /// The path of a linked worktree. Some are as unkind as a path can be.
    pub(super) fn place(&self, repo: Repo, place: Place) -> PathBuf {
        let name = match place {
            2 => format!("w{repo} two\n'").into_bytes(),
            3 => [format!("w{repo}-").as_bytes(), b"\xff3"].concat(),
            _ => format!("w{repo}-{place}").into_bytes(),
        };
        self.sandbox.path(OsString::from_vec(name))
    }

    /// The path of a worktree of a repository that is at `home`.
    pub(super) fn path(&self, repo: Repo, home: Home, worktree: Worktree) -> PathBuf {
        match worktree {
            Worktree::Main => self.home(repo, home),
            Worktree::At(place) => self.place(repo, place),
        }
    }

    /// The repository that one of its worktrees' paths belongs to.
    pub(super) fn repo_of(&self, path: &Path) -> Option<Repo> {
        (0..REPOSITORIES).find(|repo| {
            let homes = (0..2).map(|home| self.home(*repo, home));
            let mut places = (0..super::step::PLACES).map(|place| self.place(*repo, place));
            homes.into_iter().any(|home| home == path) || places.any(|place| place == path)
        })
    }

    /// Takes a step. `model` is what has to be so afterwards.
    pub(super) fn take(&mut self, model: &Model, step: &Step) -> Result<(), String> {
        let home = |repo: Repo| self.home(repo, model.repositories[repo].home.unwrap_or_default());
        match *step {
            Step::Clone(repo, _) => {
                let (from, to) = (self.sandbox.path("template"), home(repo));
                self.git(&self.sandbox.path("."), &["clone".into(), "-q".into(), from.into(), to.into()])
            }
            Step::MoveRepository(repo) => {
                let to = model.repositories[repo].home.unwrap_or_default();
                rename(&self.home(repo, 1 - to), &self.home(repo, to))
            }
            Step::Destroy(repo) => {
                let homes = (0..2).map(|home| self.home(repo, home));
                let places = (0..super::step::PLACES).map(|place| self.place(repo, place));
                let mut left = homes.chain(places).filter(|path| path.exists());
                // A changed `wtd.toml` has allocation files written a moment later, into what is being deleted.
                left.try_for_each(|path| delete(&path).or_else(|_| delete(&path)))
            }
            Step::Configure(repo, project) => {
                fs::write(home(repo).join("wtd.toml"), PROJECTS[project]).map_err(|error| error.to_string())
            }
            Step::Add(repo, place) => {
                self.worktree(&home(repo), &["add", "-q", "-f", "--detach"], &[self.place(repo, place)])
            }
            Step::Remove(repo, place) => {
                self.worktree(&home(repo), &["remove", "-f", "-f"], &[self.place(repo, place)])
            }
            Step::Move(repo, from, to) => {
                let paths = [self.place(repo, from), self.place(repo, to)];
                self.worktree(&home(repo), &["move", "-f", "-f"], &paths)
            }
            Step::Lock(repo, place) => self.worktree(&home(repo), &["lock"], &[self.place(repo, place)]),
            Step::Unlock(repo, place) => self.worktree(&home(repo), &["unlock"], &[self.place(repo, place)]),
            Step::Prune(repo) => self.worktree(&home(repo), &["prune"], &[]),
            Step::Repair(repo) => {
                let listed = model.repositories[repo].trees.iter().filter(|tree| tree.listed.is_some());
                let there: Vec<PathBuf> =
                    listed.filter_map(|tree| Some(self.place(repo, tree.directory?))).collect();
                self.worktree(&home(repo), &["repair"], &there)
            }
            Step::Switch(repo, worktree) => {
                self.branches += 1;
                let branch = format!("b{}", self.branches);
                let path = self.path(repo, model.repositories[repo].home.unwrap_or_default(), worktree);
                self.git(&path, &["switch".into(), "-q".into(), "-c".into(), branch.into()])
            }
            Step::Delete(repo, place) => delete(&self.place(repo, place)),
            Step::Rename(repo, from, to) => rename(&self.place(repo, from), &self.place(repo, to)),
            Step::Unlist(repo, place) => delete(&git_dir(&self.place(repo, place))?),
            Step::Ask(repo, worktree) => self.ask(model, repo, worktree),
            Step::Client(repo, worktree) => self.client(model, repo, worktree),
            Step::Reassign(repo, worktree) => self.reassign(model, repo, worktree),
            Step::Forget(repo) => {
                self.http("DELETE", "/v1/repositories", &json!({ "path": home(repo) })).map(drop)
            }
            Step::Kill(delay) => {
                a_moment(Duration::from_millis(delay.into()));
                self.mirror.lose_sight();
                self.daemon.take().map_or_else(
                    || Err("no daemon".to_owned()),
                    |daemon| {
                        daemon.kill9();
                        Ok(())
                    },
                )
            }
            Step::Terminate => {
                self.mirror.lose_sight();
                self.daemon.take().map_or_else(
                    || Err("no daemon".to_owned()),
                    |daemon| {
                        daemon.terminate();
                        Ok(())
                    },
                )
            }
            Step::Start => {
                self.start();
                Ok(())
            }
            Step::Halt => self.running().map(Daemon::sigstop),
            Step::Resume => self.running().map(Daemon::sigcont),
            Step::Overflow(repo) => harness::overflow_queue(&home(repo).join(".git")),
            Step::Clock(seconds) => fs::write(self.sandbox.path("clock"), format!("{seconds:+}"))
                .map_err(|error| error.to_string()),
            Step::Settle => self.settle(model),
        }
    }

    fn start(&mut self) {
        let mut command = self.sandbox.command(Sandbox::program("wtd"));
        if let Some(library) = &self.clock {
            // The wall clock alone: timers don't go by it, and no system sets its monotonic clock.
            command
                .env("LD_PRELOAD", library)
                .env("FAKETIME_TIMESTAMP_FILE", self.sandbox.path("clock"))
                .env("FAKETIME_NO_CACHE", "1")
                .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
                .env("FAKETIME_DISABLE_SHM", "1")
                .env("NO_FAKE_STAT", "1");
        }
        let daemon = Daemon::start_command(self.sandbox, command);
        self.mirror.follow(&daemon);
        self.daemon = Some(daemon);
    }

    pub(super) fn running(&self) -> Result<&Daemon<'s>, String> {
        self.daemon.as_ref().ok_or_else(|| "no daemon runs".to_owned())
    }

    fn http(&self, method: &str, target: &str, body: &Value) -> Result<Value, String> {
        let answer =
            self.running()?.try_http(method, target, Some(body)).map_err(|error| error.to_string())?;
        if answer.status == 200 {
            Ok(answer.json())
        } else {
            Err(format!(
                "{method} {target} {body}: {} {}",
                answer.status,
                String::from_utf8_lossy(&answer.body)
            ))
        }
    }

    fn request(path: &Path) -> Value {
        let encoded = wtd_protocol::PathText::of(path);
        json!({ "path": encoded.text, "path_base64": encoded.base64 })
    }

    fn ask(&mut self, model: &Model, repo: Repo, worktree: Worktree) -> Result<(), String> {
        let incarnation = model.whole(repo, worktree).ok_or("the model asks for nothing")?;
        let path = self.path(repo, model.repositories[repo].home.unwrap_or_default(), worktree);
        let answer = self.http("PUT", "/v1/worktrees", &Self::request(&path))?;
        self.take_answer(incarnation, &answer)
    }

    fn reassign(&mut self, model: &Model, repo: Repo, worktree: Worktree) -> Result<(), String> {
        let incarnation = model.whole(repo, worktree).ok_or("the model reassigns nothing")?;
        let path = self.path(repo, model.repositories[repo].home.unwrap_or_default(), worktree);
        let answer = self.http("POST", "/v1/worktrees/reassign", &Self::request(&path))?;
        self.take_answer(incarnation, &answer)
    }

    fn take_answer(&mut self, incarnation: Incarnation, answer: &Value) -> Result<(), String> {
        let (Some(id), Some(offset)) = (answer["id"].as_str(), answer["offset"].as_u64()) else {
            return Err(format!("no allocation: {answer}"));
        };
        let variable = answer["variables"]["PORT_OFFSET"].as_str().and_then(|text| text.parse().ok());
        if variable != Some(offset) || answer["state"] != "active" {
            return Err(format!("an allocation that contradicts itself: {answer}"));
        }
        self.give(incarnation, Allocation { id: id.to_owned(), offset })
    }

    /// Notes what an incarnation was given; an error if it had anything else, or if another one had that.
    pub(super) fn give(&mut self, incarnation: Incarnation, now: Allocation) -> Result<(), String> {
        if let Some((other, _)) =
            self.given.iter().find(|(other, given)| **other != incarnation && given.id == now.id)
        {
            return Err(format!("incarnation {incarnation} has what {other} has or had: {now:?}"));
        }
        match self.given.get(&incarnation) {
            Some(before) if *before != now => {
                Err(format!("incarnation {incarnation} had {before:?} and has {now:?}"))
            }
            Some(_) => Ok(()),
            None => {
                self.given.insert(incarnation, now);
                Ok(())
            }
        }
    }

    fn client(&mut self, model: &Model, repo: Repo, worktree: Worktree) -> Result<(), String> {
        let incarnation = model.whole(repo, worktree).ok_or("the model asks for nothing")?;
        let path = self.path(repo, model.repositories[repo].home.unwrap_or_default(), worktree);
        let mut command = self.sandbox.client_command(["get", "PORT_OFFSET", "--no-start", "--path"]);
        command.arg(&path).args(["--timeout", if model.life == Life::Up { "20s" } else { "100ms" }]);
        let begin = Instant::now();
        let ran = Ran::of(&mut command);
        if model.life != Life::Up && begin.elapsed() > BOUNDED {
            return Err(format!("after {:?}: {ran:#?}", begin.elapsed()));
        }
        match (ran.code, self.given.get(&incarnation)) {
            (Some(0), Some(given)) if ran.text().trim_end() != given.offset.to_string() => {
                Err(format!("{given:?} was given: {ran:#?}"))
            }
            (Some(0), _) => Ok(()),
            (Some(4), _) if model.life != Life::Up && ran.stdout.is_empty() => Ok(()),
            _ => Err(format!("{ran:#?}")),
        }
    }

    fn worktree(&self, repository: &Path, words: &[&str], paths: &[PathBuf]) -> Result<(), String> {
        let words = std::iter::once("worktree").chain(words.iter().copied()).map(OsString::from);
        let arguments: Vec<OsString> = words.chain(paths.iter().map(OsString::from)).collect();
        self.git(repository, &arguments)
    }

    /// Runs git, which has to do what it is told: the model knows what it refuses.
    fn git(&self, directory: &Path, arguments: &[OsString]) -> Result<(), String> {
        let ran = Ran::of(self.sandbox.command("git").current_dir(directory).args(arguments));
        if ran.code == Some(0) { Ok(()) } else { Err(format!("{ran:#?}")) }
    }
}

/// The git dir that a linked worktree's `.git` names.
pub(super) fn git_dir(root: &Path) -> Result<PathBuf, String> {
    let bytes = fs::read(root.join(".git")).map_err(|error| format!("{}: {error}", root.display()))?;
    let path = bytes.strip_prefix(b"gitdir: ").ok_or("no gitdir")?.trim_ascii_end();
    Ok(std::ffi::OsStr::from_bytes(path).into())
}

fn rename(from: &Path, to: &Path) -> Result<(), String> {
    fs::rename(from, to).map_err(|error| format!("{} to {}: {error}", from.display(), to.display()))
}

fn delete(path: &Path) -> Result<(), String> {
    fs::remove_dir_all(path).map_err(|error| format!("{}: {error}", path.display()))
}

#[expect(clippy::disallowed_methods, reason = "a kill at any moment whatsoever is what is wanted")]
fn a_moment(duration: Duration) {
    std::thread::sleep(duration);
}

/// The library that sets a program's clock (faketime(1)), where it is installed.
pub(super) fn clock_library() -> Option<PathBuf> {
    require::find("faketime")?;
    let find = Ran::of(Command::new("find").args(["/usr/lib", "-name", "libfaketimeMT.so.1"]));
    find.text().lines().next().map(PathBuf::from)
}
