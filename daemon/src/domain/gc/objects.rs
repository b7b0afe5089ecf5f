//! The plan for databases and schemas on servers that worktrees share.

use std::collections::HashMap;
use std::sync::Arc;

use super::keep::Keep;
use super::plan::{Question, refusal};
use crate::domain::allocation::Allocation;
use crate::domain::database_objects::{DatabaseObject, FoundObject, keep};
use crate::domain::identity::AllocationId;

/// What servers say of the objects of allocations: what is there under an object's names, or why nobody can say.
pub type Answers = HashMap<AllocationId, Vec<(DatabaseObject, Result<Vec<FoundObject>, String>)>>;

/// Something that a server has under a name of an allocation's, and what becomes of it.
#[derive(Debug, Clone)]
pub struct ObjectItem {
    /// The allocation that is gone.
    pub allocation: Arc<Allocation>,
    /// The object that the registry has.
    pub object: DatabaseObject,
    /// What is there; where the server can't be asked, no more than the name that it would have.
    pub found: FoundObject,
    /// Why it stays; none when it is dropped.
    pub keep: Option<Keep>,
}

/// Decides what becomes of the databases and schemas of each allocation that is gone.
pub fn plan_objects(question: &Question<'_>, answers: &Answers) -> Vec<ObjectItem> {
    let mut items = Vec::new();
    for allocation in question.ledger.allocations().filter(|allocation| answers.contains_key(&allocation.id))
    {
        let refusal = refusal(allocation, question);
        for (object, answer) in answers.get(&allocation.id).into_iter().flatten() {
            let found = match answer {
                Ok(found) => found.clone(),
                Err(_) => {
                    vec![FoundObject { name: object.name.name().to_owned(), ..FoundObject::default() }]
                }
            };
            for found in found {
                let keep = refusal
                    .clone()
                    .or_else(|| answer.as_ref().err().map(|why| Keep::Server(why.clone())))
                    .or_else(|| claim(question, allocation, object))
                    .or_else(|| keep(allocation.id, object, &found).map(Keep::Object))
                    .or_else(|| question.options.backup.then_some(Keep::NoBackup("pg_dump")));
                let (allocation, object) = (Arc::clone(allocation), object.clone());
                items.push(ObjectItem { allocation, object, found, keep });
            }
        }
    }
    items
}

/// Whether a live allocation is told the same name. Names end in offsets, so none should be.
fn claim(question: &Question<'_>, allocation: &Allocation, object: &DatabaseObject) -> Option<Keep> {
    let others = question.ledger.allocations().filter(|other| other.is_live() && other.id != allocation.id);
    let claims = |other: &&Arc<Allocation>| {
        other.wanted_object().as_ref() == Some(&object.name)
            || other.objects.iter().any(|theirs| theirs.name == object.name && theirs.server == object.server)
    };
    others.filter(claims).map(|other| Keep::Live(other.path.display().to_string())).next()
}
