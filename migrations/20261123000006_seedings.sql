-- Copies of other worktrees' volumes.

-- One row for each volume that was to be filled, written before anything of it was made. Without an end the daemon did
-- not live to tell of one: the volume is half filled, if it is there, and is removed by who finds the row. The volume's
-- label dev.wtd.seed has the id.
CREATE TABLE seedings (
    id          TEXT    NOT NULL PRIMARY KEY,
    at          INTEGER NOT NULL,
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    engine      TEXT    NOT NULL,
    host        TEXT    NOT NULL,   -- where the engine was reached
    source      TEXT    NOT NULL,
    volume      TEXT    NOT NULL,
    paused      TEXT    NOT NULL CHECK (json_valid(paused)),   -- ids of containers that are to be resumed
    ended       INTEGER,
    outcome     TEXT
) STRICT, WITHOUT ROWID;

CREATE INDEX unended_seedings ON seedings (at) WHERE ended IS NULL;
CREATE INDEX seedings_by_allocation ON seedings (allocation);
