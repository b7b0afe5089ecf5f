-- Volumes that were brought back from backups.

-- One row for each volume that was to be restored, written before anything of it was made. Without an end the daemon did
-- not live to tell of one: the volume is half filled, if it is there, and is removed by who finds the row. The volume's
-- label dev.wtd.restore has the id. Until the engine says that the volume is gone, the offset that its name leads to is
-- nobody's: a new worktree would open it.
CREATE TABLE restorings (
    id       TEXT    NOT NULL PRIMARY KEY,
    at       INTEGER NOT NULL,
    engine   TEXT    NOT NULL,
    host     TEXT    NOT NULL,   -- where the engine was reached
    volume   TEXT    NOT NULL,
    offset   INTEGER CHECK (offset BETWEEN 0 AND 65535),   -- NULL: its name leads to none
    ended    INTEGER,
    outcome  TEXT,
    gone     INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX restorings_there ON restorings (at) WHERE gone IS NULL;
