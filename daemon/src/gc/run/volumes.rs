//! One volume.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;

use wtd_protocol::PathText;
use wtd_protocol::gc::GcItem;

use super::{Outcome, Run, Stop, no_longer_stale};
use crate::domain::gc::plan::{Action, Item, Question, plan};
use crate::domain::gc::proof::Proof;
use crate::domain::gc::removal::Removal;
use crate::domain::gc::{Looks, Volume};
use crate::domain::identity::AllocationId;
use crate::domain::names::VolumeName;
use crate::engine::{Connection, Removed};
use crate::gc::survey::{created, look_again};
use crate::gc::{backup, report};
use crate::registry::writer::now;

impl Run<'_> {
    /// Drops a volume, if everything still speaks for it.
    pub(super) async fn drop_volume(&self, connection: &Connection, shown: &mut GcItem) -> Result<(), Stop> {
        let found = self.survey.plan.items.iter().find_map(|item| match &item.action {
            Action::Drop(name) if report::token_of_volume(item, &self.survey.engine) == shown.token => {
                Some((item, name))
            }
            _ => None,
        });
        let Some((item, name)) = found else { return Ok(()) };
        self.begin(format!("dropping volume {name}")).await?;
        let removal = Arc::new(Removal {
            allocation: item.allocation.id,
            engine: connection.id().clone(),
            kind: "volume",
            name: name.to_string(),
            detail: detail(&item.volume),
        });
        let first = self.prove(&item.allocation).await;
        let mut file = None;
        let drop = Box::pin(self.drop_if_still_stale(connection, item, name, &first, &mut file));
        let ended = self.carry_out(&item.allocation, &removal, shown, drop).await;
        shown.backup = file.map(|file| PathText::of(&file).text);
        ended
    }

    async fn drop_if_still_stale(
        &self,
        connection: &Connection,
        item: &Item,
        name: &VolumeName,
        first: &HashMap<AllocationId, Proof>,
        file: &mut Option<PathBuf>,
    ) -> Result<Outcome, Stop> {
        if let Some(outcome) = self.may_drop(connection, item, name, first).await? {
            return Ok(outcome);
        }
        if let Some(directory) = &self.wish.backup {
            self.begin(format!("writing volume {name} to {}", directory.display())).await?;
            let source =
                backup::Source { connection, allocation: &item.allocation, volume: &item.volume, name };
            let written = backup::write(self.gc, &source, directory, &self.events).await;
            *file = Some(written.map_err(|error| Stop::Failed(error.problem()))?);
            self.begin(format!("dropping volume {name}")).await?;
            // That took its time.
            if let Some(outcome) = self.may_drop(connection, item, name, first).await? {
                return Ok(outcome);
            }
        }
        Ok(match connection.remove_volume(name).await? {
            Removed::Before => Outcome::Gone,
            Removed::InUse(why) => Outcome::Kept(why),
            Removed::Now => match connection.volume(name).await {
                Ok(Some(_)) => Outcome::MadeAnew,
                // It is dropped, whether or not the engine goes on to answer.
                Ok(None) | Err(_) => Outcome::Dropped,
            },
        })
    }

    /// Looks at everything once more, and makes the plan again; none when the volume may be dropped now.
    async fn may_drop(
        &self,
        connection: &Connection,
        item: &Item,
        name: &VolumeName,
        first: &HashMap<AllocationId, Proof>,
    ) -> Result<Option<Outcome>, Stop> {
        let id = item.allocation.id;
        let Some(proofs) = self.prove_again(&item.allocation, first).await else {
            return Ok(Some(Outcome::Kept("git could not be asked".to_owned())));
        };
        let Some(engine) = look_again(connection, name).await? else { return Ok(Some(Outcome::Gone)) };
        let snapshot = self.gc.writer().snapshot();
        let of_it: Looks = self.survey.looks.get(&id).map(|looks| (id, looks.clone())).into_iter().collect();
        let again = plan(&Question {
            ledger: &snapshot.ledger,
            proofs: &proofs,
            looks: &of_it,
            engine: &engine,
            created: &created(&engine),
            now: now(),
            options: self.wish.options,
        });
        let Some(now) = again.items.into_iter().find(|it| it.allocation.id == id) else {
            let why = no_longer_stale(&snapshot.ledger, id).unwrap_or("it is not the worktree's any more");
            return Ok(Some(Outcome::Kept(why.to_owned())));
        };
        if let Action::Keep(keep) = &now.action {
            return Ok(Some(Outcome::Kept(keep.to_string())));
        }
        // Its containers were to be removed before it; one that uses it now was not shown.
        if let Some(user) = engine.containers.first() {
            return Ok(Some(Outcome::Kept(format!("container {} ({}) uses it", user.name, user.state))));
        }
        let same = report::is_same(&item.volume, &self.survey.engine, &now.volume);
        Ok((!same).then(|| Outcome::Kept("it has changed since it was listed".to_owned())))
    }
}

/// What a volume was, for the record.
fn detail(volume: &Volume) -> BTreeMap<String, String> {
    let mut detail = volume.labels.clone();
    detail.insert("CreatedAt".to_owned(), volume.created.clone());
    detail
}
