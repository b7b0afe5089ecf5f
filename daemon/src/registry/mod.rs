//! The registry at work: one writer, and a snapshot for everybody else.

pub mod allocation_file;
pub mod compose_override;
pub mod snapshot;
pub mod writer;

pub use snapshot::Snapshot;
pub use writer::{Decision, WriteError, Writer};
