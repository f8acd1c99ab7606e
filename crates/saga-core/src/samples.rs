//! The workflows of the box office, and one with groups of parallel steps, for tests.

use super::Definition;

/// A group between two steps, and another group after the pivot.
const JOURNEY: &str = "
name = 'journey'
version = 1
pivot = 'pay'
[[steps]]
name = 'quote'
command = 'agent.quote'
undo = 'agent.forget'
[[steps]]
name = 'bookings'
[[steps.parallel]]
name = 'hotel'
command = 'hotel.book'
undo = 'hotel.cancel'
retry = { attempts = 2 }
[[steps.parallel]]
name = 'flight'
command = 'flight.book'
undo = 'flight.cancel'
deadline = { seconds = 60, reason = 'no_flight' }
timeout_ms = 2000
[[steps.parallel]]
name = 'car'
command = 'car.book'
undo = 'car.cancel'
[[steps]]
name = 'pay'
command = 'bank.pay'
undo = 'bank.refund'
[[steps]]
name = 'letters'
parallel = [
    { name = 'voucher', command = 'post.voucher' },
    { name = 'invoice', command = 'post.invoice' },
]
";

pub fn workflow(name: &str) -> Definition {
    let text = match name {
        "booking" => include_str!("../../../workflows/booking.toml"),
        "cancellation" => include_str!("../../../workflows/cancellation.toml"),
        "journey" => JOURNEY,
        other => panic!("there is no sample {other}"),
    };
    Definition::parse(name, text).expect("the sample is valid")
}
