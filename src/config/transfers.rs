//! Settings of transfers of tickets between users.

use chrono::TimeDelta;
use clap::Args;

use super::Switch;

/// Whether users may give tickets to others.
#[derive(Args, Clone, Debug)]
pub struct Transfers {
    /// Whether users may give their tickets to other users
    #[arg(long, env = "BOXOFFICE_TRANSFERS", global = true, value_enum, default_value_t = Switch::Off)]
    pub transfers: Switch,
    /// How long the link of a transfer can be used, in hours; it ends with the start of the performance at the latest
    #[arg(long, env = "BOXOFFICE_TRANSFER_HOURS", global = true, default_value_t = 48,
          value_parser = clap::value_parser!(u32).range(1..=8_760))]
    pub transfer_hours: u32,
}

impl Transfers {
    /// How long a link can be used; none where transfers are off.
    pub fn ttl(&self) -> Option<TimeDelta> {
        (self.transfers == Switch::On).then(|| TimeDelta::hours(self.transfer_hours.into()))
    }
}
