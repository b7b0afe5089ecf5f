-- What gc rests on: which container engines were seen while an allocation lived, and what gc set out to do.

-- One row for each name of an allocation that was looked for when an engine was first seen with it. What was not there
-- yet can only have been made later: engines don't tell reliably when a volume was made.
CREATE TABLE engine_looks (
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    engine      TEXT    NOT NULL,
    name        TEXT    NOT NULL,
    was_there   INTEGER NOT NULL CHECK (was_there IN (0, 1)),
    host        TEXT    NOT NULL,   -- where the engine was reached
    at          INTEGER NOT NULL,
    PRIMARY KEY (allocation, engine, name)
) STRICT, WITHOUT ROWID;

-- One row for everything that gc was about to remove, written before the engine was asked to. Without an outcome, the
-- daemon ended before it heard of one; the engine knows then, and the next run asks it.
CREATE TABLE removals (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    engine      TEXT    NOT NULL,
    kind        TEXT    NOT NULL CHECK (kind IN ('volume', 'database', 'schema', 'container')),
    name        TEXT    NOT NULL,
    detail      TEXT    NOT NULL CHECK (json_valid(detail)),   -- what it was, as the engine showed it
    ended       INTEGER,
    outcome     TEXT
) STRICT;

CREATE INDEX removals_by_allocation ON removals (allocation);
