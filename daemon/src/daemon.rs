//! The daemon put together: opened, served, and ended in order.

use std::ffi::OsString;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::Config;
use crate::domain::allocator::Rules;
use crate::engine::{Engine, Environment};
use crate::http::{Context, Listener, Metrics, serve};
use crate::probe::{PortProbe, SystemProbe};
use crate::reconciler::{Reconciler, watched_common_dirs};
use crate::registry::Writer;
use crate::release;
use crate::roots::Roots;
use crate::service::{Parts, Service};
use crate::socket::Socket;
use crate::{listeners, store};

/// How long the start waits for a first look at every repository. Those that take longer are looked at while requests
/// are answered.
const FIRST_LOOK: Duration = Duration::from_millis(400);

/// Runs the daemon until it is told to end. Descriptors that systemd passed have to be taken before any thread starts,
/// so they come from the caller.
pub async fn run(
    config: Config,
    mut passed: ListenFd,
    detached: bool,
    variable: fn(&str) -> Option<OsString>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let passed = Socket::inherited(&mut passed)?;
    let socket_path = passed.as_ref().map_or_else(
        || Socket::place(config.socket.as_deref(), variable, &config.state_dir),
        |passed| passed.path.clone(),
    );
    let mut registry = store::open(&config.state_dir, &store::describe(&socket_path)).await?;
    let registry_path = registry.path().to_owned();
    let history = registry.history();
    let ledger = registry.load().await?;
    let socket = match passed {
        Some(socket) => socket,
        None => Socket::bind(socket_path, config.socket.is_some())?,
    };
    // From here on nothing is relative, and no directory is kept from being unmounted.
    std::env::set_current_dir("/").context("can't leave the working directory")?;
    info!(
        version = wtd_protocol::VERSION,
        registry = %registry_path.display(),
        socket = %socket.path.display(),
        inherited = socket.inherited,
        "started"
    );

    let engine = Engine::new(config.engine.clone(), Environment::read(variable));
    let (writer, writing) = Writer::start(registry, ledger, rules(&config), probe(&config, &engine));
    let reconciler = Reconciler::new(writer.clone());
    let mut tasks = JoinSet::new();
    {
        let reconciler = reconciler.clone();
        tasks.spawn(async move { reconciler.run().await });
    }
    first_look(&writer, &reconciler).await;
    let (end, ending) = watch::channel(false);
    let socket_from = if socket.inherited { "systemd" } else { "self" };
    let socket_path = socket.path.clone();
    let (listener, unlink) = socket.into_parts();
    let service = Service::new(Parts {
        writer: writer.clone(),
        reconciler: reconciler.clone(),
        history,
        engine: engine.clone(),
        registry: registry_path,
        socket: socket_path,
        socket_from,
        started: Instant::now(),
        config: config.clone(),
    });
    let context = Context { service, metrics: Metrics::default(), ending };
    let mut servers = JoinSet::new();
    servers.spawn(serve(Listener::Unix(tokio::net::UnixListener::from_std(listener)?), context.clone()));
    if let Some(address) = config.listen {
        let tcp = tokio::net::TcpListener::bind(address)
            .await
            .with_context(|| format!("can't listen on {address}"))?;
        servers.spawn(serve(Listener::Tcp(tcp), context));
    }
    {
        let (reconciler, resync) = (reconciler.clone(), config.resync);
        tasks.spawn(async move { reconciler.sweep(resync).await });
    }
    {
        let (writer, reconciler) = (writer.clone(), reconciler.clone());
        tasks.spawn(async move { release::run(&writer, &reconciler, &engine).await });
    }
    if !config.roots.is_empty() {
        let roots = Arc::new(Roots::new(&config.roots));
        reconciler.set_roots_listener(Arc::clone(&roots) as _);
        let reconciler = reconciler.clone();
        tasks.spawn(async move { roots.run(&reconciler).await });
    }
    if let Some(interval) = sd_notify::watchdog_enabled() {
        tasks.spawn(watchdog(writer.clone(), interval));
    }
    say_ready(detached)?;

    let failed = tokio::select! {
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        ended = tasks.join_next() => Some(ended),
        ended = servers.join_next() => Some(ended),
    };
    notify(&[NotifyState::Stopping]);
    info!("stopping");
    end.send_replace(true);
    while servers.join_next().await.is_some() {}
    tasks.shutdown().await;
    writer.close().await;
    writing.await.context("the registry's writer panicked")??;
    drop(unlink);
    match failed {
        None => Ok(()),
        Some(ended) => {
            ended.transpose().context("a part of the daemon panicked")?;
            anyhow::bail!("a part of the daemon ended by itself")
        }
    }
}

fn rules(config: &Config) -> Rules {
    Rules {
        step: config.step,
        reserved: config.reserved_ports.ranges().to_vec(),
        avoided: if config.avoid_ephemeral { listeners::ephemeral_range() } else { None },
    }
}

fn probe(config: &Config, engine: &Engine) -> Option<Box<dyn PortProbe + Send>> {
    let engine = engine.clone();
    // Asked only about a port that is taken, from where the writer may block.
    let published_by =
        move |port| tokio::runtime::Handle::current().block_on(engine.published_ports()).remove(&port);
    config.probe.then(|| Box::new(SystemProbe::new(published_by)) as _)
}

/// Looks at every repository, so that the first answers tell what changed while the daemon was down.
async fn first_look(writer: &Writer, reconciler: &Reconciler) {
    let all: JoinSet<_> = watched_common_dirs(&writer.snapshot())
        .into_iter()
        .map(|common_dir| {
            let reconciler = reconciler.clone();
            async move { reconciler.reconcile_now(&common_dir, None).await }
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

/// Tells systemd that we live, as long as a step gets through the writer.
async fn watchdog(writer: Writer, interval: Duration) {
    let mut ticks = tokio::time::interval(interval / 2);
    loop {
        ticks.tick().await;
        if writer.commit(|_, _| Ok((None, ()))).await.is_ok() {
            notify(&[NotifyState::Watchdog]);
        }
    }
}

fn say_ready(detached: bool) -> anyhow::Result<()> {
    notify(&[NotifyState::Ready]);
    if detached {
        // The client that started us waits for this line; then nobody reads standard output any more.
        let mut stdout = std::io::stdout().lock();
        writeln!(stdout, "{}", wtd_protocol::socket::READY)
            .and_then(|()| stdout.flush())
            .context("can't tell that wtd is ready")?;
        drop(stdout);
        let null = std::fs::File::open("/dev/null")?;
        rustix::stdio::dup2_stdout(&null)?;
    }
    Ok(())
}

fn notify(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        warn!(error = &error as &dyn std::error::Error, "systemd not told");
    }
}
