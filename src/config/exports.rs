//! Settings of exports.

use std::time::Duration;

use clap::Args;

/// What one export may take.
#[derive(Args, Clone, Debug)]
pub struct Exports {
    /// How long one export may take, in seconds. Its snapshot keeps Postgres from removing dead rows; an export that is cut off
    /// goes on from its last cursor
    #[arg(long, env = "BOXOFFICE_EXPORT_SECONDS", global = true, default_value_t = 300,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub export_seconds: u32,
}

impl Exports {
    /// How long one export may take.
    pub fn time(&self) -> Duration {
        Duration::from_secs(self.export_seconds.into())
    }
}
