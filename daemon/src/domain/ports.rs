//! The ports of an allocation.

use std::collections::BTreeMap;
use std::num::NonZeroU16;

use wtd_protocol::variable::Variable;

/// A port of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The service's port at offset 0.
    pub base: NonZeroU16,
    /// The worktree's port.
    pub port: u16,
    /// Whether the worktrees share one server there, so that the port does not move.
    pub shared: bool,
}

/// The ports of an allocation by variable, in the variables' order.
///
/// There are thousands of these, of a port or a few each: a slice takes a tenth of what the smallest tree does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ports(Box<[(Variable, Port)]>);

impl Ports {
    /// The port of the variable with this name.
    pub fn get(&self, name: &str) -> Option<&Port> {
        self.iter().find(|(variable, _)| variable.as_str() == name).map(|(_, port)| port)
    }

    /// Each with its variable.
    pub fn iter(&self) -> impl Iterator<Item = (&Variable, &Port)> {
        self.0.iter().map(|(variable, port)| (variable, port))
    }

    /// The ports alone.
    pub fn values(&self) -> impl Iterator<Item = &Port> {
        self.0.iter().map(|(_, port)| port)
    }
}

impl FromIterator<(Variable, Port)> for Ports {
    fn from_iter<T: IntoIterator<Item = (Variable, Port)>>(ports: T) -> Self {
        let in_order: BTreeMap<_, _> = ports.into_iter().collect();
        Self(in_order.into_iter().collect())
    }
}
