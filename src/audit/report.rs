//! The audit's report: the verdict, broken invariants, stuck sagas, and counts of the checked rows.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use crate::store::audit::{Counted, Offender, StuckSaga, UnsettledPoints};

/// What must hold at every moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invariant {
    SoldSeats,
    DoubledSeats,
    HeldSeats,
    CancelledDates,
    Balances,
    PointsTaken,
    Payments,
    SupportEntries,
    SagasAwake,
    SagasSwept,
    HoldsEnd,
    Redemptions,
    TicketsWithoutReservation,
    TicketsWithoutSeat,
    EntriesWithoutAccount,
    PaymentsWithoutReservation,
    PaymentsWithoutEntry,
    ReservationsWithoutPerformance,
    ReservationsOfAnotherConcert,
    RowRules,
}

impl Invariant {
    /// All of them, in the order they are asked and shown.
    pub const ALL: [Self; 20] = [
        Self::SoldSeats,
        Self::DoubledSeats,
        Self::HeldSeats,
        Self::CancelledDates,
        Self::Balances,
        Self::PointsTaken,
        Self::Payments,
        Self::SupportEntries,
        Self::SagasAwake,
        Self::SagasSwept,
        Self::HoldsEnd,
        Self::Redemptions,
        Self::TicketsWithoutReservation,
        Self::TicketsWithoutSeat,
        Self::EntriesWithoutAccount,
        Self::PaymentsWithoutReservation,
        Self::PaymentsWithoutEntry,
        Self::ReservationsWithoutPerformance,
        Self::ReservationsOfAnotherConcert,
        Self::RowRules,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::SoldSeats => "sold_seats",
            Self::DoubledSeats => "doubled_seats",
            Self::HeldSeats => "held_seats",
            Self::CancelledDates => "cancelled_dates",
            Self::Balances => "balances",
            Self::PointsTaken => "points_taken",
            Self::Payments => "payments",
            Self::SupportEntries => "support_entries",
            Self::SagasAwake => "sagas_awake",
            Self::SagasSwept => "sagas_swept",
            Self::HoldsEnd => "holds_end",
            Self::Redemptions => "redemptions",
            Self::TicketsWithoutReservation => "tickets_without_reservation",
            Self::TicketsWithoutSeat => "tickets_without_seat",
            Self::EntriesWithoutAccount => "entries_without_account",
            Self::PaymentsWithoutReservation => "payments_without_reservation",
            Self::PaymentsWithoutEntry => "payments_without_entry",
            Self::ReservationsWithoutPerformance => "reservations_without_performance",
            Self::ReservationsOfAnotherConcert => "reservations_of_another_concert",
            Self::RowRules => "row_rules",
        }
    }

    /// What it demands, in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::SoldSeats => "Sold seats are the valid tickets are the lines of confirmed reservations.",
            Self::DoubledSeats => "No seat is in two live reservations.",
            Self::HeldSeats => "A held seat names the reservation that holds it.",
            Self::CancelledDates => "A cancelled date whose job is completed has no seat with an owner.",
            Self::Balances => "Every balance is the sum of its entries and not below zero.",
            Self::PointsTaken => {
                "Points are taken for what is confirmed or being paid, and for nothing else."
            }
            Self::Payments => "Payments agree with ledger entries and reservations.",
            Self::SupportEntries => "What support gave and refunded agrees with its ledger entries.",
            Self::SagasAwake => "Every saga is ended, stuck, paused or has an alarm.",
            Self::SagasSwept => "No alarm is overdue for a minute.",
            Self::HoldsEnd => "No hold outlives its end by five seconds.",
            Self::Redemptions => "A redeemed ticket is valid by its earliest scan; a holder took it over.",
            Self::TicketsWithoutReservation => "The reservation of every ticket exists.",
            Self::TicketsWithoutSeat => "The seat of every ticket exists.",
            Self::EntriesWithoutAccount => "The account of every ledger entry exists.",
            Self::PaymentsWithoutReservation => "The reservation of every payment exists.",
            Self::PaymentsWithoutEntry => "A payment that takes points is a ledger entry.",
            Self::ReservationsWithoutPerformance => "The performance of every reservation exists.",
            Self::ReservationsOfAnotherConcert => "The performance of a reservation is of its concert.",
            Self::RowRules => "Every row keeps the rules of its table.",
        }
    }
}

/// An invariant that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Broken {
    pub invariant: Invariant,
    /// How many rows break it.
    pub count: i64,
    /// At most a hundred of them.
    pub examples: Vec<Example>,
}

/// A row that breaks an invariant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Example {
    /// Its id; a seat is named by its performance, a slash and its number.
    pub id: String,
    /// What is wrong with it.
    pub problem: String,
}

impl Broken {
    /// None if there are no offenders.
    pub(super) fn from_offenders(invariant: Invariant, offenders: Vec<Offender>) -> Option<Self> {
        let count = offenders.first()?.total;
        let examples =
            offenders.into_iter().map(|Offender { id, problem, .. }| Example { id, problem }).collect();
        Some(Self { invariant, count, examples })
    }
}

/// Good, or broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Good,
    Broken,
}

/// The answer of the audit.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Report {
    pub verdict: Verdict,
    /// The moment that was judged, by the database's clock.
    pub at: DateTime<Utc>,
    pub broken: Vec<Broken>,
    /// Sagas that wait for an operator: no defect, but work.
    pub stuck: Vec<StuckSaga>,
    /// Points of stuck sagas, and of those that an operator ended, that were taken without a ticket or are still owed.
    pub unsettled_points: Vec<UnsettledPoints>,
    pub counted: Counted,
}

impl Report {
    pub(super) fn new(
        at: DateTime<Utc>,
        broken: Vec<Broken>,
        stuck: Vec<StuckSaga>,
        unsettled_points: Vec<UnsettledPoints>,
        counted: Counted,
    ) -> Self {
        let verdict = if broken.is_empty() { Verdict::Good } else { Verdict::Broken };
        Self { verdict, at, broken, stuck, unsettled_points, counted }
    }

    /// Whether every invariant holds; if `strict`, also whether nothing waits for an operator.
    pub fn is_good(&self, strict: bool) -> bool {
        let waits_for_operator = self.counted.sagas_stuck > 0 || !self.unsettled_points.is_empty();
        self.verdict == Verdict::Good && !(strict && waits_for_operator)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stuck_sagas_are_bad_only_for_the_strict() {
        let counted = Counted { sagas_stuck: 1, ..Counted::default() };
        let report = Report::new(DateTime::UNIX_EPOCH, Vec::new(), Vec::new(), Vec::new(), counted);
        assert_eq!(report.verdict, Verdict::Good);
        assert!(report.is_good(false));
        assert!(!report.is_good(true));
    }

    #[test]
    fn one_violation_fails_the_audit() {
        let offender = Offender { id: "p/7".to_owned(), problem: "sold twice".to_owned(), total: 250 };
        let broken = Broken::from_offenders(Invariant::DoubledSeats, vec![offender]).unwrap();
        assert_eq!(broken.count, 250);
        assert_eq!(broken.examples.len(), 1);
        let report =
            Report::new(DateTime::UNIX_EPOCH, vec![broken], Vec::new(), Vec::new(), Counted::default());
        assert!(!report.is_good(false));
        assert_eq!(Broken::from_offenders(Invariant::Payments, Vec::new()), None);
    }

    #[test]
    fn names_are_what_json_says() {
        for invariant in Invariant::ALL {
            assert_eq!(serde_json::to_value(invariant).unwrap(), invariant.name());
        }
    }
}
