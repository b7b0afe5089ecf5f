-- What a person has trusted: the content of a `wtd.toml`, by its SHA-256, in one repository. And what follows from
-- that for an allocation: the variables that its templates make, and whether there are some that are not trusted.
-- A registry without these rows trusts nothing.

CREATE TABLE trusted_contents (
    repository  TEXT    NOT NULL REFERENCES repositories (id),
    sha256      BLOB    NOT NULL CHECK (length(sha256) = 32),
    at          INTEGER NOT NULL,                -- when it was trusted: milliseconds since 1970, UTC
    PRIMARY KEY (repository, sha256)
) STRICT, WITHOUT ROWID;

ALTER TABLE allocations ADD COLUMN env TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(env));
ALTER TABLE allocations ADD COLUMN untrusted INTEGER NOT NULL DEFAULT 0 CHECK (untrusted IN (0, 1));
