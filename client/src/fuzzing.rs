//! One function for each parser of foreign bytes, which fails where an answer is none that such a parser may give.
//! `tests/fuzz` calls them with what it makes up; `cargo test` with what is in its corpora.

#![expect(clippy::missing_panics_doc, reason = "each of them is an assertion about a parser")]

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use wtd_protocol::variable::may_be_set;

use crate::compose::model::Model;
use crate::deadline::Deadline;
use crate::events;
use crate::hook::State;
use crate::init::text::{Source, wtd_toml};
use crate::init::{Declared, Found};
use crate::transport::{Exchange, Request};

/// What is called with input.
#[cfg(test)]
type Parser = fn(&[u8]);

/// The parsers, by the names of their corpora.
#[cfg(test)]
const PARSERS: [(&str, Parser); 4] =
    [("answer", answer), ("compose_model", compose_model), ("events", events), ("hook_state", hook_state)];

/// What a server answers.
pub fn answer(bytes: &[u8]) {
    let Ok((ours, mut theirs)) = UnixStream::pair() else { return };
    let deadline = Deadline::after(Duration::from_secs(10));
    let Ok(mut exchange) = Exchange::send(OwnedFd::from(ours), &Request::get("/"), deadline) else { return };
    // More than a socket holds would wait for a reader.
    let sent = theirs.write_all(bytes.get(..65536).unwrap_or(bytes));
    if sent.and_then(|()| theirs.shutdown(Shutdown::Write)).is_err() {
        return;
    }
    if exchange.status().is_ok()
        && let Ok(body) = exchange.body()
    {
        assert!(body.len() <= bytes.len(), "a body of {} bytes", body.len());
    }
}

/// A stream of events, in one piece and byte by byte.
pub fn events(bytes: &[u8]) {
    let mut whole = events::Parser::default();
    let mut cut = events::Parser::default();
    let pieces: Result<Vec<_>, _> = bytes.iter().map(|byte| cut.take(std::slice::from_ref(byte))).collect();
    match (whole.take(bytes), pieces) {
        (Ok(once), Ok(pieces)) => assert_eq!(once, pieces.concat()),
        (once, pieces) => assert_eq!(once.is_err(), pieces.is_err()),
    }
}

/// What `docker compose config` prints.
pub fn compose_model(bytes: &[u8]) {
    drop(Model::parse(bytes));
    if let Ok(found) = Found::parse(bytes) {
        let text = wtd_toml(&Declared::of(&found, "shop"), "shop", &Source::Files("compose.yaml"));
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
}

/// What the hook finds in its variable.
pub fn hook_state(bytes: &[u8]) {
    if let Some(state) = State::parse(OsStr::from_bytes(bytes)) {
        assert!(state.memories.keys().all(|name| may_be_set(name)), "{state:?}");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::PARSERS;

    #[test]
    fn every_parser_takes_what_is_in_its_corpus() {
        let corpora = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, parser) in PARSERS {
            let files: Vec<_> = fs::read_dir(corpora.join(name)).unwrap().collect();
            assert!(!files.is_empty(), "nothing in the corpus of {name}");
            for file in files {
                parser(&fs::read(file.unwrap().path()).unwrap());
            }
        }
    }
}
