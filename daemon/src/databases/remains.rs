//! What is left on servers of worktrees that are gone, and its end.

use tokio::time::Instant;
use tracing::debug;
use wtd_protocol::State;

use super::{ASKED, DatabaseError, Databases, Dropped, PlaceError};
use crate::domain::allocation::Allocation;
use crate::domain::database_objects::{DatabaseObject, FoundObject, Stage};
use crate::domain::identity::AllocationId;
use crate::domain::ledger::Ledger;
use crate::registry::WriteError;

/// Why something could not be dropped.
#[derive(Debug, thiserror::Error)]
pub enum DropError {
    /// The server failed, or can't be asked.
    #[error("{0}")]
    Server(#[from] DatabaseError),
    /// The registry could not be written.
    #[error("{0}")]
    Registry(#[from] WriteError),
    /// The worktree is not proven removed any more.
    #[error("its worktree is back")]
    Returned,
}

impl Databases {
    /// Whether servers say that nothing is left of a stale allocation. One that was just asked is not asked again.
    /// `on_word`: a person says that servers which can't be asked are gone for good.
    pub async fn has_nothing_of(&self, allocation: &Allocation, on_word: bool) -> bool {
        if on_word {
            let mut is_left = false;
            for object in &allocation.objects {
                let found = self.find(allocation.id, object).await;
                is_left |= found.is_ok_and(|found| !found.is_empty());
            }
            return !is_left;
        }
        if allocation.objects.is_empty() {
            return true;
        }
        let now = Instant::now();
        {
            let mut asked = self.0.asked.lock();
            asked.retain(|_, at| *at + ASKED > now);
            if asked.contains_key(&allocation.id) {
                return false;
            }
            asked.insert(allocation.id, now);
        }
        match self.left_of(allocation).await {
            Ok(left) => left.is_none(),
            Err(error) => {
                debug!(error = &error as &dyn std::error::Error, "stale allocation waits for its server");
                false
            }
        }
    }

    /// What is left of an allocation on servers, in words; an error where one can't say. What somebody else has under its
    /// name counts, since the worktree was told that name.
    pub async fn left_of(&self, allocation: &Allocation) -> Result<Option<String>, DatabaseError> {
        self.left_of_objects(allocation, |_| true).await
    }

    /// As [`Databases::left_of`], less what somebody else has.
    pub async fn own_left_of(&self, allocation: &Allocation) -> Result<Option<String>, DatabaseError> {
        self.left_of_objects(allocation, |object| object.stage != Stage::Foreign).await
    }

    async fn left_of_objects(
        &self,
        allocation: &Allocation,
        counts: impl Fn(&DatabaseObject) -> bool,
    ) -> Result<Option<String>, DatabaseError> {
        for object in allocation.objects.iter().filter(|object| counts(object)) {
            if let Some(found) = self.find(allocation.id, object).await?.first() {
                let kind = object.name.kind();
                return Ok(Some(format!("the {kind} {} on PostgreSQL at {}", found.name, object.address)));
            }
        }
        Ok(None)
    }

    /// What a server has under the names that are recorded for an object.
    pub async fn find(
        &self,
        id: AllocationId,
        object: &DatabaseObject,
    ) -> Result<Vec<FoundObject>, DatabaseError> {
        let Ok(_question) = self.0.questions.acquire().await else {
            return Err(PlaceError::ShuttingDown.into());
        };
        let Some(mut server) = self.server_of(id, object).await? else { return Ok(Vec::new()) };
        let found = server.find(id, object).await;
        server.close().await;
        found
    }

    /// What servers say of each of an allocation's objects. That nothing is left of one is recorded, where the allocation
    /// is stale.
    pub async fn ask(
        &self,
        allocation: &Allocation,
    ) -> Vec<(DatabaseObject, Result<Vec<FoundObject>, String>)> {
        let mut answers = Vec::new();
        for object in &allocation.objects {
            let reservation = self.reserve(allocation.id);
            let found = self.find(allocation.id, object).await;
            let is_gone = found.as_ref().is_ok_and(Vec::is_empty) && reservation.is_some();
            if is_gone && self.record_gone(allocation.id, object.clone()).await.is_ok() {
                continue;
            }
            answers.push((object.clone(), found.map_err(|error| error.to_string())));
        }
        answers
    }

    /// Drops what a server has under `name`, if the object's allocation is stale and it may be dropped. Once nothing is
    /// left under the object's names, that is recorded.
    pub async fn drop_object(
        &self,
        id: AllocationId,
        object: &DatabaseObject,
        name: &str,
    ) -> Result<Dropped, DropError> {
        let Some(_reservation) = self.reserve_soon(id).await else {
            return Err(DatabaseError::BeingMade { address: object.address.clone() }.into());
        };
        // From here on nothing is made for it.
        let snapshot = self.0.writer.snapshot();
        let is_stale = snapshot.ledger.allocation(id).is_some_and(|known| known.state == State::Stale);
        if !is_stale {
            return Err(DropError::Returned);
        }
        let Some(mut server) = self.server_of(id, object).await? else {
            self.record_gone(id, object.clone()).await?;
            return Ok(Dropped::Gone);
        };
        let dropped = server.drop_object(id, object, name).await;
        let left = match &dropped {
            Ok(Dropped::Dropped | Dropped::Gone) => server.find(id, object).await.ok(),
            _ => None,
        };
        server.close().await;
        if left.is_some_and(|left| left.is_empty()) {
            self.record_gone(id, object.clone()).await?;
        }
        Ok(dropped?)
    }

    /// Records that nothing is there any more under an object's names.
    async fn record_gone(&self, id: AllocationId, object: DatabaseObject) -> Result<(), WriteError> {
        let decide = move |ledger: &Ledger| {
            let Some(known) = ledger.allocation(id).filter(|known| known.state == State::Stale) else {
                return (None, ());
            };
            let mut after = (**known).clone();
            after.objects.retain(|other| *other != object);
            (Some(after), ())
        };
        self.change(decide).await
    }
}
