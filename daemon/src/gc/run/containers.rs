//! The containers of one worktree's Compose project.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;
use wtd_protocol::gc::{GcAction, GcStack};

use super::{Run, Stop, no_longer_stale};
use crate::domain::allocation::Allocation;
use crate::domain::gc::belongings::is_container_of;
use crate::domain::gc::plan::{Stack, refusal};
use crate::domain::gc::removal::Removal;
use crate::engine::{Connection, ContainerId, Removed};
use crate::gc::report;

impl Run<'_> {
    /// Stops and removes the containers of a worktree's own Compose project, their volumes not.
    pub(super) async fn take_down(&self, connection: &Connection, shown: &mut GcStack) -> Result<(), Stop> {
        let is_shown = |stack: &&Stack| report::stack(stack, connection.id()).token == shown.token;
        let Some(stack) = self.survey.plan.stacks.iter().find(is_shown) else { return Ok(()) };
        let allocation = &stack.allocation;
        if let Some(why) = self.speaks_against(allocation).await {
            (shown.action, shown.reason) = (GcAction::Keep, why);
            return Ok(());
        }
        let now = connection.view().await?;
        for container in &stack.containers {
            let still = now.containers.iter().find(|it| it.id == container.id);
            let Some(id) = ContainerId::new(&container.id) else { continue };
            if still.is_none_or(|it| !is_container_of(allocation, it)) {
                continue;
            }
            self.begin(format!("removing container {}", container.name)).await?;
            let removal = Arc::new(Removal {
                allocation: allocation.id,
                engine: connection.id().clone(),
                kind: "container",
                name: container.name.clone(),
                detail: BTreeMap::from([("id".to_owned(), container.id.clone())]),
            });
            if let Some(why) = self.intend(allocation, &removal).await? {
                (shown.action, shown.reason) = (GcAction::Keep, why.to_owned());
                return Ok(());
            }
            let removed = connection.remove_container(&id).await;
            let outcome = match &removed {
                Ok(Removed::Now) => "removed".to_owned(),
                Ok(Removed::Before) => "it was gone already".to_owned(),
                Ok(Removed::InUse(why)) => format!("kept: {why}"),
                Err(error) => format!("failed: {error}"),
            };
            info!(container = %container.name, worktree = %allocation.path.display(), outcome, "gc");
            self.record(&removal, outcome).await?;
            if let Removed::InUse(why) = removed? {
                shown.action = GcAction::Keep;
                shown.reason = format!("container {} stays: {why}", container.name);
                return Ok(());
            }
        }
        shown.done = true;
        Ok(())
    }

    /// Why a worktree's containers stay after all, by a fresh look at git; none when they may go.
    async fn speaks_against(&self, allocation: &Arc<Allocation>) -> Option<String> {
        let id = allocation.id;
        let proofs = self.prove(allocation).await;
        let snapshot = self.gc.writer().snapshot();
        if let Some(why) = no_longer_stale(&snapshot.ledger, id) {
            return Some(why.to_owned());
        }
        let now = snapshot.ledger.allocation(id)?;
        let question = self.survey.question(&snapshot.ledger, &proofs, self.wish.options);
        if let Some(keep) = refusal(now, &question) {
            return Some(keep.to_string());
        }
        let is_as_shown = proofs.get(&id) == self.survey.proofs.get(&id);
        (!is_as_shown).then(|| "git says something else of its worktree than when it was listed".to_owned())
    }
}
