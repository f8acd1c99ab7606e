//! Settings of the gate: when a ticket admits.

use chrono::TimeDelta;
use clap::Args;

/// When a ticket admits to its performance.
#[derive(Args, Clone, Debug)]
pub struct Gate {
    /// How long before a performance starts its tickets can be redeemed, in minutes
    #[arg(long, env = "BOXOFFICE_GATE_BEFORE_MINUTES", global = true, default_value_t = 360,
          value_parser = clap::value_parser!(u32).range(0..=525_600))]
    pub gate_before_minutes: u32,
    /// How long after a performance has started its tickets can be redeemed, in minutes
    #[arg(long, env = "BOXOFFICE_GATE_AFTER_MINUTES", global = true, default_value_t = 720,
          value_parser = clap::value_parser!(u32).range(0..=525_600))]
    pub gate_after_minutes: u32,
}

impl Gate {
    /// How long before the start tickets can be redeemed.
    pub fn before(&self) -> TimeDelta {
        TimeDelta::minutes(self.gate_before_minutes.into())
    }

    /// How long after the start tickets can be redeemed.
    pub fn after(&self) -> TimeDelta {
        TimeDelta::minutes(self.gate_after_minutes.into())
    }
}
