//! `serve`: some roles of the service, against a given Postgres and NATS.

use anyhow::bail;

use super::{Context, Ending};
use crate::app::Role;

#[derive(clap::Args, Debug)]
pub(super) struct Arguments {
    /// What this process does, separated by commas
    #[arg(long, value_delimiter = ',', required = true)]
    role: Vec<Role>,
}

pub(super) async fn run(_context: &Context, arguments: &Arguments) -> anyhow::Result<Ending> {
    bail!("serving {:?} is not wired up yet", arguments.role)
}
