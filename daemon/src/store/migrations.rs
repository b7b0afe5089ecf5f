//! The registry's schema, as the migrations that lead to it. Embedded: a daemon has to open a registry wherever it is.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Each file of `migrations/`: its version, its name, and what it holds.
macro_rules! embedded {
    ($(($version:literal, $name:literal)),* $(,)?) => {
        [$((
            $version,
            $name,
            include_str!(concat!("../../../migrations/", $version, "_", $name, ".sql")),
        )),*]
    };
}

#[expect(clippy::unreadable_literal, reason = "as in the file's name")]
const FILES: [(i64, &str, &str); 9] = embedded![
    (20261123000001, "create_registry"),
    (20261123000002, "trust"),
    (20261123000003, "gc"),
    (20261123000004, "compose"),
    (20261123000005, "databases"),
    (20261123000006, "seedings"),
    (20261127000001, "restorings"),
    (20261127000002, "compose_further"),
    (20261128000001, "configured_projects"),
];

/// All of them, oldest first.
pub(super) fn all() -> Migrator {
    let migration = |(version, name, sql): (i64, &str, &'static str)| {
        let description = name.replace('_', " ").into();
        Migration::new(version, description, MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(FILES.map(migration).to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_directory_is_embedded() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/../migrations");
        let mut there: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        assert_eq!(FILES.map(|(version, name, _)| format!("{version}_{name}.sql")).to_vec(), there);
    }
}
