//! The table `[database]`.

use toml::de::{DeTable, DeValue};

use super::{Parser, Value, wanted};
use crate::domain::database_url::DatabaseUrl;
use crate::domain::names::{DatabaseName, is_database_stem};
use crate::domain::project::DatabaseMode;
use crate::text::excerpt;

impl Parser<'_> {
    pub(super) fn database(&mut self, database: &DeTable<'_>) {
        self.know(
            database,
            "database.",
            &["mode", "name", "name_per_worktree", "volume", "template", "url", "seed"],
        );
        if let Some(value) = database.get("mode")
            && let Some(word) = self.string("database.mode", value)
        {
            if let Some(mode) = DatabaseMode::from_word(word) {
                self.project.database_mode = mode;
            } else {
                let modes = DatabaseMode::ALL.map(DatabaseMode::as_str).join(", ");
                let reason = format!("{:?} is not one of {modes}", excerpt(word));
                self.complain("database.mode", value.span(), reason);
            }
        }
        if let Some(value) = database.get("name")
            && let Some(name) = self.string("database.name", value)
        {
            if is_database_stem(name) {
                name.clone_into(&mut self.project.database_stem);
                self.project.database_stem_is_configured = true;
            } else {
                let reason =
                    format!("{:?}: use letters, digits, _ and -, and don't begin with -", excerpt(name));
                self.complain("database.name", value.span(), reason);
            }
        }
        self.name_per_worktree(database.get("name_per_worktree"));
        if let Some(value) = database.get("volume")
            && let Some(volume) = self.volume_stem("database.volume", value)
        {
            self.project.volume_stem = volume;
            self.project.volume_stem_is_configured = true;
        }
        if let Some(value) = database.get("template") {
            self.template(value);
        }
        if let Some(value) = database.get("url") {
            self.url(value);
        }
        if let Some(value) = database.get("seed") {
            self.seed(value);
        }
    }

    /// The name of a database to copy. It is no more than a name, so it needs no trust.
    fn template(&mut self, value: &Value<'_>) {
        const KEY: &str = "database.template";
        let Some(name) = self.string(KEY, value) else { return };
        if self.project.database_mode != DatabaseMode::Database {
            let reason = "only in mode \"database\" does a worktree have a database to be made from it";
            return self.complain(KEY, value.span(), reason);
        }
        match DatabaseName::new(name) {
            Ok(name) => self.project.database_template = Some(name),
            Err(error) => self.complain(KEY, value.span(), error),
        }
    }

    /// Whose database a new worktree begins with. It takes trust: it has the project's own image run.
    fn seed(&mut self, value: &Value<'_>) {
        const KEY: &str = "database.seed";
        let Some(whose) = self.string(KEY, value) else { return };
        if self.project.database_mode != DatabaseMode::Isolated {
            let reason = "only in mode \"isolated\" does a worktree have a volume to be filled";
            return self.complain(KEY, value.span(), reason);
        }
        if whose == "main" {
            self.project.seeds_from_main = true;
        } else {
            let reason =
                format!("{:?} is not \"main\", which is all that can be written here", excerpt(whose));
            self.complain(KEY, value.span(), reason);
        }
    }

    /// Where the daemon finds the server. It may have a password in it, so no complaint repeats it.
    fn url(&mut self, value: &Value<'_>) {
        const KEY: &str = "database.url";
        let Some(text) = self.string(KEY, value) else { return };
        if !matches!(self.project.database_mode, DatabaseMode::Database | DatabaseMode::Schema) {
            let reason = "only in the modes \"database\" and \"schema\" does wtd come to a server";
            return self.complain(KEY, value.span(), reason);
        }
        match DatabaseUrl::parse(text) {
            Ok(url) => self.project.database_url = Some(url),
            Err(error) => self.complain(KEY, value.span(), error),
        }
    }

    /// Only where each worktree has a server of its own is there a choice: in the other modes the mode says
    /// whether worktrees share a database, and a name that says otherwise could make gc drop a shared one.
    fn name_per_worktree(&mut self, value: Option<&Value<'_>>) {
        const KEY: &str = "database.name_per_worktree";
        let mode = self.project.database_mode;
        self.project.database_name_per_worktree = mode.names_per_worktree();
        let Some(value) = value else { return };
        match value.get_ref() {
            DeValue::Boolean(choice) if mode == DatabaseMode::Isolated => {
                self.project.database_name_per_worktree = *choice;
            }
            DeValue::Boolean(choice) if *choice == mode.names_per_worktree() => {}
            DeValue::Boolean(choice) => {
                self.complain(
                    KEY,
                    value.span(),
                    format_args!("it is always {} in mode {:?}", !choice, mode.as_str()),
                );
            }
            other => self.complain(KEY, value.span(), wanted("true or false", other)),
        }
    }
}
