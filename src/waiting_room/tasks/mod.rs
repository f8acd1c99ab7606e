//! The background tasks of every instance. Each runs until the process stops.

pub mod bucket_watch;
pub mod bucket_records;
pub mod readiness;
pub mod write_pending;
pub mod payment_events;
pub mod reload_settings;
pub mod lottery_draw;
pub mod heartbeats;
pub mod load_feedback;
