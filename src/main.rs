//! Exit codes and nothing else: parses the arguments, calls what does the work, prints the chain of causes.

use clap::Parser;
use clap::error::ErrorKind;
use std::io::Write;
use std::process::ExitCode;
use veildns::cli::{Cli, exit};

/// What allocates: of the C library's, most of what a miss allocates and frees takes the slow way.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            #[cfg(not(feature = "tools"))]
            if let Some(text) = veildns::cli::left_out(&error) {
                let _ = writeln!(std::io::stderr(), "veildns: {text}");
                return ExitCode::from(exit::USAGE);
            }
            // Help and version go to standard output and are no error.
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            let printed = error.print();
            return if asked && printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(exit::USAGE) };
        }
    };
    match veildns::control::command(cli.into_command()) {
        Ok(code) => code.into(),
        Err(error) => {
            // Nobody may be reading; the exit code says it too.
            let _ = writeln!(std::io::stderr(), "veildns: {}", error.message());
            error.exit_code().into()
        }
    }
}
