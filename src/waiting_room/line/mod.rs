//! The lines in the memory of this instance: who waits at which rank, who is active, whose place is over.
//!
//! Nothing here waits for anything. [`memory`] is the lock around it, [`queue`] one concert's line, [`ranks`] the array
//! that knows everybody's rank.

#[cfg(test)]
mod hostile;
#[cfg(test)]
mod restored_laws;
mod passes;
mod memory;
mod lines;
#[cfg(test)]
mod laws;
mod queue;
mod view;
mod changes;
mod order;
mod entries;
mod ends;
mod pause;
mod deadlines;
mod tally;
mod pace;
mod era;
mod rate;
mod ranks;
mod lot;

pub use self::changes::{Change, Changes, Key};
pub use self::ends::End;
#[cfg(test)]
pub use self::ends::Ends;
pub use self::entries::Handle;
pub use self::era::Era;
pub use self::lines::Lines;
pub use self::lot::{Draw, Lot};
pub use self::memory::{LeaseSeen, Memory, News};
pub use self::passes::SLICE;
pub use self::pause::{patience, poll_after, poll_early, seconds};
pub use self::queue::{Queue, View};
pub use self::rate::{LastMinute, Permits};
pub use self::tally::Tally;
