//! Settings of webhooks.

use clap::Args;

/// Where webhooks may go.
#[derive(Args, Clone, Debug)]
pub struct Webhooks {
    /// Lets webhooks go to private addresses and by plain HTTP; without it they go to public addresses by HTTPS only
    #[arg(long, env = "BOXOFFICE_WEBHOOKS_PRIVATE", global = true, default_value_t = false, num_args = 0..=1, default_missing_value = "true")]
    pub webhooks_private: bool,
}
