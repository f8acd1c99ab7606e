//! What happened so far: counts, latencies, and answers that no buyer should have had.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// How many surprises are kept in words; all are counted.
const KEPT_SURPRISES: usize = 20;

/// Calls longer than this count as this long, in microseconds.
const LONGEST_MICROS: u64 = 60_000_000;

/// The kinds of calls that are timed apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    /// A new user, or points charged to one.
    Account,
    /// Joining and leaving the line.
    Join,
    /// Asking for one's place.
    Place,
    /// Reading dates and seats.
    Browse,
    Reserve,
    Pay,
    Cancel,
    /// Reading one's own reservation or balance.
    Own,
}

impl Call {
    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Account => "sign up, charge points",
            Self::Join => "join, leave the line",
            Self::Place => "ask for the place",
            Self::Browse => "read dates, seats",
            Self::Reserve => "reserve",
            Self::Pay => "pay",
            Self::Cancel => "cancel",
            Self::Own => "read own reservation, points",
        }
    }
}

/// The counted events of a buyer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Happening {
    Joined,
    Admitted,
    /// Learned when joining, or in line, that no seat is left.
    SoldOut,
    /// Gave up after their longest wait, in line or without a seat.
    GaveUp,
    Held,
    /// Lost a seat to a faster buyer.
    Conflict,
    Paid,
    Expired,
    /// Had too few points at first.
    Short,
    ToppedUp,
    CancelledHold,
    CancelledTicket,
    /// An answer 202: not settled at once.
    Delayed,
    /// An answer 429 or 503, after which the call was made again.
    Busy,
}

impl Happening {
    /// All of them, in the order of the table.
    pub const ALL: [Self; 14] = [
        Self::Joined,
        Self::Admitted,
        Self::SoldOut,
        Self::GaveUp,
        Self::Held,
        Self::Conflict,
        Self::Paid,
        Self::Expired,
        Self::Short,
        Self::ToppedUp,
        Self::CancelledHold,
        Self::CancelledTicket,
        Self::Delayed,
        Self::Busy,
    ];

    /// As the table shows it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Joined => "joined the line",
            Self::Admitted => "admitted",
            Self::SoldOut => "learned that it is sold out",
            Self::GaveUp => "gave up",
            Self::Held => "holds",
            Self::Conflict => "conflicts (seat taken)",
            Self::Paid => "paid",
            Self::Expired => "expired unpaid",
            Self::Short => "short of points",
            Self::ToppedUp => "topped up",
            Self::CancelledHold => "cancelled a hold",
            Self::CancelledTicket => "cancelled a ticket",
            Self::Delayed => "answered later (202)",
            Self::Busy => "asked to try again (429, 503)",
        }
    }
}

/// The latencies of one kind of call, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    pub calls: u64,
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

#[derive(Default)]
struct Kept {
    counts: BTreeMap<Happening, u64>,
    latencies: BTreeMap<Call, Histogram<u64>>,
    surprises: Vec<String>,
    surprised: u64,
}

/// Shared by all buyers.
#[derive(Default)]
pub struct Tally {
    kept: Mutex<Kept>,
}

impl Tally {
    /// Counts one.
    pub fn count(&self, happening: Happening) {
        *self.kept().counts.entry(happening).or_default() += 1;
    }

    /// How many there were.
    pub fn counted(&self, happening: Happening) -> u64 {
        self.kept().counts.get(&happening).copied().unwrap_or(0)
    }

    /// Notes how long a call took.
    pub fn time(&self, call: Call, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut kept = self.kept();
        let histogram = kept.latencies.entry(call).or_insert_with(|| {
            Histogram::new_with_bounds(1, LONGEST_MICROS, 3).expect("the bounds are those of a histogram")
        });
        histogram.saturating_record(micros);
    }

    /// Records an answer that should not have come.
    pub fn surprise(&self, what: impl Display) {
        let mut kept = self.kept();
        kept.surprised += 1;
        if kept.surprises.len() < KEPT_SURPRISES {
            kept.surprises.push(what.to_string());
        }
    }

    /// How many surprises there were, and the first of them.
    pub fn surprises(&self) -> (u64, Vec<String>) {
        let kept = self.kept();
        (kept.surprised, kept.surprises.clone())
    }

    /// The latencies by kind of call, as far as there were any.
    pub fn latencies(&self) -> Vec<(Call, Latency)> {
        let ms = |micros: u64| (micros / 10) as f64 / 100.0;
        let kept = self.kept();
        let read = |histogram: &Histogram<u64>| Latency {
            calls: histogram.len(),
            p50_ms: ms(histogram.value_at_quantile(0.50)),
            p95_ms: ms(histogram.value_at_quantile(0.95)),
            p99_ms: ms(histogram.value_at_quantile(0.99)),
            max_ms: ms(histogram.max()),
        };
        kept.latencies.iter().map(|(call, histogram)| (*call, read(histogram))).collect()
    }

    /// A buyer that panicked has counted nothing halfway: the counts stay good.
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_in_milliseconds() {
        let tally = Tally::default();
        for ms in 1..=100 {
            tally.time(Call::Pay, Duration::from_millis(ms));
        }
        let (call, latency) = tally.latencies()[0];
        assert_eq!((call, latency.calls), (Call::Pay, 100));
        assert!((latency.p50_ms - 50.0).abs() < 0.5, "{latency:?}");
        assert!((latency.p99_ms - 99.0).abs() < 0.5, "{latency:?}");
    }

    #[test]
    fn surprises_are_counted_first_ones_kept() {
        let tally = Tally::default();
        for n in 0..30 {
            tally.surprise(format!("surprise {n}"));
        }
        let (count, kept) = tally.surprises();
        assert_eq!((count, kept.len()), (30, KEPT_SURPRISES));
        assert_eq!(kept[0], "surprise 0");
    }
}
