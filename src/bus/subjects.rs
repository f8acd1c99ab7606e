//! The names of the service's own buckets and subjects, beside those of the saga protocol. The settings are in
//! [`super::topology`].

pub use saga_protocol::subjects::*;
use uuid::Uuid;

/// The KV bucket of the places in line.
pub const QUEUE_TOKENS: &str = "queue_tokens";
/// The stream beneath that bucket.
pub const QUEUE_TOKENS_STREAM: &str = "KV_queue_tokens";
/// The key of the marker that says that this bucket holds all that the journal had of earlier ones.
pub const QUEUE_RESTORED: &str = "journal.restored";
/// The key of the lease under which one instance admits.
pub const QUEUE_LEASE: &str = "lease.admission";

/// The KV bucket of the locks that a benchmark holds against others; it is made for a run and deleted after it.
pub const RIVAL_LOCKS: &str = "rival_locks";

/// Core NATS, not stored: one message per batch that changed seats, for instances that keep maps of them.
pub const SEATS_CHANGED: &str = "catalog.seats";
/// Core NATS, not stored: a concert was added, or a date of one.
pub const CONCERTS_CHANGED: &str = "catalog.concerts";
/// Core NATS, not stored: the settings of a line were changed.
pub const QUEUE_SETTINGS: &str = "queue.settings";
/// Core NATS, not stored: the bucket of places was missing and has been made.
pub const QUEUE_BUCKET: &str = "queue.bucket";
/// Core NATS, not stored: an instance says which users in line were active lately.
pub const QUEUE_HEARD: &str = "queue.heard";
/// Core NATS, request and reply: an operator asks the instance that admits to admit some more at once.
pub const QUEUE_ADMIT: &str = "queue.admit";

/// Core NATS, not stored: every instance says how long holds take there, while any line has a brake.
pub const QUEUE_HOLDS: &str = "queue.holds";

/// The key of a user's place in the line of a concert.
pub fn queue_place(concert: Uuid, user: Uuid) -> String {
    format!("{concert}.{user}")
}

/// Where a key of the bucket of places is published.
pub fn queue_key(key: &str) -> String {
    format!("$KV.{QUEUE_TOKENS}.{key}")
}

/// Where a key of the bucket [`RIVAL_LOCKS`] is published.
pub fn rival_lock(key: &str) -> String {
    format!("$KV.{RIVAL_LOCKS}.{key}")
}
