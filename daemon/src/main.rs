//! The one binary: arguments to an exit code.

use std::env;
use std::process::ExitCode;

use tacit::{app, cli};

fn main() -> ExitCode {
    let program = cli::Program {
        run: app::run,
        doctor: app::doctor_without_daemon,
        uninstall: app::uninstall,
    };
    cli::main(env::args_os(), &program)
}
