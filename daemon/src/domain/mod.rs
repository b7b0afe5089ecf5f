//! The pure core: offsets, ports, names, and the step from what is seen to what is recorded.
//!
//! Nothing here reads a file, a socket, a database or a clock: what the outside says comes in as values, and
//! what is to be done goes out as values.

pub mod allocation;
pub mod allocator;
pub mod compose;
pub mod compose_override;
pub mod content_hash;
pub mod database_objects;
pub mod database_url;
pub mod draft;
pub mod gc;
pub mod identity;
pub mod ledger;
pub mod names;
pub mod observation;
pub mod offset;
pub mod port_ranges;
pub mod ports;
pub mod project;
pub mod reconcile;
pub mod restoring;
pub mod seed;
pub mod template;
pub mod trust;
pub mod variables;
