-- Whether a project has its name from `wtd.toml`. Such a name ends with the setting; one that came from a directory stays
-- when the directory is renamed.
--
-- Costs one column. Of allocations that were made before it isn't known, and their names stay.

ALTER TABLE allocations ADD COLUMN project_is_configured INTEGER NOT NULL DEFAULT 0 CHECK (project_is_configured IN (0, 1));
