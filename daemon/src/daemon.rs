//! The daemon put together: opened, served, and ended in order.

use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, info, warn};

use crate::config::{Config, Sources};
use crate::databases::{self, Databases};
use crate::engine::{Engine, Environment};
use crate::gc::{Gc, recorder};
use crate::http::{Context, Listener, Metrics, serve};
use crate::reconciler::{Reconciler, watched_common_dirs};
use crate::registry::Writer;
use crate::release::Releaser;
use crate::reload::{Governed, Reloader, probe, rules};
use crate::roots::Roots;
use crate::seed::Seeds;
use crate::service::{Parts, Service};
use crate::socket::Socket;
use crate::systemd::notify;
use crate::telemetry::Log;
use crate::vacancy::vacated;
use crate::{pruning, store, systemd};

/// How long the start waits for a first look at every repository. Those that take longer are looked at while requests
/// are answered.
const FIRST_LOOK: Duration = Duration::from_millis(400);

/// What an error says first that ended a daemon which had served already: other than a start that failed, it is worth
/// starting again at once.
#[derive(Debug)]
pub struct Broken;

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("wtd can't go on")
    }
}

/// Runs the daemon until it is told to end. `config` is what `sources` gave. Descriptors that systemd passed have to be
/// taken before any thread starts, so they come from the caller.
pub async fn run(
    sources: Sources,
    config: Config,
    log: Log,
    mut passed: ListenFd,
    detached: bool,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let hangup = Hangup::listen()?;
    let variable = |name: &str| sources.variable(name);
    let passed = Socket::inherited(&mut passed)?;
    let socket_path = passed.as_ref().map_or_else(
        || Socket::place(config.socket.as_deref(), variable, &config.state_dir),
        |passed| passed.path.clone(),
    );
    let mut registry = store::open(&config.state_dir, &store::describe(&socket_path)).await?;
    let place = registry.place().clone();
    let lock = store::lock_file(&place.path);
    let history = registry.history();
    let ledger = registry.load().await?;
    // First, for it can be in use; nobody is to be served then.
    let tcp = listen(config.listen).await?;
    let socket = match passed {
        Some(socket) => socket,
        None => Socket::bind(socket_path, config.socket.is_some())?,
    };
    // From here on nothing is relative, and no directory is kept from being unmounted.
    std::env::set_current_dir("/").context("can't leave the working directory")?;
    info!(
        version = wtd_protocol::VERSION,
        registry = %place.path.display(),
        socket = %socket.path.display(),
        inherited = socket.inherited,
        "started"
    );

    let engine = Engine::new(config.engine.clone(), Environment::read(variable));
    let (writer, writing) = Writer::start(registry, ledger, rules(&config), probe(&config, &engine));
    let reconciler = Reconciler::new(writer.clone());
    let databases = Databases::new(writer.clone(), databases::Environment::read(variable));
    let mut tasks = JoinSet::new();
    let looking = reconciler.clone();
    tasks.spawn(async move { looking.run().await });
    first_look(&writer, &reconciler).await;
    let (end, ending) = watch::channel(false);
    let socket_from = if socket.inherited { "systemd" } else { "self" };
    let socket_path = socket.path.clone();
    let roots = Arc::new(Roots::new(&config.roots));
    let (resync, resyncs) = watch::channel(config.resync);
    let governed = Governed {
        writer: writer.clone(),
        engine: engine.clone(),
        reconciler: reconciler.clone(),
        roots: Arc::clone(&roots),
        resync,
        log,
    };
    let reloader = Reloader::new(sources.clone(), config.clone(), governed);
    let releaser = Releaser::new(writer.clone(), reconciler.clone(), history.clone(), databases.clone());
    let (listener, unlink) = socket.into_parts();
    let seeds = Seeds::new(writer.clone(), history.clone(), engine.clone(), &place.path);
    let gc = Gc::new(releaser.clone(), engine.clone(), &place.path);
    let service = Service::new(Parts {
        writer: writer.clone(),
        reconciler: reconciler.clone(),
        gc: gc.clone(),
        seeds: seeds.clone(),
        history,
        engine: engine.clone(),
        databases: databases.clone(),
        registry: place,
        socket: socket_path,
        socket_from,
        started: Instant::now(),
        reloader: reloader.clone(),
    });
    let context = Context { service, metrics: Metrics::default(), ending };
    let mut servers = JoinSet::new();
    servers.spawn(serve(Listener::Unix(tokio::net::UnixListener::from_std(listener)?), context.clone()));
    if let Some(tcp) = tcp {
        servers.spawn(serve(Listener::Tcp(tcp), context));
    }
    work(&mut tasks, &reconciler, (releaser, engine, databases, roots, seeds.clone(), gc.clone()), resyncs);
    if let Some(interval) = systemd::watchdog_interval() {
        tasks.spawn(systemd::watchdog(writer.clone(), interval));
    }
    say_ready(detached)?;

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        () = hangup.reload_until_no_terminal(&reloader) => None,
        () = vacated(&unlink, &lock, config.resync) => Some(End::Vacated),
        () = writer.ended() => Some(End::Failed(None)),
        ended = tasks.join_next() => Some(End::Failed(ended)),
        ended = servers.join_next() => Some(End::Failed(ended)),
    };
    notify(&[NotifyState::Stopping]);
    info!("stopping");
    end.send_replace(true);
    tokio::join!(seeds.end(), gc.end());
    while servers.join_next().await.is_some() {}
    tasks.shutdown().await;
    writer.close().await;
    let closed = writing.await.context("the registry's writer panicked");
    drop(unlink);
    closed.context(Broken)?.context(Broken)?;
    failed.map_or(Ok(()), broken)
}

/// The loopback address that was asked for, if one was.
async fn listen(address: Option<SocketAddr>) -> anyhow::Result<Option<TcpListener>> {
    let Some(address) = address else { return Ok(None) };
    let listener = TcpListener::bind(address).await;
    Ok(Some(listener.with_context(|| format!("can't listen on {address}"))?))
}

/// Why a daemon ends that was not told to.
enum End {
    /// Nobody can find it any more.
    Vacated,
    /// A part of it has ended.
    Failed(Option<Result<(), JoinError>>),
}

/// What is wrong with a daemon that ends by itself.
fn broken(end: End) -> anyhow::Result<()> {
    let why = match end {
        End::Vacated => "the socket is gone, so nobody could ask any more; another wtd can serve now",
        End::Failed(ended) => {
            ended.transpose().context("a part of the daemon panicked").context(Broken)?;
            "a part of the daemon ended by itself"
        }
    };
    Err(anyhow::Error::msg(why).context(Broken))
}

/// Starts what goes on whether or not somebody asks.
fn work(
    tasks: &mut JoinSet<()>,
    reconciler: &Reconciler,
    (releaser, engine, databases, roots, seeds, gc): (Releaser, Engine, Databases, Arc<Roots>, Seeds, Gc),
    resyncs: watch::Receiver<Duration>,
) {
    let (recording, there) = (releaser.clone(), engine.clone());
    let (sweeping, sweeps) = (reconciler.clone(), resyncs.clone());
    let (following, mounts) = (reconciler.clone(), resyncs.clone());
    let (looks, retries) = (resyncs.clone(), resyncs.clone());
    let (pruned, past, prunings) = (releaser.writer.clone(), releaser.history.clone(), resyncs.clone());
    tasks.spawn(async move { recorder::run(&recording.writer, &recording.history, &there, looks).await });
    tasks.spawn(async move { pruning::run(&pruned, &past, prunings).await });
    tasks.spawn(async move { sweeping.sweep(sweeps).await });
    tasks.spawn(async move { following.follow_mounts(mounts).await });
    tasks.spawn(async move { releaser.run(&engine).await });
    tasks.spawn(async move { databases.run(resyncs).await });
    tasks.spawn(async move {
        tokio::join!(seeds.run(&retries), gc.recover(&retries));
    });
    reconciler.set_roots_listener(Arc::clone(&roots) as _);
    let searching = reconciler.clone();
    tasks.spawn(async move { roots.run(&searching).await });
}

/// Looks at every repository, so that the first answers tell what changed while the daemon was down.
async fn first_look(writer: &Writer, reconciler: &Reconciler) {
    let all: JoinSet<_> = watched_common_dirs(&writer.snapshot())
        .into_iter()
        .map(|common_dir| {
            let reconciler = reconciler.clone();
            async move { reconciler.look_again(&common_dir).await }
        })
        .collect();
    let looked = async {
        for result in all.join_all().await {
            if let Err(error) = result {
                warn!(error = &error as &dyn std::error::Error, "repository not looked at");
            }
        }
    };
    let looking = tokio::spawn(looked);
    if tokio::time::timeout(FIRST_LOOK, looking).await.is_err() {
        info!("still looking at repositories");
    }
}

/// SIGHUP, and what it means: reload, or that the terminal on which we were started has gone (termios(3)).
struct Hangup {
    signal: Signal,
    had_terminal: bool,
}

impl Hangup {
    /// Listens from now on. Whether there is a terminal is seen now too: later it may have gone already.
    fn listen() -> std::io::Result<Self> {
        let signal = signal(SignalKind::hangup())?;
        Ok(Self { signal, had_terminal: std::io::stderr().is_terminal() })
    }

    /// Reads the configuration again whenever the signal asks for that. Resolves when the terminal has gone.
    async fn reload_until_no_terminal(mut self, reloader: &Reloader) {
        while self.signal.recv().await.is_some() {
            if self.had_terminal && !std::io::stderr().is_terminal() {
                return;
            }
            // What came of it is told in the log and to systemd.
            drop(reloader.reload().await);
        }
    }
}

fn say_ready(detached: bool) -> anyhow::Result<()> {
    notify(&[NotifyState::Ready]);
    if detached {
        // The client that started us waits for this line; then nobody reads standard output any more.
        let mut stdout = std::io::stdout().lock();
        let told = writeln!(stdout, "{}", wtd_protocol::socket::READY).and_then(|()| stdout.flush());
        if let Err(error) = told {
            // It has lost its patience; the next one finds us.
            debug!(error = &error as &dyn std::error::Error, "nobody waits for the daemon to be ready");
        }
        drop(stdout);
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
    }
    Ok(())
}
