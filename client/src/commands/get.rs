//! `get KEY`: one value, bare, for a Makefile.

use std::os::unix::ffi::OsStrExt as _;

use crate::cli::GetArgs;
use crate::daemon::Daemon;
use crate::environment::Environment;
use crate::error::Error;
use crate::output;

/// Prints the value of one variable and a newline.
pub(crate) fn run(daemon: &Daemon, args: &GetArgs) -> Result<(), Error> {
    let environment = Environment::of(daemon, args.path.as_deref(), &mut || {})?;
    environment.tell_mistakes("get");
    let value = environment.value(&args.key)?;
    output::bytes(&[value.as_bytes(), b"\n"].concat())
}
