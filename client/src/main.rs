//! The program `wtd-client`; all of it is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wtd_client::main()
}
