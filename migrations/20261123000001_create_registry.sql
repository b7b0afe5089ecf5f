-- The registry: who holds which offset, and who held it before.
--
-- The rules that must never break are the database's own: however the code above goes wrong, two allocations
-- that are not released can't have one offset, one port or one volume. Paths are bytes (BLOB), as on Unix they
-- need not be text. Times are milliseconds since 1970, UTC.

CREATE TABLE repositories (
    id          TEXT    PRIMARY KEY,
    common_dir  BLOB    NOT NULL,
    device      INTEGER NOT NULL,
    inode       INTEGER NOT NULL,
    born_ns     INTEGER,
    main_root   BLOB,
    watched     INTEGER NOT NULL CHECK (watched IN (0, 1))
) STRICT;

CREATE UNIQUE INDEX one_watched_repository_per_common_dir ON repositories (common_dir) WHERE watched = 1;

CREATE TABLE allocations (
    id               TEXT    PRIMARY KEY,
    repository       TEXT    NOT NULL REFERENCES repositories (id),
    worktree_id      BLOB,                       -- NULL: the main worktree
    git_dir          BLOB    NOT NULL,
    device           INTEGER NOT NULL,           -- of the git dir, as are inode and born_ns
    inode            INTEGER NOT NULL,
    born_ns          INTEGER,
    path             BLOB    NOT NULL,
    path_device      INTEGER NOT NULL,
    finished         INTEGER NOT NULL CHECK (finished IN (0, 1)),
    offset           INTEGER NOT NULL CHECK (offset BETWEEN 0 AND 65535),
    project          TEXT    NOT NULL,
    database         TEXT    NOT NULL,
    compose_project  TEXT,
    state            TEXT    NOT NULL CHECK (state IN ('active', 'missing', 'stale', 'released')),
    reason           TEXT    NOT NULL,
    since            INTEGER NOT NULL,
    created          INTEGER NOT NULL,
    ending           TEXT    CHECK (ending IN ('forgotten', 'reassigned')),
    passed_over      TEXT    NOT NULL CHECK (json_valid(passed_over)),
    warnings         TEXT    NOT NULL CHECK (json_valid(warnings))
) STRICT;

CREATE UNIQUE INDEX one_allocation_per_offset ON allocations (offset) WHERE state <> 'released';
CREATE INDEX allocations_by_repository ON allocations (repository);

-- Ports of allocations that are not released; releasing one deletes its rows.
CREATE TABLE ports (
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    variable    TEXT    NOT NULL,
    base        INTEGER NOT NULL CHECK (base BETWEEN 1 AND 65535),
    port        INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    shared      INTEGER NOT NULL CHECK (shared IN (0, 1)),
    PRIMARY KEY (allocation, variable)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX one_allocation_per_port ON ports (port) WHERE shared = 0;

-- Volumes of allocations that are not released; variable is NULL for one of an earlier configuration.
CREATE TABLE volumes (
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    variable    TEXT,
    name        TEXT    NOT NULL PRIMARY KEY
) STRICT, WITHOUT ROWID;

CREATE INDEX volumes_by_allocation ON volumes (allocation);

CREATE TRIGGER released_allocation_has_no_port BEFORE INSERT ON ports
WHEN (SELECT state FROM allocations WHERE id = NEW.allocation) = 'released'
BEGIN SELECT RAISE(ABORT, 'a released allocation has no port'); END;

-- Who had which offset when: one row for each change that a person would want to hear of, never updated.
CREATE TABLE history (
    sequence    INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    kind        TEXT    NOT NULL,
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    offset      INTEGER NOT NULL,
    path        BLOB    NOT NULL,
    detail      TEXT    NOT NULL CHECK (json_valid(detail))   -- the allocation afterwards, as the API shows it
) STRICT;

CREATE INDEX history_by_allocation ON history (allocation);
