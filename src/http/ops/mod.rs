//! What operators ask and do over REST. Each route is one call into [`crate::operations`], as on the command line.

pub mod queues;
pub mod sagas;
pub mod saga_acts;
pub mod acts;
pub mod parked;
pub mod tail;
