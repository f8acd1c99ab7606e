//! Rows that name missing rows, and rows that break a rule of their table: the audit finds each.

use boxoffice::audit::Invariant;

use crate::audit::{audit_after, finds, stays_good};

/// The damage breaks this invariant among others, and this row is named.
async fn finds_among_others(invariant: Invariant, offender: &str, damage: &'static str) {
    let report = audit_after(damage).await;
    let found = report.broken.iter().find(|broken| broken.invariant == invariant);
    let found = found.unwrap_or_else(|| panic!("{invariant:?} is not found after: {damage}\n{report:#?}"));
    assert!(
        found.examples.iter().any(|example| example.id.ends_with(offender)),
        "after: {damage}\n{found:#?}"
    );
}

#[tokio::test]
async fn rows_that_name_missing_rows_are_found() {
    finds_among_others(
        Invariant::TicketsWithoutReservation,
        "b1",
        "set session_replication_role = replica;
         update tickets set id = '00000000-0000-7000-8000-0000000000b1' where seat = 1;
         delete from reservations where id = '00000000-0000-7000-8000-000000000001'",
    )
    .await;
    finds_among_others(
        Invariant::TicketsWithoutSeat,
        "b1",
        "set session_replication_role = replica;
         update tickets set id = '00000000-0000-7000-8000-0000000000b1' where seat = 1;
         delete from seats where number = 1",
    )
    .await;
    finds_among_others(
        Invariant::EntriesWithoutAccount,
        "fa",
        "set session_replication_role = replica; delete from accounts where balance = 50",
    )
    .await;
    finds_among_others(
        Invariant::PaymentsWithoutReservation,
        "f1",
        "set session_replication_role = replica;
         delete from reservations where id = '00000000-0000-7000-8000-000000000001'",
    )
    .await;
    finds_among_others(
        Invariant::PaymentsWithoutEntry,
        "b1",
        "update payments_without_entry set id = '00000000-0000-7000-8000-0000000000b1', amount = 5",
    )
    .await;
    finds_among_others(
        Invariant::ReservationsWithoutPerformance,
        "02",
        "set session_replication_role = replica; delete from performances",
    )
    .await;
    finds(
        Invariant::ReservationsOfAnotherConcert,
        "03",
        "update reservations set concert_id = gen_random_uuid() where id = '00000000-0000-7000-8000-000000000003'",
    )
    .await;
}

#[tokio::test]
async fn redeemed_tickets_are_valid_by_their_earliest_scan() {
    let broken = Invariant::Redemptions;
    let redeemed = |tail: &str| {
        format!(
            "update tickets set id = '00000000-0000-7000-8000-0000000000b1' where seat = 1;
             insert into redemptions (id, ticket_id, reservation_id, performance_id, seat, gate, scanned_at, api_key_id, status)
             select gen_random_uuid(), id, reservation_id, performance_id, seat, gate, now() + later, gen_random_uuid(), scan.status
             from tickets t, (values ('North', interval '0', 'valid'), ('South', interval '1 s', 'duplicate'))
                 as scan (gate, later, status) where seat = 1; {tail}"
        )
        .leak()
    };
    stays_good(redeemed("")).await;
    let earlier = "update redemptions set scanned_at = now() - interval '1 s' where gate = 'South'";
    finds(broken, "b1", redeemed(earlier)).await;
    finds(broken, "b1", redeemed("update tickets set id = gen_random_uuid() where seat = 1")).await;
    finds(broken, "b1", redeemed("update tickets set holder_id = gen_random_uuid() where seat = 1")).await;
    let report =
        audit_after(redeemed("update tickets set status = 'void', voided_at = now() where seat = 1")).await;
    let found: Vec<Invariant> = report.broken.iter().map(|broken| broken.invariant).collect();
    assert_eq!(found, [Invariant::SoldSeats, broken]);
}

#[tokio::test]
async fn rows_that_break_rules_are_found() {
    let report = audit_after(
        "set session_replication_role = replica;
         update sagas set step = 9, attempt = -1, resend_count = -1, finished_at = now(), stuck_since = now()
         where id = '00000000-0000-7000-8000-000000000006';
         update sagas set definition = -1 where id = '00000000-0000-7000-8000-000000000003';
         insert into saga_history (saga_id, seq, at, event, step, direction, visit, attempt)
         values ('00000000-0000-7000-8000-000000000006', 1, now(), 1, 0, 2, 1, 0);
         insert into seats (performance_id, number, section, price, status, holder)
         values ('00000000-0000-7000-8000-0000000000d0', 0, 'A', -1, 'odd', gen_random_uuid()),
             ('00000000-0000-7000-8000-0000000000d0', 11, 'A', 1, 'held', gen_random_uuid());
         update reservations set status = 'odd', seats = '{}' where id = '00000000-0000-7000-8000-000000000003';
         update reservations set claimable_at = null, expires_at = 'infinity'
         where id = '00000000-0000-7000-8000-000000000002';
         update ledger_entries set kind = 'odd', balance = -1 where id = '00000000-0000-7000-8000-0000000000f0';
         update ledger_entries set reverses_id = id where id = '00000000-0000-7000-8000-0000000000f1';
         update payments_without_entry set amount = -1, status = 'odd';
         insert into payments_without_entry (id, reservation_id, user_id, amount, status, updated_at)
         select gen_random_uuid(), id, user_id, 0, 'succeeded', now()
         from reservations where id = '00000000-0000-7000-8000-000000000003';
         update tickets set status = 'odd' where seat = 1;
         update tickets set voided_at = now(), id = (select id from tickets where seat = 1) where seat = 2",
    )
    .await;
    let found = report.broken.iter().find(|broken| broken.invariant == Invariant::RowRules).unwrap();
    let problems: Vec<&str> = found.examples.iter().map(|example| example.problem.as_str()).collect();
    let problems = problems.join("\n");
    for rule in RULES {
        assert!(problems.contains(rule), "{rule} is not in:\n{problems}");
    }
}

/// The rules of rows that the schema does not check.
const RULES: [&str; 25] = [
    "sagas_definition_known",
    "sagas_step_known",
    "sagas_attempt_counts",
    "sagas_send_counts",
    "sagas_finished_when_ended",
    "sagas_stuck_since_when_stuck",
    "saga_history_direction_known",
    "seats_number",
    "seats_price",
    "seats_status_known",
    "seats_hold_timed",
    "reservations_status_known",
    "reservations_has_seats",
    "reservations_hold_timed",
    "reservations_times_in_range",
    "ledger_entries_kind_known",
    "ledger_entries_balance",
    "ledger_entries_refund_names_entry",
    "ledger_entries_use_names_reservation",
    "payments_amount",
    "payments_status_known",
    "payments_paid_when_taken",
    "tickets_status_known",
    "tickets_voided_when_void",
    "tickets_id_unique",
];
