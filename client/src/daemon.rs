//! Typed calls of the daemon's API. Finds the daemon, starts one when none answers, and asks again when a
//! daemon that was about to end took the request.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use wtd_protocol::gc::{EngineHint, GcReport, GcRequest, RestoreRequest, Restored};
use wtd_protocol::requests::{
    ComposeRequest, ForgetRequest, Forgotten, PathRequest, ReassignRequest, Reloaded, Revoked, Trust,
    TrustRequest,
};
use wtd_protocol::seed::SeedRequest;
use wtd_protocol::{Allocation, Health, Problem, ProblemType, Repository, routes, socket};

use crate::cli::DaemonArgs;
use crate::connection::{self, ConnectError};
use crate::deadline::Deadline;
use crate::error::{Error, Unreachable};
use crate::start;
use crate::transport::{Exchange, ExchangeError, Request};

/// How long starting and asking the daemon takes at most, unless `--timeout` says otherwise.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How long a daemon that answers is waited for, where it looks at a whole repository, or records what a person has decided:
/// both are for a disk to do, which can be busy.
pub(crate) const CHANGE_WORK: Duration = Duration::from_secs(10);
/// The same where it asks the container engine or a database server.
pub(crate) const ENGINE_WORK: Duration = Duration::from_secs(10);
/// The same for a reload: the daemon gives reading its configuration half of it.
pub(crate) const RELOAD_WORK: Duration = Duration::from_secs(10);
/// The same for gc, for which the daemon looks at every repository and at all that the engine has.
pub(crate) const GC_WORK: Duration = Duration::from_secs(30);

/// How often a request is sent again when the connection was closed without an answer.
const CLOSED_RETRIES: u32 = 3;
/// How often a request is sent again when the daemon says that it is about to end.
const ENDING_RETRIES: u32 = 8;
/// The first pause before a request is sent again; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// The daemon, as the command line has it found.
#[derive(Debug)]
pub(crate) struct Daemon {
    places: Places,
    starting: Starting,
    patience: Duration,
    deadline: Deadline,
    /// How long a daemon that answers is waited for; none: no longer than any other.
    work: Option<Duration>,
    /// The end of that wait, once the daemon has answered.
    works_until: OnceCell<Deadline>,
    /// The socket that a daemon was reached at.
    reached: OnceCell<PathBuf>,
}

/// Whether a daemon may be started where none answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Starting {
    Allowed,
    /// A person has said no.
    Forbidden,
    /// The command is one that never does.
    NotForThis,
}

/// Where the socket may be.
#[derive(Debug, Clone)]
pub(crate) struct Places {
    /// The paths to try, best first.
    pub(crate) sockets: Vec<PathBuf>,
    /// Whether a person named the one path that is meant.
    pub(crate) is_named: bool,
}

/// A connection to a daemon.
#[derive(Debug)]
pub(crate) struct Connected {
    /// The connection.
    pub(crate) socket: OwnedFd,
    /// The path at which the daemon listens.
    pub(crate) place: PathBuf,
}

/// What the daemon answered.
#[derive(Debug)]
pub(crate) struct Answer {
    status: u16,
    exchange: Exchange,
}

impl Daemon {
    /// The daemon that `args` and the environment point at; `patience` is the time for all that is asked of it.
    pub(crate) fn new(args: &DaemonArgs, patience: Duration) -> Self {
        let variable = |name: &str| std::env::var_os(name);
        let forbidden = variable("WTD_NO_START").is_some_and(|value| !value.is_empty() && value != *"0");
        let named = args.socket.clone().or_else(|| self::variable("WTD_SOCKET").map(PathBuf::from));
        let is_named = named.is_some();
        let sockets = named.map_or_else(
            || socket::candidates(variable, rustix::process::geteuid().as_raw()),
            |named| vec![named],
        );
        let patience = args.timeout.unwrap_or(patience);
        Self {
            places: Places { sockets, is_named },
            starting: if args.no_start || forbidden { Starting::Forbidden } else { Starting::Allowed },
            patience,
            deadline: Deadline::after(patience),
            work: None,
            works_until: OnceCell::new(),
            reached: OnceCell::new(),
        }
    }

    /// As [`Daemon::new`], for what may take the daemon as long as `work`. Whether it answers at all shows within
    /// the usual time all the same. `--timeout` is for both together.
    pub(crate) fn working(args: &DaemonArgs, work: Duration) -> Self {
        let work = args.timeout.is_none().then_some(work);
        Self { work, ..Self::new(args, PATIENCE) }
    }

    /// The same daemon with the whole time before it again: after a person's answer, or when a stream ended.
    pub(crate) fn again(&self) -> Self {
        let Self { places, starting, patience, work, .. } = self;
        Self {
            places: places.clone(),
            starting: *starting,
            patience: *patience,
            deadline: Deadline::after(*patience),
            work: *work,
            works_until: OnceCell::new(),
            reached: OnceCell::new(),
        }
    }

    /// The same daemon, and none is started.
    pub(crate) fn without_start(mut self) -> Self {
        self.starting = Starting::NotForThis;
        self
    }

    /// The allocation of the worktree that holds `path`, made if needed. `meanwhile` is run while the daemon
    /// works on the answer.
    pub(crate) fn allocation(&self, path: &Path, meanwhile: &mut dyn FnMut()) -> Result<Allocation, Error> {
        let request = with_body("PUT", routes::WORKTREES, &PathRequest::of(path))?;
        parsed(&self.ask(&request, meanwhile)?)
    }

    /// The worktrees: those in use, or with those that are stale and released. As JSON, since `list --json`
    /// hands on what this version doesn't know.
    pub(crate) fn worktrees(&self, all: bool) -> Result<serde_json::Value, Error> {
        let query = if all { "" } else { "?state=active,missing" };
        self.get(&format!("{}{query}", routes::WORKTREES))
    }

    /// Watches the repository that holds `path`.
    pub(crate) fn add(&self, path: &Path) -> Result<Repository, Error> {
        let request = with_body("PUT", routes::REPOSITORIES, &PathRequest::of(path))?;
        parsed(&self.ask(&request, &mut || {})?)
    }

    /// Stops watching the repository that holds `path`, or only says what that would do.
    pub(crate) fn forget(&self, path: &Path, dry_run: bool) -> Result<Forgotten, Error> {
        let body = ForgetRequest { path: PathRequest::of(path), dry_run };
        parsed(&self.ask(&with_body("DELETE", routes::REPOSITORIES, &body)?, &mut || {})?)
    }

    /// Gives the worktree that holds `path` another offset.
    pub(crate) fn reassign(&self, path: &Path, force: bool, engine: EngineHint) -> Result<Allocation, Error> {
        let body = ReassignRequest { path: PathRequest::of(path), force, engine };
        parsed(&self.ask(&with_body("POST", routes::REASSIGN, &body)?, &mut || {})?)
    }

    /// Has the daemon read its configuration again.
    pub(crate) fn reload(&self) -> Result<Reloaded, Error> {
        let nothing = serde_json::Map::new();
        parsed(&self.ask(&with_body("POST", routes::RELOAD, &nothing)?, &mut || {})?)
    }

    /// What the configuration of the worktree that holds `path` declares that takes trust.
    pub(crate) fn trust(&self, path: &Path) -> Result<Trust, Error> {
        let PathRequest { path, path_base64 } = PathRequest::of(path);
        // Where the text is not exact, only the exact form is sent.
        let query = match path_base64 {
            Some(exact) => format!("path_base64={}", percent_encoded(&exact)),
            None => format!("path={}", percent_encoded(&path)),
        };
        self.get(&format!("{}?{query}", routes::TRUST))
    }

    /// Trusts the content with this hash, if the worktree that holds `path` still has it.
    pub(crate) fn put_trust(&self, path: &Path, sha256: &str) -> Result<Trust, Error> {
        let body = TrustRequest { path: PathRequest::of(path), sha256: sha256.to_owned() };
        parsed(&self.ask(&with_body("PUT", routes::TRUST, &body)?, &mut || {})?)
    }

    /// Trusts nothing of the repository that holds `path` any more.
    pub(crate) fn revoke_trust(&self, path: &Path) -> Result<Revoked, Error> {
        parsed(&self.ask(&with_body("DELETE", routes::TRUST, &PathRequest::of(path))?, &mut || {})?)
    }

    /// What gc would do.
    pub(crate) fn gc_plan(&self, request: &GcRequest) -> Result<GcReport, Error> {
        parsed(&self.ask(&with_body("POST", routes::GC, request)?, &mut || {})?)
    }

    /// Has gc do it; gives the stream of its events.
    pub(crate) fn gc(&self, request: &GcRequest) -> Result<Exchange, Error> {
        self.stream(&with_body("POST", routes::GC, request)?, Exchange::unbounded)
    }

    /// Has a volume brought back.
    pub(crate) fn restore(&self, request: &RestoreRequest) -> Result<Restored, Error> {
        let mut stream = self.stream(&with_body("POST", routes::RESTORE, request)?, Exchange::unbounded)?;
        parsed(&stream.body().map_err(|error| self.unanswered(&error))?)
    }

    /// Has volumes filled; gives the stream of what is told of it.
    pub(crate) fn seed(&self, request: &SeedRequest) -> Result<Exchange, Error> {
        self.stream(&with_body("POST", routes::SEED, request)?, Exchange::unbounded)
    }

    /// Records the Compose override of a worktree, and has it put into its git dir.
    pub(crate) fn set_override(&self, request: &ComposeRequest) -> Result<Allocation, Error> {
        parsed(&self.ask(&with_body("PUT", routes::COMPOSE, request)?, &mut || {})?)
    }

    /// Takes the Compose override of the worktree that holds `path` away.
    pub(crate) fn remove_override(&self, path: &Path) -> Result<Allocation, Error> {
        parsed(&self.ask(&with_body("DELETE", routes::COMPOSE, &PathRequest::of(path))?, &mut || {})?)
    }

    /// How the daemon fares.
    pub(crate) fn health(&self) -> Result<Health, Error> {
        self.get(routes::HEALTH)
    }

    /// What `path` of the API gives.
    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Error> {
        parsed(&self.ask(&Request::get(path), &mut || {})?)
    }

    /// The stream of events, after the one numbered `last`.
    pub(crate) fn events(&self, last: Option<i64>) -> Result<Exchange, Error> {
        self.stream(&Request { last_event: last, ..Request::get(routes::EVENTS) }, Exchange::follow)
    }

    /// Sends a request whose answer goes on for as long as it takes.
    fn stream(&self, request: &Request, prepare: fn(&mut Exchange)) -> Result<Exchange, Error> {
        let mut answer = self.answer(request, &mut || {})?;
        if answer.status == 200 {
            prepare(&mut answer.exchange);
            Ok(answer.exchange)
        } else {
            let body = answer.exchange.body().map_err(|error| self.unanswered(&error))?;
            Err(problem(answer.status, &body))
        }
    }

    /// Sends a request and reads the whole answer.
    fn ask(&self, request: &Request, meanwhile: &mut dyn FnMut()) -> Result<Vec<u8>, Error> {
        let mut attempts = 0;
        loop {
            let mut answer = self.answer(request, meanwhile)?;
            let body = answer.exchange.body().map_err(|error| self.unanswered(&error))?;
            if (200..300).contains(&answer.status) {
                return Ok(body);
            }
            match problem(answer.status, &body) {
                Error::Problem(problem)
                    if problem.kind == ProblemType::ShuttingDown && attempts < ENDING_RETRIES =>
                {
                    self.pause(attempts)?;
                    attempts += 1;
                }
                error => return Err(error),
            }
        }
    }

    /// Sends a request and reads the answer's head.
    fn answer(&self, request: &Request, meanwhile: &mut dyn FnMut()) -> Result<Answer, Error> {
        self.see_that_it_answers(request)?;
        let mut attempts = 0;
        loop {
            let socket = self.connect().map_err(Error::Unreachable)?;
            let answer = Exchange::send(socket, request, self.until()).and_then(|mut exchange| {
                meanwhile();
                let status = exchange.status()?;
                Ok(Answer { status, exchange })
            });
            match answer {
                Ok(answer) => return Ok(answer),
                Err(ExchangeError::Closed) if request.is_idempotent() && attempts < CLOSED_RETRIES => {
                    self.pause(attempts)?;
                    attempts += 1;
                }
                Err(error) => return Err(self.unanswered(&error)),
            }
        }
    }

    /// Asks how the daemon fares before anything that may take long is asked of it: one that doesn't answer is given up
    /// as soon as ever, and one that does has the time that its work takes.
    fn see_that_it_answers(&self, request: &Request) -> Result<(), Error> {
        let Some(work) = self.work else { return Ok(()) };
        if self.works_until.get().is_none() && request.target != routes::HEALTH {
            self.answer(&Request::get(routes::HEALTH), &mut || {})?;
            self.works_until.get_or_init(|| Deadline::after(work));
        }
        Ok(())
    }

    /// When waiting ends.
    fn until(&self) -> Deadline {
        self.works_until.get().copied().unwrap_or(self.deadline)
    }

    /// Connects to the first socket on which a daemon answers; starts one when there is none.
    fn connect(&self) -> Result<OwnedFd, Unreachable> {
        let connected = match self.places.connect(self.until()) {
            Ok(connected) => Ok(connected),
            Err(failures) => {
                let vacant = failures.iter().all(|(_, error)| error.is_vacant());
                if vacant && self.starting == Starting::Allowed {
                    start::start(&self.places, self.until())
                } else {
                    Err(unreachable(&failures, self.starting))
                }
            }
        };
        connected.map(|Connected { socket, place }| {
            self.reached.get_or_init(|| place);
            socket
        })
    }

    /// Lets some time pass before the next of several attempts.
    fn pause(&self, attempts: u32) -> Result<(), Error> {
        let pause = FIRST_PAUSE * 2_u32.saturating_pow(attempts);
        self.until().pause(pause).map_err(|errno| self.unanswered(&ExchangeError::Connection(errno)))
    }

    /// The error for a daemon that was reached and gave no answer.
    fn unanswered(&self, error: &ExchangeError) -> Error {
        let place = self.reached.get().or_else(|| self.places.sockets.first());
        let place = place.map(|path| path.display().to_string()).unwrap_or_default();
        let remedy = match error {
            ExchangeError::TimedOut => "look at the daemon's log, or allow more with --timeout",
            ExchangeError::Malformed(_) => "check what serves this socket, or name another with --socket",
            _ => "try again, and see the daemon's log if that does not help",
        };
        Error::Unreachable(Unreachable::new(format!("the daemon on {place} gave no answer: {error}"), remedy))
    }
}

impl Places {
    /// Connects to the first socket on which a daemon answers; else gives every place with its reason.
    pub(crate) fn connect(&self, deadline: Deadline) -> Result<Connected, Vec<(PathBuf, ConnectError)>> {
        let mut failures = Vec::new();
        for path in &self.sockets {
            match connection::connect(path, deadline) {
                Ok(socket) => return Ok(Connected { socket, place: path.clone() }),
                Err(error) => failures.push((path.clone(), error)),
            }
        }
        Err(failures)
    }
}

/// The error for a daemon that can't be reached: about the first place where something is in the way, else about
/// the first place.
fn unreachable(failures: &[(PathBuf, ConnectError)], starting: Starting) -> Unreachable {
    let in_the_way = failures.iter().find(|(_, error)| !error.is_vacant());
    let Some((path, error)) = in_the_way.or_else(|| failures.first()) else {
        return Unreachable::new(
            "no place for a socket is known",
            "set XDG_RUNTIME_DIR or HOME, or pass --socket",
        );
    };
    let remedy = match error {
        ConnectError::Absent | ConnectError::Refused => match starting {
            Starting::Allowed => "start `wtd`",
            Starting::Forbidden => "start `wtd`, or ask without --no-start and WTD_NO_START",
            Starting::NotForThis => "start `wtd`; `wtd-client list` does so, for example",
        },
        ConnectError::NotASocket(_) | ConnectError::DanglingSymlink => {
            "remove it, or name another with --socket"
        }
        ConnectError::TooLong(_) => "name a shorter one with --socket or WTD_SOCKET",
        ConnectError::OtherUser(_) => "check who made it, or name another with --socket",
        ConnectError::TimedOut => "look at the daemon's log, or allow more with --timeout",
        ConnectError::Other(_) => "look at it, or name another with --socket",
    };
    Unreachable::new(format!("socket {}: {error}", path.display()), remedy)
}

/// A request with a JSON body.
fn with_body(method: &'static str, target: &str, body: &impl Serialize) -> Result<Request, Error> {
    let body = serde_json::to_vec(body)
        .map_err(|error| Error::failed(format!("the request is not JSON: {error}"), "report this defect"))?;
    Ok(Request { method, target: target.to_owned(), last_event: None, body })
}

/// A text as the value of a query (RFC 3986, 2.1 and 2.3).
fn percent_encoded(text: &str) -> String {
    use std::fmt::Write as _;
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing into a string can't fail.
            write!(encoded, "%{byte:02X}").ok();
        }
    }
    encoded
}

/// The answer's value.
fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(body).map_err(|error| {
        Error::Unreachable(Unreachable::new(
            format!("what answers is not wtd of this version: {error}"),
            "compare the versions with `wtd-client doctor`",
        ))
    })
}

/// The error that an answer without success tells.
fn problem(status: u16, body: &[u8]) -> Error {
    match serde_json::from_slice::<Problem>(body) {
        Ok(problem) => Error::Problem(problem),
        Err(_) => Error::Unreachable(Unreachable::new(
            format!("what answers is not wtd: status {status} without a problem"),
            "check what serves this socket, or name another with --socket",
        )),
    }
}

/// The value of an environment variable, where it is set and not empty.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// As [`variable`], where it is UTF-8.
pub(crate) fn text_variable(name: &str) -> Option<String> {
    variable(name).and_then(|value| value.into_string().ok())
}
