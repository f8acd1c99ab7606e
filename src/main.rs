//! The program `boxoffice`: reads the command, runs it, ends with its exit code.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    boxoffice::cli::main().await
}
