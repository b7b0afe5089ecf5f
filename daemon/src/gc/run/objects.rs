//! One database or schema.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use wtd_protocol::gc::GcItem;

use super::{Outcome, Run, Stop, no_longer_stale};
use crate::databases::{DropError, Dropped};
use crate::domain::gc::EngineId;
use crate::domain::gc::keep::Keep;
use crate::domain::gc::objects::{ObjectItem, plan_objects};
use crate::domain::gc::proof::Proof;
use crate::domain::gc::removal::Removal;
use crate::domain::identity::AllocationId;
use crate::gc::report;

impl Run<'_> {
    /// Drops a database or a schema, if everything still speaks for it. A server that fails ends nothing but this.
    pub(super) async fn drop_object(&self, shown: &mut GcItem) -> Result<(), Stop> {
        let is_shown = |item: &&ObjectItem| item.keep.is_none() && report::object(item).token == shown.token;
        let Some(item) = self.survey.objects.iter().find(is_shown) else { return Ok(()) };
        let (kind, name, allocation) = (item.object.name.kind(), &item.found.name, &item.allocation);
        self.begin(format!("dropping {kind} {name}")).await?;
        let first = self.prove(allocation).await;
        let removal = Arc::new(Removal {
            allocation: allocation.id,
            engine: EngineId::new(&format!("postgresql {}", item.object.server.0)),
            kind,
            name: name.clone(),
            detail: BTreeMap::from([
                ("server".to_owned(), item.object.address.to_string()),
                ("database".to_owned(), item.object.name.database.to_string()),
                ("comment".to_owned(), item.found.comment.clone().unwrap_or_default()),
            ]),
        });
        let token = shown.token.clone();
        let drop = Box::pin(async {
            if let Some(kept) = self.may_drop_object(item, &token, &first).await? {
                return Ok(kept);
            }
            let databases = &self.gc.0.releaser.databases;
            match databases.drop_object(allocation.id, &item.object, name).await {
                Ok(Dropped::Dropped) => Ok(Outcome::Dropped),
                Ok(Dropped::Gone) => Ok(Outcome::Gone),
                Ok(Dropped::Kept(keep)) => Ok(Outcome::Kept(keep.to_string())),
                Err(DropError::Registry(error)) => Err(error.into()),
                Err(error) => Ok(Outcome::Unanswered(error.to_string())),
            }
        });
        self.carry_out(allocation, &removal, shown, drop).await
    }

    /// Looks at everything once more, and makes the plan again; none when the object may be dropped now. The server's word
    /// is asked for again in the very session that drops it.
    async fn may_drop_object(
        &self,
        item: &ObjectItem,
        token: &str,
        first: &HashMap<AllocationId, Proof>,
    ) -> Result<Option<Outcome>, Stop> {
        let id = item.allocation.id;
        let Some(proofs) = self.prove_again(&item.allocation, first).await else {
            return Ok(Some(Outcome::Kept("git could not be asked".to_owned())));
        };
        let snapshot = self.gc.writer().snapshot();
        let Some(now) = snapshot.ledger.allocation(id) else {
            return Ok(no_longer_stale(&snapshot.ledger, id).map(|why| Outcome::Kept(why.to_owned())));
        };
        let answers = HashMap::from([(id, self.gc.0.releaser.databases.ask(now).await)]);
        let question = self.survey.question(&snapshot.ledger, &proofs, self.wish.options);
        let again = plan_objects(&question, &answers);
        let same = |it: &&ObjectItem| it.object.name == item.object.name && it.found.name == item.found.name;
        let Some(now) = again.iter().find(same) else { return Ok(Some(Outcome::Gone)) };
        match &now.keep {
            Some(Keep::Server(why)) => return Ok(Some(Outcome::Unanswered(why.clone()))),
            Some(keep) => return Ok(Some(Outcome::Kept(keep.to_string()))),
            None => {}
        }
        let is_changed = report::object(now).token != token;
        Ok(is_changed.then(|| Outcome::Kept("it has changed since it was listed".to_owned())))
    }
}
