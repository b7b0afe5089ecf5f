//! Whether anything but wtd has used a volume since it was made.
//!
//! Docker keeps its last events in memory, the oldest go first ("Events" of the Engine API: the last 256). So if it still
//! has the one of the volume's making, it has every one since, and each container that was started on the volume, or
//! written into, is in it, though it may be gone by now.

use std::collections::{HashMap, HashSet};

use bollard::models::{EventMessage, EventMessageTypeEnum as Type};
use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::StreamExt as _;
use jiff::Timestamp;

use super::EngineError;
use super::archive::{HELPER_LABEL, timed};
use super::connection::{Connection, Removed, bounded};
use crate::domain::names::VolumeName;

/// Who has used a volume since it was made, beside the helpers of one owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usage {
    /// Nothing, and that is proven.
    Nothing,
    /// The container of this name.
    By(String),
    /// The engine can't tell.
    Unknown,
}

/// Until when what filled a volume is known to have been at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    /// Until this moment, so that whoever began to use the volume is seen.
    Now,
    /// Until a moment that nobody knows of.
    Before,
}

impl Connection {
    /// Removes a volume that was filled by half, or gives why it is left: a container that is no helper of this owner uses
    /// it or may have used it, be it gone again, and then a person's data may be in it.
    pub async fn remove_unused(
        &self,
        volume: &VolumeName,
        owner: &str,
        since: Since,
    ) -> Result<Option<String>, EngineError> {
        match (self.usage(volume, owner).await?, since) {
            (Usage::By(user), _) => return Ok(Some(format!("{user} has begun to use it"))),
            (Usage::Unknown, Since::Before) => {
                return Ok(Some("the engine can't tell whether it was used since".to_owned()));
            }
            (Usage::Unknown, Since::Now) | (Usage::Nothing, _) => {}
        }
        Ok(match self.remove_volume(volume).await? {
            Removed::InUse(why) => Some(why),
            Removed::Now | Removed::Before => None,
        })
    }

    /// Whether a container that is no helper of this owner uses the volume, or has used it since it was made.
    pub async fn usage(&self, volume: &VolumeName, owner: &str) -> Result<Usage, EngineError> {
        let users = self.users(volume).await?;
        let other = users.into_iter().find(|user| user.labels.get(HELPER_LABEL).is_none_or(|it| it != owner));
        if let Some(other) = other {
            return Ok(Usage::By(other.name));
        }
        // Podman's events don't say which volume a container has.
        if !self.tells_owners() {
            return Ok(Usage::Unknown);
        }
        // The engine's own clock: what happens from now on is no answer to this question.
        let now = bounded(&self.host, self.docker.info()).await?.system_time;
        let Some(now) = now.and_then(|now| now.parse::<Timestamp>().ok()) else { return Ok(Usage::Unknown) };
        let until = format!("{}.{:09}", now.as_second(), now.subsec_nanosecond());
        let options = EventsOptionsBuilder::default().since("1").until(&until).build();
        let mut stream = std::pin::pin!(timed(self.host.clone(), self.docker.events(Some(options))));
        let mut events = Vec::new();
        while let Some(event) = stream.next().await {
            events.push(event?);
        }
        Ok(usage_in(&events, volume.as_str(), owner))
    }
}

/// What events, oldest first, say of a volume.
fn usage_in(events: &[EventMessage], volume: &str, owner: &str) -> Usage {
    let (mut helpers, mut names) = (HashSet::new(), HashMap::new());
    let (mut is_known, mut users) = (false, Vec::new());
    for event in events {
        let Some(actor) = &event.actor else { continue };
        let Some(id) = actor.id.as_deref() else { continue };
        let attribute =
            |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        match (event.typ, event.action.as_deref()) {
            (Some(Type::CONTAINER), _) => {
                if attribute(HELPER_LABEL) == Some(owner) {
                    helpers.insert(id);
                }
                names.extend(attribute("name").map(|name| (id, name)));
            }
            (Some(Type::VOLUME), Some("create")) if id == volume => is_known = true,
            (Some(Type::VOLUME), Some("destroy")) if id == volume => {
                is_known = false;
                users.clear();
            }
            (Some(Type::VOLUME), _) if id == volume => {
                users.push(attribute("container").unwrap_or("something"));
            }
            _ => {}
        }
    }
    match users.into_iter().find(|user| !helpers.contains(user)) {
        Some(user) => Usage::By(names.get(user).copied().unwrap_or(user).to_owned()),
        None if is_known => Usage::Nothing,
        None => Usage::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use bollard::models::EventActor;

    use super::*;

    fn event(typ: Type, action: &str, id: &str, attributes: &[(&str, &str)]) -> EventMessage {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        EventMessage {
            typ: Some(typ),
            action: Some(action.to_owned()),
            actor: Some(EventActor {
                id: Some(id.to_owned()),
                attributes: Some(attributes.iter().map(owned).collect()),
            }),
            ..EventMessage::default()
        }
    }

    #[test]
    fn only_a_whole_record_without_others_proves_that_nothing_used_a_volume() {
        let create = event(Type::VOLUME, "create", "v", &[("driver", "local")]);
        let destroy = event(Type::VOLUME, "destroy", "v", &[("driver", "local")]);
        let mount = |container| event(Type::VOLUME, "mount", "v", &[("container", container)]);
        let ours = event(Type::CONTAINER, "create", "c1", &[("dev.wtd.helper", "me"), ("name", "x")]);
        let theirs = event(Type::CONTAINER, "start", "c2", &[("name", "shop-db-1")]);
        let other = event(Type::VOLUME, "mount", "v2", &[("container", "c2")]);
        let by = Usage::By("shop-db-1".to_owned());
        for (events, usage) in [
            (vec![], Usage::Unknown),
            (vec![create.clone()], Usage::Nothing),
            (vec![create.clone(), ours.clone(), mount("c1"), theirs.clone(), other], Usage::Nothing),
            (vec![ours, mount("c1")], Usage::Unknown),
            (vec![create.clone(), theirs.clone(), mount("c2")], by.clone()),
            (vec![theirs, mount("c2"), create.clone()], by),
            (vec![create.clone(), mount("c2"), destroy.clone(), create.clone()], Usage::Nothing),
            (vec![create.clone(), destroy], Usage::Unknown),
            (vec![create, mount("c3")], Usage::By("c3".to_owned())),
        ] {
            assert_eq!(usage_in(&events, "v", "me"), usage, "{events:#?}");
        }
    }
}
