-- How worktrees share a database server: the mode that an allocation was made in and keeps, and the volume of a server
-- that is shared, which is nobody's own and so in no row of `volumes`.

ALTER TABLE allocations ADD COLUMN mode TEXT NOT NULL DEFAULT 'isolated'
    CHECK (mode IN ('isolated', 'database', 'schema', 'shared'));
ALTER TABLE allocations ADD COLUMN shared_volume TEXT;
ALTER TABLE allocations ADD COLUMN schema TEXT;

-- Before modes were recorded, a port that did not move showed that there was a server to share.
UPDATE allocations SET mode = 'shared' WHERE id IN (SELECT allocation FROM ports WHERE shared = 1);
