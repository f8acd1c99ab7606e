//! Settings of waiting rooms.

use clap::Args;

/// Defaults of a new concert's line, and the life of a place in it.
#[derive(Args, Clone, Debug)]
pub struct Queue {
    /// Most users active at once, for new concerts
    #[arg(long, env = "BOXOFFICE_QUEUE_MAX_ACTIVE", global = true, default_value_t = 1_000,
          value_parser = clap::value_parser!(i32).range(0..=1_000_000))]
    pub queue_max_active: i32,
    /// Users admitted per minute, for new concerts
    #[arg(long, env = "BOXOFFICE_QUEUE_ADMIT_PER_MINUTE", global = true, default_value_t = 6_000,
          value_parser = clap::value_parser!(i32).range(0..=6_000_000))]
    pub queue_admit_per_minute: i32,
    /// How long an admitted user may book, in seconds
    #[arg(long, env = "BOXOFFICE_QUEUE_SESSION_SECONDS", global = true, default_value_t = 600,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub queue_session_seconds: u32,
    /// How long after the admission a session may last at most, however often its user holds seats, in seconds
    #[arg(long, env = "BOXOFFICE_QUEUE_SESSION_MAX_SECONDS", global = true, default_value_t = 1_800,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub queue_session_max_seconds: u32,
    /// How long an admitted user may wait with the first use, in seconds
    #[arg(long, env = "BOXOFFICE_QUEUE_CLAIM_SECONDS", global = true, default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub queue_claim_seconds: u32,
    /// How slow the slowest of a hundred holds may be before lines with a brake slow down, in milliseconds
    #[arg(long, env = "BOXOFFICE_QUEUE_BRAKE_HOLD_MS", global = true, default_value_t = 400,
          value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub queue_brake_hold_ms: u32,
    /// How many sagas may be overdue by two seconds before lines with a brake slow down
    #[arg(long, env = "BOXOFFICE_QUEUE_BRAKE_BACKLOG", global = true, default_value_t = 100,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub queue_brake_backlog: u32,
    /// How often the brake looks, in milliseconds; with another pace it falls and recovers in another time
    #[arg(long, env = "BOXOFFICE_QUEUE_BRAKE_EVERY_MS", global = true, default_value_t = 2_000, hide = true,
          value_parser = clap::value_parser!(u32).range(100..=60_000))]
    pub queue_brake_every_ms: u32,
    /// How long a user in line may be silent before others are admitted first, in seconds; never less than
    /// three of the pauses that they were asked for (up to 90)
    #[arg(long, env = "BOXOFFICE_QUEUE_SILENCE_SECONDS", global = true, default_value_t = 60,
          value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub queue_silence_seconds: u32,
    /// How long the place of a user who went silent is kept, in seconds
    #[arg(long, env = "BOXOFFICE_QUEUE_GRACE_SECONDS", global = true, default_value_t = 180,
          value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub queue_grace_seconds: u32,
    /// Most event streams of places in line that one instance keeps open
    #[arg(long, env = "BOXOFFICE_QUEUE_STREAMS", global = true, default_value_t = 1_000,
          value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub queue_streams: u32,
    /// Most of them of one user; opening one more ends the oldest
    #[arg(long, env = "BOXOFFICE_QUEUE_STREAMS_PER_USER", global = true, default_value_t = 5,
          value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub queue_streams_per_user: u32,
    /// How often one user may ask for a place in line per minute, on each instance; 0 sets no limit
    #[arg(long, env = "BOXOFFICE_QUEUE_JOINS_PER_MINUTE", global = true, default_value_t = 60)]
    pub queue_joins_per_minute: u32,
    /// The same for one address (of IPv6: a network of 64 bits); 0 sets no limit
    #[arg(long, env = "BOXOFFICE_QUEUE_JOINS_PER_ADDRESS_PER_MINUTE", global = true, default_value_t = 0)]
    pub queue_joins_per_address_per_minute: u32,
}
