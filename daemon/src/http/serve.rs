//! Connections: accepted, bounded, and seen off politely.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;
use tracing::{debug, warn};
use wtd_protocol::{Problem, ProblemType};

use super::guard::{self, Peer};
use super::problem::Answer;
use super::{Context, router};

/// How many connections are served together; more wait in the kernel's queue.
const CONNECTIONS: usize = 512;

/// How long a client may take to send a request's head, and how long a connection may idle: as long as our own client
/// waits for everything, so that those who say nothing keep nobody else waiting for longer.
const HEAD: Duration = Duration::from_secs(2);

/// How long a client may read nothing of what it asked for. One that follows events comes back for the rest.
const READ_NOTHING: Duration = Duration::from_secs(5);

/// How long a request may take; streams go on once they have begun.
const REQUEST: Duration = Duration::from_secs(30);

/// How long requests that are under way have to end when the daemon does.
const DRAIN: Duration = Duration::from_secs(5);

/// Where requests come in.
#[derive(Debug)]
pub enum Listener {
    /// The Unix socket.
    Unix(UnixListener),
    /// The loopback address that was asked for.
    Tcp(TcpListener),
}

trait Connection: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Connection for T {}

impl Listener {
    async fn accept(&self) -> io::Result<(Box<dyn Connection>, Peer)> {
        match self {
            Self::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                let uid = stream.peer_cred().ok().map(|credentials| credentials.uid());
                Ok((Box::new(stream), Peer::Unix { uid }))
            }
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                let local = stream.local_addr()?;
                Ok((Box::new(stream), Peer::Tcp { local }))
            }
        }
    }
}

/// Serves until `context.ending` turns true, then lets what is under way end.
pub async fn serve(listener: Listener, context: Context) {
    let mut ending = context.ending.clone();
    let metrics = context.metrics.clone();
    let router = router(context);
    let own_uid = rustix::process::geteuid().as_raw();
    let permits = Arc::new(Semaphore::new(CONNECTIONS));
    let connections = GracefulShutdown::new();
    let mut is_short = false;
    loop {
        // The end is seen too where all that may be served are: some of them can take as long as a request may.
        let admitted = tokio::select! {
            admitted = admit(&permits, &listener) => admitted,
            _ = ending.wait_for(|ending| *ending) => break,
        };
        let (permit, stream, peer) = match admitted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of descriptors, most likely: others have to be closed first.
                if !std::mem::replace(&mut is_short, true) {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "connection not accepted, will try again"
                    );
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        is_short = false;
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(READ_NOTHING));
        let (router, metrics) = (router.clone(), metrics.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let (router, metrics) = (router.clone(), metrics.clone());
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let response = match guard::refusal(peer, own_uid, &request) {
                    Some(answer) => answer.into_response(),
                    None => respond(router, request.map(Body::new)).await,
                };
                metrics.count(&method, &path, response.status());
                Ok::<_, std::convert::Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_headers(64)
            .serve_connection(TokioIo::new(Box::pin(stream)), service);
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(error = &error as &dyn std::error::Error, "connection ended early");
            }
            drop(permit);
        });
    }
    if tokio::time::timeout(DRAIN, connections.shutdown()).await.is_err() {
        warn!("requests were still under way after {DRAIN:?}");
    }
}

/// The next connection, once there is room for it.
async fn admit(
    permits: &Arc<Semaphore>,
    listener: &Listener,
) -> io::Result<(OwnedSemaphorePermit, Box<dyn Connection>, Peer)> {
    let permit = Arc::clone(permits).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((permit, stream, peer))
}

async fn respond(router: Router, request: Request<Body>) -> Response {
    match tokio::time::timeout(REQUEST, router.oneshot(request)).await {
        Ok(Ok(response)) => response,
        Ok(Err(never)) => match never {},
        Err(_) => {
            let detail = format!("the answer took longer than {REQUEST:?}");
            Answer::from(Problem::new(ProblemType::Timeout, detail, "see the daemon's log")).into_response()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn systemd_waits_until_a_daemon_that_ends_has_cleared_away_and_answered() {
        let unit = include_str!("../../../systemd/wtd.service");
        let seconds = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec=")).unwrap();
        let waits = Duration::from_secs(seconds.parse().unwrap());
        assert!(waits > crate::seed::CLEARING.max(crate::gc::CLEARING) + DRAIN);
    }
}
