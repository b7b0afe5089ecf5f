//! Offsets, and the order in which they are tried.

use std::fmt;
use std::num::NonZeroU16;
use std::sync::Arc;

/// The step between offsets that are tried first, unless the daemon's configuration says otherwise.
pub const DEFAULT_STEP: NonZeroU16 = NonZeroU16::new(10_000).unwrap();

/// The finer steps, tried in this order once every coarser candidate is used up.
const FINER_STEPS: [u16; 3] = [1_000, 100, 10];

/// A `PORT_OFFSET`, in ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Offset(pub u16);

impl Offset {
    /// The port of a service at this offset; none beyond 65535.
    pub fn port(self, base: NonZeroU16) -> Option<u16> {
        base.get().checked_add(self.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Every offset up to `highest` that may be given, in the order of preference: the multiples of `step`
/// ascending from 0, then those of 1000, of 100 and of 10 that have not come before.
pub fn candidates(step: NonZeroU16, highest: u16) -> impl Iterator<Item = Offset> {
    let steps = [step.get(), FINER_STEPS[0], FINER_STEPS[1], FINER_STEPS[2]];
    steps.into_iter().enumerate().flat_map(move |(tier, step)| {
        (0..=highest).step_by(usize::from(step)).map(Offset).filter(move |offset| {
            let came_before = steps.iter().take(tier).any(|coarser| offset.0.is_multiple_of(*coarser));
            !came_before
        })
    })
}

/// A set of offsets, a bit for each that there can be: with thousands of worktrees the allocator asks for thousands of
/// offsets before it comes to one that is free.
#[derive(Debug, Clone)]
pub struct OffsetSet(Arc<[u64; Self::WORDS]>);

impl OffsetSet {
    const WORDS: usize = (u16::MAX as usize + 1) / u64::BITS as usize;

    /// Whether `offset` is in the set.
    pub fn contains(&self, offset: Offset) -> bool {
        self.0.get(Self::word(offset)).is_some_and(|word| word & Self::bit(offset) != 0)
    }

    /// Adds an offset; false when it was there.
    pub fn insert(&mut self, offset: Offset) -> bool {
        let is_new = !self.contains(offset);
        if let Some(word) = Arc::make_mut(&mut self.0).get_mut(Self::word(offset)) {
            *word |= Self::bit(offset);
        }
        is_new
    }

    /// Takes an offset out.
    pub fn remove(&mut self, offset: Offset) {
        if let Some(word) = Arc::make_mut(&mut self.0).get_mut(Self::word(offset)) {
            *word &= !Self::bit(offset);
        }
    }

    const fn word(offset: Offset) -> usize {
        offset.0 as usize / u64::BITS as usize
    }

    const fn bit(offset: Offset) -> u64 {
        1 << (offset.0 as u32 % u64::BITS)
    }
}

impl Default for OffsetSet {
    fn default() -> Self {
        Self(Arc::new([0; Self::WORDS]))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_set_of_offsets_holds_what_was_put_in_and_not_taken_out(
            changes in prop::collection::vec((any::<u16>(), any::<bool>()), 0..200),
        ) {
            let mut set = OffsetSet::default();
            let mut model = std::collections::BTreeSet::new();
            for (offset, is_put) in changes {
                let offset = Offset(offset);
                if is_put {
                    prop_assert_eq!(set.insert(offset), model.insert(offset));
                } else {
                    set.remove(offset);
                    model.remove(&offset);
                }
            }
            for offset in (0..=u16::MAX).map(Offset) {
                prop_assert_eq!(set.contains(offset), model.contains(&offset));
            }
        }
    }

    #[test]
    fn coarse_offsets_come_first_and_lowest_first() {
        let all: Vec<u16> = candidates(DEFAULT_STEP, 57_532).map(|offset| offset.0).collect();
        assert_eq!(all[..8], [0, 10_000, 20_000, 30_000, 40_000, 50_000, 1_000, 2_000]);
        assert_eq!(all[6..60].iter().filter(|offset| *offset % 10_000 == 0).count(), 0);
        assert_eq!(all.last(), Some(&57_530));
    }

    #[test]
    fn no_candidate_comes_twice_whatever_the_step() {
        for step in [1, 7, 10, 500, 1_000, 2_500, 10_000, 60_000] {
            let all: Vec<_> = candidates(NonZeroU16::new(step).unwrap(), 65_535).collect();
            let distinct: std::collections::HashSet<_> = all.iter().collect();
            assert_eq!(all.len(), distinct.len(), "step {step}");
            assert_eq!(all[0], Offset(0));
        }
    }
}
