//! The registry as its events tell of it, over every restart: what the daemon noticed by itself, since nothing here asks
//! it to look.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::harness::{Daemon, Events};

/// An allocation as the last event about it has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Row {
    pub(super) path: PathBuf,
    pub(super) offset: u64,
    pub(super) state: String,
}

impl Row {
    pub(super) fn is_live(&self) -> bool {
        self.state == "active" || self.state == "missing"
    }
}

/// What events have told.
#[derive(Default)]
pub(super) struct Mirror {
    events: Option<Events>,
    last: i64,
    pub(super) rows: BTreeMap<String, Row>,
    /// Allocations that were stale at any time.
    pub(super) ever_stale: BTreeSet<String>,
}

impl Mirror {
    /// Goes on where the last daemon ended.
    pub(super) fn follow(&mut self, daemon: &Daemon<'_>) {
        self.events = Some(daemon.events(Some(self.last)));
    }

    /// The daemon is about to end.
    pub(super) fn lose_sight(&mut self) {
        self.events = None;
    }

    /// Takes in the next event; false when none comes until `end`.
    pub(super) fn wait(&mut self, end: Instant) -> bool {
        let Some(event) = self.events.as_mut().and_then(|events| events.next_until(end)) else {
            return false;
        };
        assert!(event.id > self.last, "event {} after event {}", event.id, self.last);
        self.last = event.id;
        let allocation = &event.data["allocation"];
        let text = |name: &str| allocation[name].as_str();
        let path = text("path").and_then(|path| wtd_protocol::PathText::path(path, text("path_base64")).ok());
        let (Some(id), Some(path), Some(offset), Some(state)) =
            (text("id"), path, allocation["offset"].as_u64(), text("state"))
        else {
            panic!("no allocation: {event:?}")
        };
        if state == "stale" {
            self.ever_stale.insert(id.to_owned());
        }
        self.rows.insert(id.to_owned(), Row { path, offset, state: state.to_owned() });
        true
    }

    /// Takes in what there is.
    pub(super) fn catch_up(&mut self) {
        while self.wait(Instant::now() + Duration::from_millis(1)) {}
    }
}
