//! `guestmend`: parse the arguments, run, turn the outcome into an exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    guestmend::cli::run(std::env::args_os())
}
