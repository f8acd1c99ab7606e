//! What operators ask and do over REST. Each route is one call into [`crate::operations`], as on the command line.

pub mod queues;
pub mod sagas;
pub mod overview;
pub mod batch_jobs;
pub mod batch;
pub mod pauses;
pub mod acts;
pub mod parked;
pub mod tail;
pub mod saga_acts;
