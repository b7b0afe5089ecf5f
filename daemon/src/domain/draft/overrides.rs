//! Steps of Compose overrides.

use std::collections::BTreeSet;

use super::Draft;
use crate::domain::allocation::Allocation;
use crate::domain::compose::{Compose, PortTaken};
use crate::domain::ledger::{Ledger, Overlap};
use crate::domain::names::VolumeName;

impl Draft {
    /// Records an override, and the volumes that it names. Refused when another allocation has one of its ports.
    pub fn set_override(
        &mut self,
        allocation: &Allocation,
        compose: Compose,
        volumes: &BTreeSet<VolumeName>,
    ) -> Result<Result<(), PortTaken>, Overlap> {
        if let Some(taken) = compose.ports.iter().find_map(|port| taken(&self.ledger, allocation, *port)) {
            return Ok(Err(taken));
        }
        let mut after = allocation.clone();
        after.compose = Some(compose.into());
        // They are the worktree's from now on, whatever becomes of the override.
        let further: Vec<_> = volumes.iter().filter(|volume| !after.names_volume(volume)).cloned().collect();
        after.former_volumes.extend(further);
        self.put(after).map(|_| Ok(()))
    }

    /// Records that a worktree has no override (any more).
    pub fn remove_override(&mut self, allocation: &Allocation) -> Result<(), Overlap> {
        self.put(Allocation { compose: None, ..allocation.clone() }).map(drop)
    }
}

/// Whether somebody else than `allocation` has `port`.
fn taken(ledger: &Ledger, allocation: &Allocation, port: u16) -> Option<PortTaken> {
    let own = |holder| holder == allocation.id;
    let shares = || allocation.ports.values().any(|ours| ours.shared && ours.port == port);
    match ledger.holder_of_port(port) {
        Some(holder) if !own(holder) => Some(PortTaken { port, holder: Some(holder) }),
        None if ledger.is_shared(port) && !shares() => Some(PortTaken { port, holder: None }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use wtd_protocol::variable::Variable;

    use super::*;
    use crate::domain::compose_override::tests::{allocation, compose};
    use crate::domain::names;
    use crate::domain::ports::{Port, Ports};

    fn draft(allocations: &[&Allocation]) -> Draft {
        let mut ledger = Ledger::default();
        for allocation in allocations {
            ledger.put((*allocation).clone().into()).unwrap();
        }
        Draft::new(&ledger)
    }

    #[test]
    fn no_two_allocations_publish_one_port() {
        let (one, two) = (allocation(1, 0), allocation(2, 10000));
        let mut draft = draft(&[&one, &two]);
        let mut set = |of: &Allocation, ports: &[u16]| {
            draft.set_override(of, compose(of, ports), &BTreeSet::new()).unwrap().map_err(|taken| taken.port)
        };
        assert_eq!(set(&one, &[5432, 8080]), Ok(()), "a declared port is its own");
        assert_eq!(set(&two, &[15432, 8080]), Err(8080), "published by the other");
        assert_eq!(set(&two, &[5432]), Err(5432), "declared by the other");
        assert_eq!(set(&two, &[15432, 18080]), Ok(()));
        assert_eq!(set(&one, &[9090]), Ok(()), "written again");
        assert_eq!(set(&two, &[8080]), Ok(()), "given up by the other");
        assert_eq!(draft.ledger.holder_of_port(8080), Some(two.id));
        assert_eq!(draft.ledger.holder_of_port(18080), None);
    }

    #[test]
    fn a_server_that_others_share_is_not_published_over() {
        let mut one = allocation(1, 0);
        let base = NonZeroU16::new(5432).unwrap();
        one.ports = Ports::from_iter([(Variable::db_host_port(), Port { base, port: 5432, shared: true })]);
        let two = allocation(2, 10000);
        let mut draft = draft(&[&one, &two]);
        let taken = draft.set_override(&two, compose(&two, &[5432]), &BTreeSet::new()).unwrap();
        assert_eq!(taken, Err(PortTaken { port: 5432, holder: None }));
        assert_eq!(draft.set_override(&one, compose(&one, &[5432]), &BTreeSet::new()).unwrap(), Ok(()));
    }

    #[test]
    fn the_volumes_that_it_names_stay_the_worktrees() {
        let one = allocation(1, 0);
        let mut draft = draft(&[&one]);
        let named = BTreeSet::from([names::volume_name("db_data", 0), names::volume_name("cache", 0)]);
        draft.set_override(&one, compose(&one, &[]), &named).unwrap().unwrap();
        let with = (**draft.ledger.allocation(one.id).unwrap()).clone();
        draft.remove_override(&with).unwrap();
        let without = draft.ledger.allocation(one.id).unwrap();
        assert_eq!(without.compose, None);
        assert_eq!(without.former_volumes, BTreeSet::from([names::volume_name("cache", 0)]));
    }
}
