//! The name of the database in a copy.

use super::helpers::last_line;
use super::{Run, Stop, data_directory};
use crate::domain::seed::{Copy, Rename};
use crate::engine::Helper;

/// Renames a database by a server of one process that listens nowhere (postgres(1), "Options for Single-User Mode").
/// What it can't do it says with the error's code, in whatever language.
const RENAME: &str = r#"printf '%s\n' "$WTD_SQL" | exec postgres --single -D "$PGDATA" -c logging_collector=off \
    -c log_destination=stderr -c log_error_verbosity=verbose template1"#;

impl Run {
    /// Gives the database in the copy the name that the worktree's has; a note where that can't be done.
    pub(super) async fn rename(&self, copy: &Copy, rename: &Rename) -> Result<Option<String>, Stop> {
        let left = |why: &str| {
            Some(format!("the database in volume {} is still called {}: {why}", copy.volume, rename.from))
        };
        let held = self.connection.hold(&copy.volume, true, &self.seeds.0.owner).await?;
        let version = format!("{}PG_VERSION", data_directory(copy).unwrap_or_default());
        let owner = self.connection.owner_in_volume(&held, &version).await;
        self.connection.let_go(held).await?;
        let Some(owner) = owner? else { return Ok(left("there is no PG_VERSION in the volume")) };
        // Neither name has a quotation mark or a line's end (`DatabaseName`).
        let sql = format!("ALTER DATABASE \"{}\" RENAME TO \"{}\"", rename.from, rename.to);
        let helper = Helper {
            image: &rename.image,
            command: ["sh", "-c", RENAME].map(str::to_owned).to_vec(),
            env: vec![format!("WTD_SQL={sql}"), format!("PGDATA={}", rename.data_directory)],
            owner,
            volume: (&copy.volume, &rename.mount),
            network_of: None,
        };
        let (id, output) = self.connection.start_helper(helper, &self.seeds.0.owner).await?;
        let (said, _) = self.listen(output).await?;
        let code = self.ended(&id).await?;
        let is_there = |code: &str| said.contains(&format!("{code}: "));
        Ok(if code != 0 {
            left(&last_line(&said))
        } else if is_there("3D000") || is_there("42P04") {
            // The project names its database itself (invalid_catalog_name), or has one of the new name already.
            None
        } else {
            said.lines().find_map(|line| line.split_once("ERROR:")).and_then(|(_, why)| left(why.trim()))
        })
    }
}
