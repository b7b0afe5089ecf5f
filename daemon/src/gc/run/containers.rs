//! The containers of one worktree's Compose project.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;
use wtd_protocol::gc::{GcAction, GcEvent, GcStack};

use super::{Run, Stop};
use crate::domain::gc::belongings::is_container_of;
use crate::domain::gc::plan::Stack;
use crate::domain::gc::removal::Removal;
use crate::engine::{Connection, ContainerId, Removed};
use crate::gc::report;

impl Run<'_> {
    /// Stops and removes the containers of a worktree's own Compose project, their volumes not.
    pub(super) async fn take_down(&self, connection: &Connection, shown: &mut GcStack) -> Result<(), Stop> {
        let is_shown = |stack: &&Stack| report::stack(stack, connection.id()).token == shown.token;
        let Some(stack) = self.survey.plan.stacks.iter().find(is_shown) else { return Ok(()) };
        let allocation = &stack.allocation;
        let proofs = self.prove(allocation).await;
        if proofs.get(&allocation.id) != self.survey.proofs.get(&allocation.id) {
            shown.action = GcAction::Keep;
            "its worktree came back".clone_into(&mut shown.reason);
            return Ok(());
        }
        let now = connection.view().await?;
        for container in &stack.containers {
            let still = now.containers.iter().find(|it| it.id == container.id);
            let Some(id) = ContainerId::new(&container.id) else { continue };
            if still.is_none_or(|it| !is_container_of(allocation, it)) {
                continue;
            }
            self.tell(GcEvent::Begin { what: format!("removing container {}", container.name) }).await?;
            let removal = Arc::new(Removal {
                allocation: allocation.id,
                engine: connection.id().clone(),
                kind: "container",
                name: container.name.clone(),
                detail: BTreeMap::from([("id".to_owned(), container.id.clone())]),
            });
            if !self.intend(allocation, &removal).await? {
                shown.action = GcAction::Keep;
                "its worktree came back".clone_into(&mut shown.reason);
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
}
