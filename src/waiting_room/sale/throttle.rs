//! The throttle: the rate of a line while the service is loaded, as a pure function.
//!
//! Every two seconds the leader takes the slowest holds of all instances and the number of overdue sagas. Above a
//! limit the rate falls, and reaches the minimum within half a minute. Below half of the limits it recovers within a
//! minute and a half. In between it stays.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::queue::{FASTEST, QueueSettings};

/// The part of the excess over the minimum that is removed at each step.
const FALL_PART: f64 = 1.0 / 3.0;
/// The smallest step down, as a part of the whole range, so that the minimum is reached.
const MIN_FALL_PART: f64 = 1.0 / 20.0;
/// The step up, as a part of the whole range.
const RISE_PART: f64 = 1.0 / 40.0;
/// Below this part of the limits the rate recovers.
const RECOVERY_LOAD: f64 = 0.5;

/// Limit of a reason that is read, in bytes. Reasons that are written have at most a few hundred.
const REASON_BYTES_MAX: usize = 1_000;

/// Above these limits the service counts as overloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The p99 of holds.
    pub hold: Duration,
    /// Overdue sagas.
    pub backlog: u32,
    /// How often the throttle decides.
    pub every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hold: Duration::from_millis(400), backlog: 100, every: Duration::from_secs(2) }
    }
}

/// The measured load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// The p99 of holds on the slowest instance; `None` if there were too few.
    pub hold: Option<Duration>,
    /// Overdue sagas; `None` if the database did not answer.
    pub backlog: Option<u32>,
}

/// The range of a line's rate, in admissions per minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    floor: f64,
    ceiling: f64,
    start: f64,
}

/// What the throttle does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = BrakeState)]
pub enum ThrottleState {
    /// The rate is the highest.
    Released,
    /// The service is overloaded, and the rate falls.
    Falling,
    /// The service is overloaded, and the rate is the lowest.
    AtFloor,
    /// The load is between the limits, and the rate stays.
    Holding,
    /// The load is low, and the rate rises.
    Recovering,
}

/// The throttle of a line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Brake)]
pub struct Throttle {
    /// What the throttle does.
    pub state: ThrottleState,
    /// Admissions per minute in force.
    pub rate: f64,
    /// The reason, as one sentence.
    pub reason: String,
    /// The p99 of holds on the slowest instance, in milliseconds; null if there were too few lately.
    pub hold_p99_ms: Option<u64>,
    /// Sagas that are overdue by more than two seconds; null if the database did not answer.
    pub backlog: Option<u32>,
}

impl Range {
    /// `None` if the throttle is off: it needs both bounds.
    pub fn of(settings: &QueueSettings) -> Option<Self> {
        let (floor, ceiling) = settings.min_rate.zip(settings.max_rate)?;
        let start = settings.admit_per_minute.clamp(floor, ceiling.max(floor));
        Some(Self { floor: floor.into(), ceiling: ceiling.max(floor).into(), start: start.into() })
    }

    /// The rate limited to the range; without a rate, the configured one.
    pub fn within(&self, rate: Option<f64>) -> f64 {
        rate.unwrap_or(self.start).clamp(self.floor, self.ceiling)
    }
}

impl Throttle {
    /// The next rate, from the last one and the load. `rate` is `None` at the start.
    pub fn next(rate: Option<f64>, range: &Range, load: Load, limits: &Limits) -> Self {
        let whole = range.ceiling - range.floor;
        let rate = range.within(rate);
        let level = load.level(limits);
        let rate = if level > 1.0 {
            rate - ((rate - range.floor) * FALL_PART).max(whole * MIN_FALL_PART)
        } else if level < RECOVERY_LOAD {
            rate + whole * RISE_PART
        } else {
            rate
        };
        let rate = range.within(Some(rate));
        let state = match level {
            level if level > 1.0 && rate <= range.floor => ThrottleState::AtFloor,
            level if level > 1.0 => ThrottleState::Falling,
            _ if rate >= range.ceiling => ThrottleState::Released,
            level if level < RECOVERY_LOAD => ThrottleState::Recovering,
            _ => ThrottleState::Holding,
        };
        Self {
            state,
            rate,
            reason: Reason { state, load, limits }.to_string(),
            hold_p99_ms: load.hold.map(|hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX)),
            backlog: load.backlog,
        }
    }
}

impl Throttle {
    /// Whether a leader can have written this. Another program, or a later release, may write something else.
    pub fn is_plausible(&self) -> bool {
        (0.0..=f64::from(FASTEST)).contains(&self.rate) && self.reason.len() <= REASON_BYTES_MAX
    }
}

impl Load {
    /// The load relative to the limits: 1 is the limit. A database that does not answer counts as overloaded.
    fn level(&self, limits: &Limits) -> f64 {
        let hold = self.hold.map_or(0.0, |hold| hold.as_secs_f64() / limits.hold.as_secs_f64().max(1e-3));
        let backlog =
            self.backlog.map_or(2.0, |backlog| f64::from(backlog) / f64::from(limits.backlog.max(1)));
        hold.max(backlog)
    }
}

/// The reason for the rate, for operators.
struct Reason<'a> {
    state: ThrottleState,
    load: Load,
    limits: &'a Limits,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, load, limits } = self;
        match load.hold {
            Some(hold) => write!(out, "holds take {} ms (p99)", hold.as_millis())?,
            None => write!(out, "there are too few holds to say how long they take")?,
        }
        write!(out, ", the limit is {} ms; ", limits.hold.as_millis())?;
        match load.backlog {
            Some(backlog) => write!(out, "{backlog} sagas are overdue, the limit is {}", limits.backlog)?,
            None => write!(out, "the database does not say how many sagas are overdue")?,
        }
        out.write_str(match state {
            ThrottleState::Released => ": the line moves at its fastest",
            ThrottleState::Falling => ": the rate falls",
            ThrottleState::AtFloor => ": the rate is the lowest",
            ThrottleState::Holding => ": the rate stays",
            ThrottleState::Recovering => ": the rate rises",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits =
        Limits { hold: Duration::from_millis(400), backlog: 100, every: Duration::from_secs(2) };

    fn range(floor: f64, ceiling: f64) -> Range {
        Range { floor, ceiling, start: ceiling }
    }

    fn load_of(milliseconds: u64, backlog: u32) -> Load {
        Load { hold: Some(Duration::from_millis(milliseconds)), backlog: Some(backlog) }
    }

    fn any_load() -> impl Strategy<Value = Load> {
        let hold = prop::option::of((0u64..5_000).prop_map(Duration::from_millis));
        (hold, prop::option::of(0u32..1_000)).prop_map(|(hold, backlog)| Load { hold, backlog })
    }

    fn bounds() -> impl Strategy<Value = (f64, f64)> {
        (0u32..6_000_000, 0u32..6_000_000)
            .prop_map(|(one, other)| (one.min(other).into(), one.max(other).into()))
    }

    /// The number of steps from `from` until the rate is there.
    fn looks(from: f64, range: &Range, load: Load, is_there: impl Fn(f64) -> bool) -> usize {
        let mut rate = from;
        (0..1_000)
            .find(|_| {
                let found = is_there(rate);
                rate = Throttle::next(Some(rate), range, load, &LIMITS).rate;
                found
            })
            .unwrap_or(usize::MAX)
    }

    proptest! {
        #[test]
        fn the_rate_never_leaves_its_bounds(
            (floor, ceiling) in bounds(),
            start in prop::option::of(0f64..1e7),
            loads in prop::collection::vec(any_load(), 1..50),
        ) {
            let mut rate = start;
            for load in loads {
                let throttle = Throttle::next(rate, &range(floor, ceiling), load, &LIMITS);
                prop_assert!((floor..=ceiling).contains(&throttle.rate));
                let is_strained = load.level(&LIMITS) > 1.0;
                let says_strained = matches!(throttle.state, ThrottleState::Falling | ThrottleState::AtFloor);
                prop_assert_eq!(says_strained, is_strained);
                rate = Some(throttle.rate);
            }
        }

        #[test]
        fn overload_reaches_the_minimum_in_thirty_seconds(
            (floor, ceiling) in bounds(),
            part in 0f64..=1.0,
            load in any_load().prop_filter("strained", |load| load.level(&LIMITS) > 1.0),
        ) {
            let from = floor + (ceiling - floor) * part;
            let looks = looks(from, &range(floor, ceiling), load, |rate| rate <= floor);
            // The first step may come two seconds late, and the measurement two more.
            prop_assert!(LIMITS.every * (looks as u32 + 2) <= Duration::from_secs(30), "{} looks", looks);
        }

        #[test]
        fn rate_recovers_step_by_step((floor, ceiling) in bounds()) {
            let range = range(floor, ceiling);
            let well = load_of(100, 3);
            let first = Throttle::next(Some(floor), &range, well, &LIMITS).rate;
            prop_assert!(first - floor <= (ceiling - floor) / 20.0);
            let looks = looks(floor, &range, well, |rate| rate >= ceiling - 1e-6);
            prop_assert!(LIMITS.every * (looks as u32) <= Duration::from_secs(90), "{} looks", looks);
        }
    }

    #[test]
    fn unanswered_backlog_query_counts_as_overload() {
        let range = range(60.0, 600.0);
        let rate = |load| Throttle::next(Some(300.0), &range, load, &LIMITS).rate;
        assert!(rate(Load { hold: None, backlog: Some(0) }) > 300.0);
        assert!(rate(Load { hold: None, backlog: None }) < 300.0);
        assert!(rate(load_of(401, 0)) < 300.0);
        assert!(rate(load_of(100, 101)) < 300.0);
        assert_eq!(rate(load_of(300, 0)), 300.0);
        assert_eq!(rate(load_of(100, 60)), 300.0);
    }

    #[test]
    fn throttle_has_a_reason_for_operators() {
        let range = range(60.0, 600.0);
        let throttle = Throttle::next(Some(600.0), &range, load_of(512, 3), &LIMITS);
        assert_eq!((throttle.state, throttle.rate), (ThrottleState::Falling, 420.0));
        let expected = "holds take 512 ms (p99), the limit is 400 ms; 3 sagas are overdue, the limit is 100: the rate falls";
        assert_eq!(throttle.reason, expected);
        assert_eq!(
            Throttle::next(None, &range, Load { hold: None, backlog: Some(0) }, &LIMITS).state,
            ThrottleState::Released
        );
    }
}
