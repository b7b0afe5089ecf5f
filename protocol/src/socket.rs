//! Where the daemon's socket and registry are, from the environment (XDG Base Directory Specification).

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The socket's file name, and the name of the directory that holds it.
pub const FILE_NAME: &str = "wtd.sock";

/// The longest path that a Unix socket's address holds on Linux, in bytes: 108 with the final NUL (unix(7)).
pub const MAX_PATH_BYTES: usize = 107;

/// What `wtd --detached` writes on its standard output once it serves: this line.
pub const READY: &str = "ready";

/// What it writes instead when it can't serve and no other daemon does: this, and why, in one line.
pub const FAILED: &str = "failed: ";

/// The places where a socket may be, best first: `WTD_SOCKET` alone when it is set, else the runtime
/// directories, else the state directory. `variable` looks up the environment.
pub fn candidates(variable: impl Fn(&str) -> Option<OsString>, uid: u32) -> Vec<PathBuf> {
    if let Some(socket) = non_empty(variable("WTD_SOCKET")) {
        return vec![socket.into()];
    }
    let mut candidates = Vec::with_capacity(3);
    if let Some(runtime) = absolute(variable("XDG_RUNTIME_DIR")) {
        candidates.push(runtime.join("wtd").join(FILE_NAME));
    }
    let run_user = Path::new("/run/user").join(uid.to_string()).join("wtd").join(FILE_NAME);
    if !candidates.contains(&run_user) {
        candidates.push(run_user);
    }
    if let Some(state) = state_dir(variable) {
        candidates.push(state.join(FILE_NAME));
    }
    candidates
}

/// The state directory: `WTD_STATE_DIR`, else `$XDG_STATE_HOME/wtd`, else `~/.local/state/wtd`.
pub fn state_dir(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    if let Some(dir) = non_empty(variable("WTD_STATE_DIR")) {
        return Some(dir.into());
    }
    absolute(variable("XDG_STATE_HOME"))
        .or_else(|| absolute(variable("HOME")).map(|home| home.join(".local/state")))
        .map(|base| base.join("wtd"))
}

fn non_empty(value: Option<OsString>) -> Option<OsString> {
    value.filter(|value| !value.is_empty())
}

/// A base directory that is not absolute is invalid and is ignored, as the specification says.
fn absolute(value: Option<OsString>) -> Option<PathBuf> {
    non_empty(value).map(PathBuf::from).filter(|path| path.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(environment: &[(&str, &str)]) -> Vec<PathBuf> {
        let look_up =
            |name: &str| environment.iter().find(|(n, _)| *n == name).map(|(_, value)| OsString::from(value));
        candidates(look_up, 1000)
    }

    #[test]
    fn the_order_is_the_contracts() {
        assert_eq!(
            places(&[("WTD_SOCKET", "/x/y.sock"), ("XDG_RUNTIME_DIR", "/run/user/7")]),
            [Path::new("/x/y.sock")]
        );
        assert_eq!(
            places(&[("XDG_RUNTIME_DIR", "/r"), ("HOME", "/h")]),
            [
                Path::new("/r/wtd/wtd.sock"),
                Path::new("/run/user/1000/wtd/wtd.sock"),
                Path::new("/h/.local/state/wtd/wtd.sock")
            ]
        );
        assert_eq!(
            places(&[("XDG_RUNTIME_DIR", "relative"), ("XDG_STATE_HOME", "/s"), ("WTD_SOCKET", "")]),
            [Path::new("/run/user/1000/wtd/wtd.sock"), Path::new("/s/wtd/wtd.sock")]
        );
    }
}
