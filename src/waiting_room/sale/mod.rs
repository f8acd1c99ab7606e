//! The state of each sale: settings, stock, the rate of its line, and whether the line stands still.

mod sales;
mod phase;
mod throttles;
mod throttle;
mod stall_detector;

pub use self::sales::{Sale, Sales};
pub use self::stall_detector::StallDetector;
pub use self::throttle::{Limits, Range, Throttle, ThrottleState};
pub use self::throttles::{HoldReport, Throttles};
