//! The allocator: which offset a worktree gets. A pure function of what it is asked for, what is taken, the
//! rules, and a probe that the caller brings.

use std::collections::BTreeMap;
use std::num::NonZeroU16;
use std::ops::RangeInclusive;

use wtd_protocol::variable::{PORT_OFFSET, Variable};

use super::offset::{self, Offset};

/// The lowest port that is given: the ones below need a privilege (ip(7), `ip_unprivileged_port_start`).
pub const LOWEST_PORT: u16 = 1024;

/// How many passed-over candidates are remembered with an allocation.
const REMEMBERED: usize = 8;

/// Rules of the machine, from the daemon's configuration.
#[derive(Debug, Clone)]
pub struct Rules {
    /// The step between the offsets that are tried first, in ports.
    pub step: NonZeroU16,
    /// Ports that are never given.
    pub reserved: Vec<RangeInclusive<u16>>,
    /// The kernel's ephemeral range, where it is to be avoided.
    pub avoided: Option<RangeInclusive<u16>>,
}

impl Default for Rules {
    fn default() -> Self {
        Self { step: offset::DEFAULT_STEP, reserved: Vec::new(), avoided: None }
    }
}

/// What the allocations that exist have taken.
pub trait Taken {
    /// Whether an allocation that is not released has this offset.
    fn offset(&self, offset: Offset) -> bool;
    /// What else holds this offset, if anything does, in words: data that was brought back.
    fn holder(&self, offset: Offset) -> Option<String>;
    /// Whether an allocation that is not released has this port.
    fn port(&self, port: u16) -> bool;
}

/// An offset that is given, with its ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Granted {
    /// The offset.
    pub offset: Offset,
    /// Every moved port, by variable.
    pub ports: BTreeMap<Variable, u16>,
    /// The candidates that came first and failed for a reason other than an allocation's having them.
    pub passed_over: Vec<Obstacle>,
}

/// Why a candidate was not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Obstacle {
    /// The candidate.
    pub offset: Offset,
    /// The variable whose port was not to be had; `PORT_OFFSET` where no port stood in the way.
    pub variable: String,
    /// That port, or the offset.
    pub port: u16,
    /// What stood in the way, in words.
    pub reason: String,
}

/// No candidate passes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("every offset up to {highest} is taken or barred{}", told(.barred.as_ref()))]
pub struct Exhausted {
    /// The highest offset at which every port fits.
    pub highest: u16,
    /// What stood in the way of the first candidate, where allocations stood in that of none: no other one that ends
    /// would make room.
    pub barred: Option<Obstacle>,
}

fn told(barred: Option<&Obstacle>) -> String {
    barred.map_or_else(String::new, |Obstacle { offset, variable, port, reason }| {
        format!(", {offset} since {variable} would be {port}: {reason}")
    })
}

/// The first candidate for `base_ports` that passes every test. `preferred` is tried before all others: the
/// offset that a worktree had in a registry that is lost. `probe` says who listens on a port now, if anyone
/// outside the worktree does; it is asked last, since it is the only test that costs.
pub fn allocate(
    base_ports: &BTreeMap<Variable, NonZeroU16>,
    preferred: Option<Offset>,
    taken: &impl Taken,
    rules: &Rules,
    mut probe: impl FnMut(u16) -> Option<String>,
) -> Result<Granted, Exhausted> {
    let highest = base_ports.values().map(|base| u16::MAX - base.get()).min().unwrap_or(u16::MAX);
    let (mut passed_over, mut is_taken) = (Vec::new(), false);
    let preferred = preferred.filter(|offset| offset.0 <= highest);
    for offset in preferred.into_iter().chain(offset::candidates(rules.step, highest)) {
        is_taken |= taken.offset(offset) || taken.holder(offset).is_some();
        if taken.offset(offset) {
            continue;
        }
        match try_candidate(offset, base_ports, taken, rules, &mut probe) {
            Ok(ports) => return Ok(Granted { offset, ports, passed_over }),
            Err(Some(obstacle)) if passed_over.len() < REMEMBERED => passed_over.push(obstacle),
            Err(Some(_)) => {}
            Err(None) => is_taken = true,
        }
    }
    let barred = passed_over.into_iter().next().filter(|_| !is_taken);
    Err(Exhausted { highest, barred })
}

/// The ports at `offset`, or what stands in the way (nothing to tell of, where it is another allocation).
fn try_candidate(
    offset: Offset,
    base_ports: &BTreeMap<Variable, NonZeroU16>,
    taken: &impl Taken,
    rules: &Rules,
    probe: &mut impl FnMut(u16) -> Option<String>,
) -> Result<BTreeMap<Variable, u16>, Option<Obstacle>> {
    if let Some(reason) = taken.holder(offset) {
        let variable = PORT_OFFSET.to_owned();
        return Err(Some(Obstacle { offset, variable, port: offset.0, reason }));
    }
    let mut ports = BTreeMap::new();
    for (variable, base) in base_ports {
        let port = offset.port(*base).ok_or(None)?;
        if taken.port(port) {
            return Err(None);
        }
        if let Some(reason) = rules.bar(port) {
            return Err(Some(Obstacle { offset, variable: variable.to_string(), port, reason }));
        }
        ports.insert(variable.clone(), port);
    }
    for (variable, port) in &ports {
        if let Some(reason) = probe(*port) {
            return Err(Some(Obstacle { offset, variable: variable.to_string(), port: *port, reason }));
        }
    }
    Ok(ports)
}

impl Rules {
    /// Why no worktree may have this port, if so.
    pub fn bar(&self, port: u16) -> Option<String> {
        if port < LOWEST_PORT {
            Some(format!("ports below {LOWEST_PORT} are not given"))
        } else if self.reserved.iter().any(|range| range.contains(&port)) {
            Some("it is listed under reserved_ports".to_owned())
        } else if self.avoided.as_ref().is_some_and(|range| range.contains(&port)) {
            Some("it lies in the kernel's ephemeral range (avoid_ephemeral)".to_owned())
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashSet};

    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Default)]
    struct Allocations {
        offsets: HashSet<Offset>,
        ports: HashSet<u16>,
        held: HashSet<Offset>,
    }

    impl Taken for Allocations {
        fn offset(&self, offset: Offset) -> bool {
            self.offsets.contains(&offset)
        }
        fn holder(&self, offset: Offset) -> Option<String> {
            self.held.contains(&offset).then(|| "restored".to_owned())
        }
        fn port(&self, port: u16) -> bool {
            self.ports.contains(&port)
        }
    }

    impl Allocations {
        fn add(&mut self, granted: &Granted) {
            assert!(self.offsets.insert(granted.offset), "offset {} given twice", granted.offset);
            for port in granted.ports.values() {
                assert!(self.ports.insert(*port), "port {port} given twice");
            }
        }
    }

    fn bases(ports: &[u16]) -> BTreeMap<Variable, NonZeroU16> {
        let variable = |index| Variable::new(&format!("P{index}_PORT")).unwrap();
        ports
            .iter()
            .enumerate()
            .map(|(index, port)| (variable(index), NonZeroU16::new(*port).unwrap()))
            .collect()
    }

    fn free(_: u16) -> Option<String> {
        None
    }

    #[test]
    fn worktrees_get_0_then_10000_then_20000() {
        let mut taken = Allocations::default();
        for expected in [0, 10_000, 20_000, 30_000] {
            let granted =
                allocate(&bases(&[5432, 3000, 8003]), None, &taken, &Rules::default(), free).unwrap();
            assert_eq!(granted.offset, Offset(expected));
            taken.add(&granted);
        }
    }

    #[test]
    fn finer_offsets_come_only_when_the_coarse_ones_are_used_up() {
        let mut taken = Allocations::default();
        let offsets: Vec<u16> = (0..9)
            .map(|_| {
                let granted = allocate(&bases(&[5432]), None, &taken, &Rules::default(), free).unwrap();
                taken.add(&granted);
                granted.offset.0
            })
            .collect();
        assert_eq!(offsets, [0, 10_000, 20_000, 30_000, 40_000, 50_000, 60_000, 1_000, 2_000]);
    }

    #[test]
    fn a_listener_moves_the_worktree_on_and_is_named() {
        let probe = |port| (port == 5432).then(|| "postgres (pid 1) listens on it".to_owned());
        let granted =
            allocate(&bases(&[5432]), None, &Allocations::default(), &Rules::default(), probe).unwrap();
        assert_eq!(granted.offset, Offset(10_000));
        assert_eq!(granted.passed_over.len(), 1);
        assert_eq!((granted.passed_over[0].offset, granted.passed_over[0].port), (Offset(0), 5432));
    }

    #[test]
    fn an_offset_that_leads_to_restored_data_is_passed_over_and_told_of() {
        let taken =
            Allocations { held: HashSet::from([Offset(0), Offset(10_000)]), ..Allocations::default() };
        let granted =
            allocate(&bases(&[5432]), Some(Offset(10_000)), &taken, &Rules::default(), free).unwrap();
        assert_eq!(granted.offset, Offset(20_000));
        let obstacle = &granted.passed_over[0];
        assert_eq!((obstacle.variable.as_str(), obstacle.port), (PORT_OFFSET, 10_000));
        let held = (0..36).map(Offset).collect();
        let taken = Allocations { held, ..Allocations::default() };
        allocate(&bases(&[65_500]), None, &taken, &Rules::default(), free).unwrap_err();
    }

    #[test]
    fn exhaustion_is_an_error_and_not_an_overlap() {
        let mut taken = Allocations::default();
        for expected in [0, 10, 20, 30] {
            let granted = allocate(&bases(&[65_500]), None, &taken, &Rules::default(), free).unwrap();
            assert_eq!(granted.offset, Offset(expected));
            taken.add(&granted);
        }
        assert_eq!(
            allocate(&bases(&[65_500]), None, &taken, &Rules::default(), free),
            Err(Exhausted { highest: 35, barred: None })
        );
    }

    #[test]
    fn where_no_allocation_is_in_the_way_exhaustion_tells_what_is() {
        // What fits below 65536 only at 0 leaves the other below 1024.
        let why = allocate(&bases(&[80, 65_535]), None, &Allocations::default(), &Rules::default(), free);
        assert_eq!(
            why.unwrap_err().to_string(),
            "every offset up to 0 is taken or barred, 0 since P0_PORT would be 80: ports below 1024 are not given"
        );
    }

    #[test]
    fn the_preferred_offset_is_given_only_if_it_passes() {
        let mut taken = Allocations::default();
        let prefer = |taken: &Allocations, offset| {
            allocate(&bases(&[5432]), Some(Offset(offset)), taken, &Rules::default(), free).unwrap()
        };
        let granted = prefer(&taken, 30_000);
        assert_eq!(granted.offset, Offset(30_000));
        taken.add(&granted);
        assert_eq!(prefer(&taken, 30_000).offset, Offset(0));
        assert_eq!(prefer(&taken, 65_000).offset, Offset(0));
    }

    /// The contract, written down as plainly as can be: every offset in its order, every rule in its turn.
    fn naive(
        base_ports: &[u16],
        taken: &Allocations,
        step: u16,
        reserved: &BTreeSet<u16>,
        listening: &BTreeSet<u16>,
    ) -> Option<u16> {
        let passes = |offset: u16| {
            !taken.offsets.contains(&Offset(offset))
                && base_ports.iter().all(|base| {
                    base.checked_add(offset).is_some_and(|port| {
                        port >= 1024
                            && !taken.ports.contains(&port)
                            && !reserved.contains(&port)
                            && !listening.contains(&port)
                    })
                })
        };
        let of_step = |step: u16| (0..=u16::MAX).filter(move |offset| offset % step == 0);
        [step, 1_000, 100, 10].into_iter().flat_map(of_step).find(|offset| passes(*offset))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_sequence_agrees_with_the_naive_model(
            projects in prop::collection::vec(prop::collection::btree_set(prop_oneof![
                Just(5432_u16), Just(3000), Just(8003), 1_u16..=65_535, 60_000_u16..=65_535
            ], 1..5), 1..24),
            step in prop_oneof![Just(10_000_u16), 5_000_u16..=60_000],
            reserved in prop::collection::btree_set(1024_u16.., 0..4),
            listening in prop::collection::btree_set(prop_oneof![Just(5432_u16), Just(15_432), 1024_u16..], 0..4),
        ) {
            let rules = Rules {
                step: NonZeroU16::new(step).unwrap(),
                reserved: reserved.iter().map(|port| *port..=*port).collect(),
                avoided: None,
            };
            let mut taken = Allocations::default();
            for project in projects {
                let project: Vec<u16> = project.into_iter().collect();
                let probe = |port| listening.contains(&port).then(|| "somebody".to_owned());
                let expected = naive(&project, &taken, step, &reserved, &listening);
                match allocate(&bases(&project), None, &taken, &rules, probe) {
                    Ok(granted) => {
                        prop_assert_eq!(Some(granted.offset.0), expected);
                        taken.add(&granted);
                    }
                    Err(_) => prop_assert_eq!(None, expected),
                }
            }
        }
    }
}
