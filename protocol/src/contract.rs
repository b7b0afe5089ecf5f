//! Names and numbers that both programs and people rely on, each said once.

use std::num::NonZeroU16;

/// The file at a worktree's root in which a repository declares its ports, volumes and database.
pub const PROJECT_FILE: &str = "wtd.toml";

/// The label that says which allocation a volume belongs to; gc goes by it.
pub const ALLOCATION_LABEL: &str = "dev.wtd.allocation";

/// PostgreSQL's port (IANA service names registry): the database's base port unless a project declares another.
pub const POSTGRESQL_PORT: u16 = 5432;

/// The stem of the database's volume unless a project declares another.
pub const VOLUME_STEM: &str = "db_data";

/// The distance between offsets unless the daemon's configuration says otherwise.
pub const DEFAULT_STEP: NonZeroU16 = NonZeroU16::new(10_000).unwrap();
