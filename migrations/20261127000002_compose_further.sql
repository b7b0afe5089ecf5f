-- The files that Compose reads beside those that a project names: what is included or extended, and env files. An override
-- is of them as well, so that a change in one makes it out of date.
--
-- Costs one column. An override that was written before has none recorded, and is told of as before.

ALTER TABLE compose ADD COLUMN further TEXT CHECK (json_valid(further));   -- path: digest of what counts in it
