//! The brake: how fast a line may move while the service is strained, as one pure function.
//!
//! Every two seconds the leader looks at the slowest holds of all instances and at the sagas that are overdue. Above a
//! limit the rate falls, so fast that it reaches the floor within half a minute from wherever it was; below half the limits
//! it recovers within a minute and a half; between the two it stays.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::queue::{FASTEST, QueueSettings};

/// Above the floor this part of the excess goes at each look.
const FALL: f64 = 1.0 / 3.0;
/// But never less than this part of the whole range, so that it does reach the floor.
const LEAST_FALL: f64 = 1.0 / 20.0;
/// This part of the whole range comes back at each look.
const RISE: f64 = 1.0 / 40.0;
/// Below this part of the limits the service is well.
const WELL: f64 = 0.5;

/// The longest reason that is read, in bytes. Those that are written have a few hundred at most.
const REASON_BYTES_MAX: usize = 1_000;

/// What is still good enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The slowest of a hundred holds.
    pub hold: Duration,
    /// Sagas that are overdue.
    pub backlog: u32,
    /// How often the brake looks.
    pub every: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { hold: Duration::from_millis(400), backlog: 100, every: Duration::from_secs(2) }
    }
}

/// What was measured at one look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strain {
    /// The p99 of holds on the slowest instance; nothing if there were too few to say.
    pub hold: Option<Duration>,
    /// Sagas that are overdue; nothing if the database did not say.
    pub backlog: Option<u32>,
}

/// The rates between which a line moves, per minute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    floor: f64,
    ceiling: f64,
    start: f64,
}

/// What the brake is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrakeState {
    /// The line moves at its fastest.
    Released,
    /// The service is strained: the rate falls.
    Falling,
    /// The service is strained, and the rate is the lowest.
    AtFloor,
    /// Neither strained nor well: the rate stays.
    Holding,
    /// The service is well: the rate rises.
    Recovering,
}

/// How a line is braked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Brake {
    /// What the brake is doing.
    pub state: BrakeState,
    /// The admissions per minute that it lets through.
    pub rate: f64,
    /// Why, as one sentence.
    pub reason: String,
    /// The p99 of holds on the slowest instance, in milliseconds; null if there were too few lately.
    pub hold_p99_ms: Option<u64>,
    /// Sagas that are overdue by more than two seconds; null if the database did not say.
    pub backlog: Option<u32>,
}

impl Range {
    /// Where the brake moves; nothing if it is off, which it is unless both bounds are set.
    pub fn of(settings: &QueueSettings) -> Option<Self> {
        let (floor, ceiling) = settings.min_rate.zip(settings.max_rate)?;
        let start = settings.admit_per_minute.clamp(floor, ceiling.max(floor));
        Some(Self { floor: floor.into(), ceiling: ceiling.max(floor).into(), start: start.into() })
    }

    /// A rate within the bounds; where there is none yet, the one that is set.
    pub fn within(&self, rate: Option<f64>) -> f64 {
        rate.unwrap_or(self.start).clamp(self.floor, self.ceiling)
    }
}

impl Brake {
    /// The rate from now on: what it was (`rate`, or nothing at the start), and how strained the service is.
    pub fn next(rate: Option<f64>, range: &Range, strain: Strain, limits: &Limits) -> Self {
        let whole = range.ceiling - range.floor;
        let rate = range.within(rate);
        let load = strain.load(limits);
        let rate = if load > 1.0 {
            rate - ((rate - range.floor) * FALL).max(whole * LEAST_FALL)
        } else if load < WELL {
            rate + whole * RISE
        } else {
            rate
        };
        let rate = range.within(Some(rate));
        let state = match load {
            load if load > 1.0 && rate <= range.floor => BrakeState::AtFloor,
            load if load > 1.0 => BrakeState::Falling,
            _ if rate >= range.ceiling => BrakeState::Released,
            load if load < WELL => BrakeState::Recovering,
            _ => BrakeState::Holding,
        };
        Self {
            state,
            rate,
            reason: Reason { state, strain, limits }.to_string(),
            hold_p99_ms: strain.hold.map(|hold| u64::try_from(hold.as_millis()).unwrap_or(u64::MAX)),
            backlog: strain.backlog,
        }
    }
}

impl Brake {
    /// Whether a leader may have written this. Another program, or a later release, may write something else.
    pub fn is_plausible(&self) -> bool {
        (0.0..=f64::from(FASTEST)).contains(&self.rate) && self.reason.len() <= REASON_BYTES_MAX
    }
}

impl Strain {
    /// How near the service is to its limits: 1 is the limit. A database that does not answer is beyond it.
    fn load(&self, limits: &Limits) -> f64 {
        let hold = self.hold.map_or(0.0, |hold| hold.as_secs_f64() / limits.hold.as_secs_f64().max(1e-3));
        let backlog =
            self.backlog.map_or(2.0, |backlog| f64::from(backlog) / f64::from(limits.backlog.max(1)));
        hold.max(backlog)
    }
}

/// Why the line moves as it does, for an operator.
struct Reason<'a> {
    state: BrakeState,
    strain: Strain,
    limits: &'a Limits,
}

impl fmt::Display for Reason<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { state, strain, limits } = self;
        match strain.hold {
            Some(hold) => write!(out, "holds take {} ms (p99)", hold.as_millis())?,
            None => write!(out, "there are too few holds to say how long they take")?,
        }
        write!(out, ", the limit is {} ms; ", limits.hold.as_millis())?;
        match strain.backlog {
            Some(backlog) => write!(out, "{backlog} sagas are overdue, the limit is {}", limits.backlog)?,
            None => write!(out, "the database does not say how many sagas are overdue")?,
        }
        out.write_str(match state {
            BrakeState::Released => ": the line moves at its fastest",
            BrakeState::Falling => ": the rate falls",
            BrakeState::AtFloor => ": the rate is the lowest",
            BrakeState::Holding => ": the rate stays",
            BrakeState::Recovering => ": the rate rises",
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

    fn strain(milliseconds: u64, backlog: u32) -> Strain {
        Strain { hold: Some(Duration::from_millis(milliseconds)), backlog: Some(backlog) }
    }

    fn any_strain() -> impl Strategy<Value = Strain> {
        let hold = prop::option::of((0u64..5_000).prop_map(Duration::from_millis));
        (hold, prop::option::of(0u32..1_000)).prop_map(|(hold, backlog)| Strain { hold, backlog })
    }

    fn bounds() -> impl Strategy<Value = (f64, f64)> {
        (0u32..6_000_000, 0u32..6_000_000)
            .prop_map(|(one, other)| (one.min(other).into(), one.max(other).into()))
    }

    /// After how many looks the rate is there, from `from` on.
    fn looks(from: f64, range: &Range, strain: Strain, is_there: impl Fn(f64) -> bool) -> usize {
        let mut rate = from;
        (0..1_000)
            .find(|_| {
                let found = is_there(rate);
                rate = Brake::next(Some(rate), range, strain, &LIMITS).rate;
                found
            })
            .unwrap_or(usize::MAX)
    }

    proptest! {
        #[test]
        fn the_rate_never_leaves_its_bounds(
            (floor, ceiling) in bounds(),
            start in prop::option::of(0f64..1e7),
            strains in prop::collection::vec(any_strain(), 1..50),
        ) {
            let mut rate = start;
            for strain in strains {
                let brake = Brake::next(rate, &range(floor, ceiling), strain, &LIMITS);
                prop_assert!((floor..=ceiling).contains(&brake.rate));
                let is_strained = strain.load(&LIMITS) > 1.0;
                let told = matches!(brake.state, BrakeState::Falling | BrakeState::AtFloor);
                prop_assert_eq!(told, is_strained);
                rate = Some(brake.rate);
            }
        }

        #[test]
        fn under_strain_the_floor_is_reached_within_thirty_seconds(
            (floor, ceiling) in bounds(),
            part in 0f64..=1.0,
            strain in any_strain().prop_filter("strained", |strain| strain.load(&LIMITS) > 1.0),
        ) {
            let from = floor + (ceiling - floor) * part;
            let looks = looks(from, &range(floor, ceiling), strain, |rate| rate <= floor);
            // The first look may come two seconds late, and the measurement two more.
            prop_assert!(LIMITS.every * (looks as u32 + 2) <= Duration::from_secs(30), "{} looks", looks);
        }

        #[test]
        fn when_it_is_over_the_rate_comes_back_bit_by_bit((floor, ceiling) in bounds()) {
            let range = range(floor, ceiling);
            let well = strain(100, 3);
            let first = Brake::next(Some(floor), &range, well, &LIMITS).rate;
            prop_assert!(first - floor <= (ceiling - floor) / 20.0);
            let looks = looks(floor, &range, well, |rate| rate >= ceiling - 1e-6);
            prop_assert!(LIMITS.every * (looks as u32) <= Duration::from_secs(90), "{} looks", looks);
        }
    }

    #[test]
    fn few_holds_are_no_strain_and_a_silent_database_is() {
        let range = range(60.0, 600.0);
        let rate = |strain| Brake::next(Some(300.0), &range, strain, &LIMITS).rate;
        assert!(rate(Strain { hold: None, backlog: Some(0) }) > 300.0);
        assert!(rate(Strain { hold: None, backlog: None }) < 300.0);
        assert!(rate(strain(401, 0)) < 300.0);
        assert!(rate(strain(100, 101)) < 300.0);
        assert_eq!(rate(strain(300, 0)), 300.0);
        assert_eq!(rate(strain(100, 60)), 300.0);
    }

    #[test]
    fn an_operator_reads_why() {
        let range = range(60.0, 600.0);
        let brake = Brake::next(Some(600.0), &range, strain(512, 3), &LIMITS);
        assert_eq!((brake.state, brake.rate), (BrakeState::Falling, 420.0));
        let expected = "holds take 512 ms (p99), the limit is 400 ms; 3 sagas are overdue, the limit is 100: the rate falls";
        assert_eq!(brake.reason, expected);
        assert_eq!(
            Brake::next(None, &range, Strain { hold: None, backlog: Some(0) }, &LIMITS).state,
            BrakeState::Released
        );
    }
}
