//! Hearing of what goes from an engine.

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::{FutureExt as _, Stream, StreamExt as _};

use super::{Connection, Engine, EngineError};

/// How long is waited after one event for those that come with it.
const SETTLE: Duration = Duration::from_millis(50);

/// What goes is `destroy` to Docker and `remove` to Podman.
const GONE: [&str; 2] = ["destroy", "remove"];

/// Tells when a volume or a container has gone. Costs a connection, and no wake-up while nothing goes.
pub struct News {
    /// The engine's address, as the configuration had it.
    address: String,
    events: Pin<Box<dyn Stream<Item = Result<(), EngineError>> + Send>>,
}

impl std::fmt::Debug for News {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("News").field("address", &self.address).finish_non_exhaustive()
    }
}

impl News {
    /// News of the engine from now on, whenever that is first asked for, and the connection to it; none where there is no
    /// engine.
    pub async fn of(engine: &Engine) -> Result<Option<(Self, Connection)>, EngineError> {
        let address = engine.to_string();
        let connection = if engine.is_configured_away() { None } else { engine.open().await? };
        Ok(connection.map(|connection| (Self { address, events: connection.clone().removals() }, connection)))
    }

    /// Whether the engine is still looked for where these come from.
    pub fn are_of(&self, engine: &Engine) -> bool {
        self.address == engine.to_string()
    }

    /// Waits until something has gone; false when nothing more is heard.
    pub async fn next(&mut self) -> bool {
        if !matches!(self.events.next().await, Some(Ok(()))) {
            return false;
        }
        // A whole stack goes at once.
        tokio::time::sleep(SETTLE).await;
        while let Some(Some(Ok(()))) = self.events.next().now_or_never() {}
        true
    }
}

impl Connection {
    /// An item for each volume or container that has gone since this connection was made.
    fn removals(self) -> Pin<Box<dyn Stream<Item = Result<(), EngineError>> + Send>> {
        let filters = HashMap::from([("type", vec!["volume", "container"]), ("event", GONE.to_vec())]);
        let options = EventsOptionsBuilder::default().filters(&filters);
        let options = match self.made {
            Some(made) => options.since(&format!("{}.{:09}", made.as_second(), made.subsec_nanosecond())),
            None => options,
        };
        let events = self.docker.events(Some(options.build()));
        Box::pin(
            events.map(move |event| event.map(drop).map_err(|source| EngineError::of(&self.host, source))),
        )
    }
}
