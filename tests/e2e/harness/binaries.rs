//! The programs under their own names, side by side as they are installed: the client starts the `wtd` beside
//! its own executable.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// The directory with `wtd` and `wtd-client`, as built for this run.
pub(crate) fn directory() -> &'static Path {
    static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();
    DIRECTORY.get_or_init(|| {
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("bin");
        fs::create_dir_all(&directory).unwrap();
        for (built, name) in [
            (env!("CARGO_BIN_EXE_wtd-e2e-daemon"), "wtd"),
            (env!("CARGO_BIN_EXE_wtd-e2e-client"), "wtd-client"),
        ] {
            // By rename: another run may use the ones of before at this moment.
            let draft = directory.join(format!("{name}.{}", std::process::id()));
            drop(fs::remove_file(&draft));
            if fs::hard_link(built, &draft).is_err() {
                // Another file system. Not by this process: a file that it has open for writing, if only in what
                // another thread has just forked, can't be run (ETXTBSY).
                assert!(Command::new("cp").arg(built).arg(&draft).status().unwrap().success());
            }
            fs::rename(&draft, directory.join(name)).unwrap();
            // Renaming one link of a file onto another does nothing (rename(2)).
            drop(fs::remove_file(&draft));
        }
        directory
    })
}
