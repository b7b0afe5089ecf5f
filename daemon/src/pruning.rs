//! Keeps the registry's past within bounds: a registry is checked whole at every start, and that takes the longer the
//! more there is in it.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::domain::draft::Record;
use crate::registry::{Decision, WriteError, Writer};
use crate::store::History;

/// How many changes are kept, the latest: what a year of 60 new worktrees a day leaves, each with four or five changes from
/// its allocation to its release. They take about 70 MB, which is checked in less than a tenth of a second.
const KEPT: u32 = 100_000;

/// How many changes go in one transaction: it takes about 60 ms, for which whoever asks for an allocation waits.
const STEP: u32 = 1_000;

/// Lets go of what is older than [`KEPT`] changes, at every resync. Until the future is dropped.
pub async fn run(writer: &Writer, history: &History, mut resyncs: watch::Receiver<Duration>) {
    loop {
        let resync = *resyncs.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep(resync) => {
                if let Err(why) = prune(writer, history).await {
                    warn!(why, "the registry's past is not pruned");
                }
            }
            Ok(()) = resyncs.changed() => {}
        }
    }
}

/// Step by step, so that others have the writer in between.
async fn prune(writer: &Writer, history: &History) -> Result<(), String> {
    let mut steps = 0_u32;
    while history.exceeds(KEPT).await.map_err(|error| error.to_string())? {
        let step = writer.commit(|ledger, _| {
            let records = vec![Record::Pruned { kept: KEPT, at_most: STEP }];
            Ok((Some(Decision { ledger: ledger.clone(), records, seen: None }), ()))
        });
        match step.await {
            Ok(()) => steps += 1,
            Err(WriteError::ShuttingDown) => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    match steps {
        0 => debug!("the registry's past is within bounds"),
        steps => info!(steps, "the registry's past is pruned"),
    }
    Ok(())
}
