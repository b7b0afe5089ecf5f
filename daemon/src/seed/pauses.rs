//! Which containers an engine may halt yet. It carries out what it was asked for though nobody waits for its answer any
//! more, or has lived to hear it: so a copy has not ended before its pauses have, one way or the other.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::engine::{ContainerId, EngineError};

/// How long a container is looked at again whose pause was asked for, if nobody knows what became of that.
const SETTLING: Duration = Duration::from_mins(10);

/// What is known of one pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pause {
    /// The engine was asked for it, and its answer is waited for.
    Asked,
    /// The engine does nothing more of it.
    Settled,
    /// Its answer is lost, as was noticed then.
    Unknown(Instant),
}

impl Pause {
    /// Whether the engine may still halt the container, at this time.
    fn is_open(self, now: Instant) -> bool {
        match self {
            Self::Asked => true,
            Self::Unknown(since) => now.saturating_duration_since(since) < SETTLING,
            Self::Settled => false,
        }
    }
}

/// What became of the volume of a copy that did not live to end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Cleared {
    /// Nothing of it is left.
    Away,
    /// It is left as it is, and why.
    Left(String),
}

/// What is known of a copy.
#[derive(Debug, Default)]
struct Known {
    /// By container. One that is not in here was not to be paused yet.
    pauses: HashMap<String, Pause>,
    /// Whether the copy began in this process. If not, any pause that the registry has of it may have been asked for.
    is_own: bool,
    /// What became of its volume.
    cleared: Option<Cleared>,
}

/// What is known of the copies that have not ended, by their ids.
#[derive(Debug, Default)]
pub(super) struct Pauses(Mutex<HashMap<String, Known>>);

impl Pauses {
    /// A copy begins, and nothing is paused for it yet.
    pub(super) fn begin(&self, copy: &str) {
        self.0.lock().insert(copy.to_owned(), Known { is_own: true, ..Known::default() });
    }

    /// A container is about to be paused for it.
    pub(super) fn ask(&self, copy: &str, container: &ContainerId) {
        self.put(copy, container, Pause::Asked);
    }

    /// What the engine said of that.
    pub(super) fn answer(&self, copy: &str, container: &ContainerId, answer: &Result<(), EngineError>) {
        match answer {
            // It is as it was, and as somebody else may want it.
            Err(error) if error.is_refusal() => {
                if let Some(known) = self.0.lock().get_mut(copy) {
                    known.pauses.remove(container.as_str());
                }
            }
            Err(error) if !error.is_answer() => {
                self.put(copy, container, Pause::Unknown(Instant::now()));
            }
            Ok(()) | Err(_) => self.put(copy, container, Pause::Settled),
        }
    }

    fn put(&self, copy: &str, container: &ContainerId, pause: Pause) {
        if let Some(known) = self.0.lock().get_mut(copy) {
            known.pauses.insert(container.as_str().to_owned(), pause);
        }
    }

    /// Whether a container may be paused for this copy, now or later.
    pub(super) fn concerns(&self, copy: &str, container: &ContainerId) -> bool {
        let mut all = self.0.lock();
        let known = all.entry(copy.to_owned()).or_default();
        if !known.is_own {
            let pause = || Pause::Unknown(Instant::now());
            known.pauses.entry(container.as_str().to_owned()).or_insert_with(pause);
        }
        known.pauses.contains_key(container.as_str())
    }

    /// A container was halted, and goes on. An answer that is still to come says more.
    pub(super) fn resumed(&self, copy: &str, container: &ContainerId) {
        let mut all = self.0.lock();
        let pause = all.get_mut(copy).and_then(|known| known.pauses.get_mut(container.as_str()));
        if let Some(pause @ Pause::Unknown(_)) = pause {
            *pause = Pause::Settled;
        }
    }

    /// Whether a container that is not halted now may be yet.
    pub(super) fn is_open(&self, copy: &str, container: &ContainerId) -> bool {
        let all = self.0.lock();
        let pause = all.get(copy).and_then(|known| known.pauses.get(container.as_str()));
        pause.is_some_and(|pause| pause.is_open(Instant::now()))
    }

    /// What became of the copy's volume; none as long as that is not decided.
    pub(super) fn cleared(&self, copy: &str) -> Option<Cleared> {
        self.0.lock().get(copy).and_then(|known| known.cleared.clone())
    }

    /// This became of the copy's volume.
    pub(super) fn clear(&self, copy: &str, cleared: Cleared) {
        self.0.lock().entry(copy.to_owned()).or_default().cleared = Some(cleared);
    }

    /// The copy has ended.
    pub(super) fn end(&self, copy: &str) {
        self.0.lock().remove(copy);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::Host;

    fn container() -> ContainerId {
        ContainerId::new("0123456789ab").unwrap()
    }

    fn lost() -> Result<(), EngineError> {
        Err(EngineError::TimedOut(Host::new("unix:///nowhere").unwrap()))
    }

    #[test]
    fn nothing_is_resumed_that_was_not_asked_to_pause() {
        let pauses = Pauses::default();
        pauses.begin("copy");
        assert!(!pauses.concerns("copy", &container()));
        pauses.ask("copy", &container());
        assert!(pauses.concerns("copy", &container()));
    }

    #[test]
    fn a_pause_is_open_until_it_is_answered_or_seen() {
        let pauses = Pauses::default();
        pauses.begin("copy");
        pauses.ask("copy", &container());
        pauses.resumed("copy", &container());
        assert!(pauses.is_open("copy", &container()), "the engine has not answered");
        pauses.answer("copy", &container(), &Ok(()));
        assert!(!pauses.is_open("copy", &container()));

        pauses.answer("copy", &container(), &lost());
        assert!(pauses.is_open("copy", &container()));
        pauses.resumed("copy", &container());
        assert!(!pauses.is_open("copy", &container()), "it was halted, by nothing else");
    }

    #[test]
    fn whatever_a_dead_process_may_have_asked_for_is_open() {
        let pauses = Pauses::default();
        assert!(pauses.concerns("copy", &container()));
        assert!(pauses.is_open("copy", &container()));
        let first = pauses.0.lock()["copy"].pauses[container().as_str()];
        assert!(pauses.concerns("copy", &container()));
        assert_eq!(pauses.0.lock()["copy"].pauses[container().as_str()], first, "no second look begins anew");
    }

    #[test]
    fn an_answer_that_is_lost_for_long_is_not_awaited_for_ever() {
        let since = Instant::now();
        assert!(Pause::Unknown(since).is_open(since));
        assert!(!Pause::Unknown(since).is_open(since + SETTLING));
        assert!(Pause::Asked.is_open(since + SETTLING), "that answer is on its way");
    }
}
