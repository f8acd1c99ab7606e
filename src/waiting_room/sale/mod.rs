//! What is known of each sale: its settings and its stock, how fast its line may move, and whether it stands still.

mod sales;
mod stage;
mod brakes;
mod brake;
mod stalls;

pub use self::brake::{Brake, BrakeState, Limits, Range};
pub use self::brakes::{Brakes, HoldReport};
pub use self::sales::{Sale, Sales};
pub use self::stalls::Stalls;
