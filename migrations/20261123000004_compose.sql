-- What a worktree has of Compose: the volumes that its project's worktrees share, and the override that a person had
-- written for it. A file in a git dir is taken for an override only because this table says so.
--
-- Costs nothing for allocations that have neither: they have no row.

CREATE TABLE compose (
    allocation      TEXT    NOT NULL PRIMARY KEY REFERENCES allocations (id),
    shared_volumes  TEXT    NOT NULL CHECK (json_valid(shared_volumes)),
    files           TEXT    CHECK (json_valid(files)),   -- NULL, as is all below: there is no override
    files_digest    TEXT,
    separator       TEXT,
    digest          BLOB,                                -- SHA-256 of the override
    inputs          BLOB,                                -- SHA-256 of what of the allocation went into it
    CHECK ((files IS NULL) = (digest IS NULL)
       AND (files IS NULL) = (files_digest IS NULL)
       AND (files IS NULL) = (separator IS NULL)
       AND (files IS NULL) = (inputs IS NULL))
) STRICT, WITHOUT ROWID;

-- Host ports that are published under an override. Two allocations can't have one, neither here nor in `ports`.
CREATE TABLE compose_ports (
    port        INTEGER NOT NULL PRIMARY KEY CHECK (port BETWEEN 1 AND 65535),
    allocation  TEXT    NOT NULL REFERENCES allocations (id)
) STRICT;

CREATE INDEX compose_ports_by_allocation ON compose_ports (allocation);

CREATE TRIGGER port_is_not_published_by_another BEFORE INSERT ON ports
WHEN NEW.shared = 0 AND EXISTS (SELECT 1 FROM compose_ports WHERE port = NEW.port AND allocation <> NEW.allocation)
BEGIN SELECT RAISE(ABORT, 'another allocation publishes this port through Compose'); END;

CREATE TRIGGER published_port_is_not_anothers BEFORE INSERT ON compose_ports
WHEN EXISTS (SELECT 1 FROM ports WHERE port = NEW.port AND shared = 0 AND allocation <> NEW.allocation)
BEGIN SELECT RAISE(ABORT, 'another allocation has this port'); END;
