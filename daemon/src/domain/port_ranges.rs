//! Sets of ports, as configuration and the kernel write them: `5432,9000-9010`.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// A set of ports.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PortRanges(Vec<RangeInclusive<u16>>);

/// A text that is no list of ports.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is neither a port nor a range of ports: write 5432 or 9000-9010, from 1 to 65535")]
pub struct PortRangesError(String);

impl PortRanges {
    /// Whether a port is in the set.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(&port))
    }

    /// Whether no port is in the set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The ranges that make up the set, in the order they were given; they may overlap.
    pub fn ranges(&self) -> &[RangeInclusive<u16>] {
        &self.0
    }

    /// Adds the ports of another set.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}

impl From<RangeInclusive<u16>> for PortRanges {
    fn from(range: RangeInclusive<u16>) -> Self {
        Self(vec![range])
    }
}

/// A comma list of ports and ranges; the empty text is the empty set, as in `ip_local_reserved_ports`.
impl FromStr for PortRanges {
    type Err = PortRangesError;

    fn from_str(list: &str) -> Result<Self, PortRangesError> {
        list.split(',')
            .map(str::trim)
            .filter(|entry| !entry.is_empty())
            .map(range)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

fn range(entry: &str) -> Result<RangeInclusive<u16>, PortRangesError> {
    let (first, last) = entry.split_once('-').unwrap_or((entry, entry));
    match (first.trim().parse(), last.trim().parse()) {
        (Ok(first @ 1..), Ok(last)) if first <= last => Ok(first..=last),
        _ => Err(PortRangesError(entry.chars().take(64).collect())),
    }
}

/// As the kernel writes it.
impl fmt::Display for PortRanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            if range.start() == range.end() {
                write!(f, "{comma}{}", range.start())?;
            } else {
                write!(f, "{comma}{}-{}", range.start(), range.end())?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_and_ranges_are_read_and_written() {
        let ports: PortRanges = "5432, 9000-9010,80".parse().unwrap();
        for inside in [5432, 9000, 9005, 9010, 80] {
            assert!(ports.contains(inside), "{inside}");
        }
        for outside in [0, 81, 8999, 9011, 65535] {
            assert!(!ports.contains(outside), "{outside}");
        }
        assert_eq!(ports.to_string(), "5432,9000-9010,80");
        assert!("".parse::<PortRanges>().unwrap().is_empty());
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for text in ["0", "65536", "9-8", "-1", "1-", "-", "1-2-3", "x", "5432 5433", "0-80", "+-1"] {
            assert!(text.parse::<PortRanges>().is_err(), "{text}");
        }
    }
}
