//! `up`: everything in one process, with private servers where none are given.

use anyhow::bail;

use super::{Context, Ending};

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// Remove the data directory in the end: for rehearsals
    #[arg(long, hide = true)]
    throwaway: bool,
    /// Stop when standard input ends: whoever started this is gone then
    #[arg(long, hide = true)]
    until_stdin_ends: bool,
}

pub(super) async fn run(_context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    bail!("`up` is not wired up yet: {arguments:?}")
}
