//! Volumes that `restore` brings back. As long as one is there, the offset that its name leads to is held: a new worktree
//! with that offset would open an old worktree's data.

use super::gc::{EngineId, Volume};
use super::names::VolumeName;
use super::offset::Offset;

/// The label that says by which restoring a volume was made.
pub const RESTORE_LABEL: &str = "dev.wtd.restore";

/// A volume that is being restored or was, as it is recorded before anything of it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restoring {
    /// Its id, which the volume has as a label.
    pub id: String,
    /// The engine.
    pub engine: EngineId,
    /// Where the engine was reached.
    pub host: String,
    /// The volume.
    pub volume: VolumeName,
    /// The offset that its name leads to, if any.
    pub offset: Option<Offset>,
    /// Whether it has ended, well or not. Until then the volume is half filled, if it is there.
    pub has_ended: bool,
}

impl Restoring {
    /// Whether this volume is the one that it made.
    pub fn made(&self, volume: &Volume) -> bool {
        volume.name == self.volume.as_str() && volume.labels.get(RESTORE_LABEL) == Some(&self.id)
    }
}

/// The offset of the worktrees that would open a volume of this name: `<stem>_<offset>` as wtd names it, or
/// `<project>-<offset>_<volume>` as Compose does. `project`: the Compose project in its label.
pub fn offset_of(volume: &VolumeName, project: Option<&str>) -> Option<Offset> {
    let is_of = |project: &&str| volume.as_str().strip_prefix(project).is_some_and(|it| it.starts_with('_'));
    let project = project.filter(is_of);
    let after = |text: &str, mark| text.rsplit_once(mark)?.1.parse().ok().map(Offset);
    project.and_then(|project| after(project, '-')).or_else(|| after(volume.as_str(), '_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volumes_name_leads_to_the_offset_of_the_worktrees_that_would_open_it() {
        let of = |name: &str, project: Option<&str>| {
            offset_of(&VolumeName::new(name).unwrap(), project).map(|offset| offset.0)
        };
        assert_eq!(of("db_data_10000", None), Some(10_000));
        assert_eq!(of("db_data_10000", Some("shop-20000")), Some(10_000));
        assert_eq!(of("shop-20000_cache", Some("shop-20000")), Some(20_000));
        assert_eq!(of("shop-20000_cache_7", Some("shop-20000")), Some(20_000));
        assert_eq!(of("shop_cache", Some("shop")), None);
        assert_eq!(of("db_data_70000", None), None);
        assert_eq!(of("mine", None), None);
    }
}
