//! `[database] seed = "main"`: a new worktree begins with a copy of the main worktree's database. Only by a trusted
//! configuration, and without a pause of anything, since nobody may be watching.

use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};
use wtd_protocol::ChangeKind;
use wtd_protocol::seed::SeedEvent;

use super::{Seeds, Wish};
use crate::domain::identity::AllocationId;
use crate::project_file;

impl Seeds {
    /// Looks after allocations as they are made.
    pub(super) async fn follow(&self) {
        let mut changes = self.0.writer.subscribe();
        loop {
            match changes.recv().await {
                Ok(change) if change.kind == ChangeKind::Allocated && !change.allocation.main => {
                    if let Ok(id) = change.allocation.id.parse() {
                        let this = self.clone();
                        tokio::spawn(async move { this.fill(AllocationId(id)).await });
                    }
                }
                Ok(_) => {}
                Err(RecvError::Lagged(missed)) => warn!(missed, "new worktrees may not have been seeded"),
                Err(RecvError::Closed) => return std::future::pending().await,
            }
        }
    }

    /// Seeds a new worktree, if its configuration asks for that and is trusted.
    async fn fill(&self, id: AllocationId) {
        let Some(wish) = self.wish(id).await else { return };
        let worktree = wish.target.path.display().to_string();
        let mut events = match self.begin(wish).await {
            Ok(events) => events,
            Err(problem) => return warn!(worktree, why = problem.detail, "worktree not seeded"),
        };
        while let Some(event) = events.recv().await {
            if let SeedEvent::Report(report) = event {
                match report.failure {
                    Some(problem) => warn!(worktree, why = problem.detail, "worktree not seeded"),
                    None => {
                        info!(
                            worktree,
                            from = report.from,
                            volumes = report.volumes.len(),
                            "worktree seeded"
                        );
                    }
                }
            }
        }
    }

    async fn wish(&self, id: AllocationId) -> Option<Wish> {
        let snapshot = self.0.writer.snapshot();
        let target = snapshot.ledger.allocation(id)?.clone();
        let repository = snapshot.ledger.repository(target.repository)?.clone();
        let (root, main_root, common_dir) =
            (target.path.clone(), repository.main_root.clone(), repository.common_dir.clone());
        let load = move || project_file::load(&root, main_root.as_deref(), &common_dir);
        let project = tokio::task::spawn_blocking(load).await.ok()?;
        if !project.seeds_from_main || !snapshot.ledger.trusted.allows(repository.id, &project) {
            return None;
        }
        let source = snapshot.ledger.main_of(repository.id)?.clone();
        let engine = self.0.engine.clone();
        Some(Wish { source, target, engine, all: false, may_pause: false, waits: true })
    }
}
