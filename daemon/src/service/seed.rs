//! Copies of another worktree's volumes, for a person who asks.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::mpsc;
use wtd_protocol::seed::{SeedEvent, SeedRequest};
use wtd_protocol::{Problem, ProblemType};

use super::Service;
use crate::domain::allocation::Allocation;
use crate::seed::Wish;

impl Service {
    /// Begins to fill the volumes of the worktree that holds `path` with copies of those of the one that holds `from`, else
    /// of the main worktree.
    pub async fn seed(
        &self,
        path: PathBuf,
        from: Option<PathBuf>,
        request: &SeedRequest,
    ) -> Result<mpsc::Receiver<SeedEvent>, Problem> {
        let target = self.known(&path).await?;
        let source = match from {
            Some(from) => self.known(&from).await?,
            None => self.main_of(&target)?,
        };
        let seeds = &self.0.seeds;
        let engine = self.0.engine.of_person(&request.engine);
        let may_pause = !request.no_pause;
        seeds.begin(Wish { source, target, engine, all: request.all, may_pause, waits: false }).await
    }

    fn main_of(&self, target: &Allocation) -> Result<Arc<Allocation>, Problem> {
        let snapshot = self.0.writer.snapshot();
        snapshot.ledger.main_of(target.repository).cloned().ok_or_else(|| {
            Problem::new(
                ProblemType::SeedRefused,
                "the repository has no main worktree",
                "name the worktree to copy with --from",
            )
        })
    }
}
