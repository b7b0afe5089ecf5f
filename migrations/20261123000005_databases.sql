-- How worktrees share a database server: the mode that an allocation was made in and keeps, the volume of a server that
-- is shared, which is nobody's own and so in no row of `volumes`, and what is made on the server for each allocation.

ALTER TABLE allocations ADD COLUMN mode TEXT NOT NULL DEFAULT 'isolated'
    CHECK (mode IN ('isolated', 'database', 'schema', 'shared'));
ALTER TABLE allocations ADD COLUMN shared_volume TEXT;
ALTER TABLE allocations ADD COLUMN schema TEXT;
ALTER TABLE allocations ADD COLUMN template TEXT;

-- Before modes were recorded, a port that did not move showed that there was a server to share.
UPDATE allocations SET mode = 'shared' WHERE id IN (SELECT allocation FROM ports WHERE shared = 1);

-- Databases and schemas of allocations that are not released. A row is there before the object is: an intended one may be
-- there, or half of it. A foreign one has the name and is somebody else's. No credentials, ever.
CREATE TABLE database_objects (
    allocation  TEXT    NOT NULL REFERENCES allocations (id),
    database    TEXT    NOT NULL,
    schema      TEXT,                          -- NULL: the database itself
    server      INTEGER NOT NULL,              -- its system identifier
    host        TEXT    NOT NULL,
    port        INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
    stage       TEXT    NOT NULL CHECK (stage IN ('intended', 'made', 'foreign'))
) STRICT;

CREATE UNIQUE INDEX one_allocation_per_database_object ON database_objects (server, database, COALESCE(schema, ''));
CREATE INDEX database_objects_by_allocation ON database_objects (allocation);
