//! What the containers that do the work say, and how they end.

use std::time::Duration;

use futures_util::StreamExt as _;
use wtd_protocol::seed::SeedEvent;

use super::{COPYING, Run, Stop};
use crate::engine::{ContainerId, EngineError, Output};
use crate::seed::refused;

/// How long an engine may take to know that a process has ended whose output has.
const ENDING: Duration = Duration::from_secs(10);

/// So much of what a helper prints last is kept, in bytes.
const KEPT: usize = 4 * 1024;

impl Run {
    /// What a helper prints, and how many bytes it says that it has copied.
    pub(super) async fn listen(&self, output: Output) -> Result<(String, u64), Stop> {
        match tokio::time::timeout(COPYING, self.hear(output)).await {
            Ok(heard) => heard,
            Err(_) => {
                let detail =
                    format!("the copying program has not ended within {} h", COPYING.as_secs() / 3600);
                Err(refused(detail, "see what its server waits for, and seed again").into())
            }
        }
    }

    async fn hear(&self, mut output: Output) -> Result<(String, u64), Stop> {
        let (mut said, mut bytes) = (String::new(), 0);
        while let Some(piece) = output.next().await {
            let piece = piece?;
            for line in piece.split(['\r', '\n']) {
                if let Some((copied, total)) = progress(line) {
                    bytes = copied;
                    self.tell(SeedEvent::Copied { bytes, total: Some(total) }).await?;
                }
            }
            said.push_str(&piece);
            if said.len() > KEPT {
                let mut cut = said.len() - KEPT;
                while !said.is_char_boundary(cut) {
                    cut += 1;
                }
                said.drain(..cut);
            }
        }
        Ok((said, bytes))
    }

    /// How a helper ended whose output has.
    pub(super) async fn ended(&self, id: &ContainerId) -> Result<i64, Stop> {
        let code = async {
            loop {
                if let Some(code) = self.connection.exit_code(id).await? {
                    return Ok::<_, EngineError>(code);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        match tokio::time::timeout(ENDING, code).await {
            Ok(code) => Ok(code?),
            Err(_) => Err(refused("the copying program goes on without a word", "seed again").into()),
        }
    }
}

/// The last line that says something.
pub(super) fn last_line(said: &str) -> String {
    let mut lines = said.split(['\r', '\n']).map(str::trim).filter(|line| !line.is_empty());
    lines.next_back().unwrap_or("it says nothing").chars().take(300).collect()
}

/// How far `pg_basebackup --progress` says that it is, in bytes: `30440/30440 kB (100%), 0/1 tablespace`.
fn progress(line: &str) -> Option<(u64, u64)> {
    let (copied, rest) = line.trim().split_once('/')?;
    let (total, _) = rest.split_once(" kB")?;
    Some((
        copied.trim().parse::<u64>().ok()?.saturating_mul(1024),
        total.parse::<u64>().ok()?.saturating_mul(1024),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_as_it_is_printed() {
        assert_eq!(progress("  30440/30441 kB (99%), 0/1 tablespace"), Some((30440 * 1024, 30441 * 1024)));
        assert_eq!(progress(" 0/0 kB (100%), 1/1 tablespace"), Some((0, 0)));
        for other in
            ["", "waiting for checkpoint", "pg_basebackup: error: could not write to file \"a/b kB\""]
        {
            assert_eq!(progress(other), None, "{other}");
        }
    }

    #[test]
    fn the_last_words_are_those_that_are_told() {
        assert_eq!(last_line("a\r\npg_basebackup: error: no\r\n\n"), "pg_basebackup: error: no");
        assert_eq!(last_line(" \n"), "it says nothing");
    }
}
