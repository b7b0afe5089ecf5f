//! Moving published ports by the offset.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use wtd_protocol::compose::range;

use super::model::{Model, Port, Service};
use crate::error::Error;

/// A host port under the override, and the service that publishes it.
pub(crate) type Published = BTreeMap<u16, String>;

/// What is to be moved, and what not.
#[derive(Debug)]
pub(super) struct Move<'a> {
    pub(super) offset: u16,
    /// The ports of a server that worktrees share, where this worktree is the one to run it.
    pub(super) staying: &'a BTreeSet<u16>,
}

/// The ports of one service under the override.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Moved {
    pub(super) ports: Vec<Port>,
    /// Whether any of them differs from what the project's files say.
    pub(super) is_changed: bool,
}

impl Move<'_> {
    /// The ports of `service`. `reference` is the same service at offset 0, where that is not this worktree's: a port
    /// that already is the reference's plus the offset moves with the worktree by itself.
    pub(super) fn service(
        &self,
        name: &str,
        service: &Service,
        reference: Option<&Service>,
    ) -> Result<Moved, Error> {
        let bases = reference.map_or(&[][..], |reference| &reference.ports);
        if reference.is_some() && bases.len() != service.ports.len() {
            return Err(Error::failed(
                format!("service {name} publishes another number of ports at another offset"),
                "give its ports values that depend on wtd's variables alone",
            ));
        }
        let mut ports = Vec::new();
        for (index, port) in service.ports.iter().enumerate() {
            let base = bases.get(index).filter(|base| base.target() == port.target());
            ports.push(self.port(name, port, base)?);
        }
        Ok(Moved { is_changed: ports != service.ports, ports })
    }

    fn port(&self, name: &str, port: &Port, base: Option<&Port>) -> Result<Port, Error> {
        let Some(published) = port.published() else { return Ok(port.clone()) };
        let stays = |ports: &RangeInclusive<u16>| ports.clone().all(|port| self.staying.contains(&port));
        let own = ports_of(name, &published)?;
        let moves_by_itself = base.and_then(Port::published).is_some_and(|base| {
            range(&base).and_then(|base| self.moved(&base)).is_some_and(|moved| moved == own)
        });
        if self.offset == 0 || moves_by_itself || stays(&own) {
            return Ok(port.clone());
        }
        let moved = self.moved(&own).ok_or_else(|| {
            Error::failed(
                format!("service {name}: port {published} + offset {} is beyond 65535", self.offset),
                "declare the project's highest port in wtd.toml's [ports] (`wtd-client init` does), then `wtd-client reassign` finds an offset for it",
            )
        })?;
        Ok(port.on(&text(&moved)))
    }

    fn moved(&self, ports: &RangeInclusive<u16>) -> Option<RangeInclusive<u16>> {
        let moved = |port: &u16| port.checked_add(self.offset);
        Some(moved(ports.start())?..=moved(ports.end())?)
    }
}

/// Takes the host ports of a service into `published`.
pub(super) fn collect(name: &str, ports: &[Port], published: &mut Published) -> Result<(), Error> {
    for text in ports.iter().filter_map(Port::published) {
        for port in ports_of(name, &text)? {
            published.entry(port).or_insert_with(|| name.to_owned());
        }
    }
    Ok(())
}

/// The host ports that the project publishes as its files have it.
pub(super) fn of_model(model: &Model) -> Published {
    let mut published = Published::new();
    for (name, service) in &model.services {
        // What can't be read was complained of before, of the worktree's own model.
        drop(collect(name, &service.ports, &mut published));
    }
    published
}

fn ports_of(service: &str, published: &str) -> Result<RangeInclusive<u16>, Error> {
    range(published).ok_or_else(|| {
        Error::failed(
            format!("service {service}: {published:?} is neither a port nor a range of ports"),
            "correct it in the Compose file",
        )
    })
}

fn text(ports: &RangeInclusive<u16>) -> String {
    if ports.start() == ports.end() {
        ports.start().to_string()
    } else {
        format!("{}-{}", ports.start(), ports.end())
    }
}
