//! Who may pass, and what was granted or ended here and is still to be written.

mod gate;
mod promises;
mod returning;

pub use self::gate::{Judged, PassState, Refused, identify, identify_for, judge};
pub use self::promises::{Key, Need, Promise, Promises};
