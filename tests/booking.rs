//! The path of a booking against real servers: hold, pay, confirm; refusals, expiry, cancellation, races.

use std::sync::Arc;

use boxoffice::booking::Answer;
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use futures::future::join_all;

use crate::common::app::TestApp;

#[tokio::test(flavor = "multi_thread")]
async fn the_whole_path_holds_pays_and_confirms() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[1, 2]).await;
    assert_eq!((held.status, held.amount), (ReservationStatus::Held, 200));
    assert_eq!(held.lines.len(), 2);
    let confirmed = test.pay(held.id).await;
    assert_eq!(confirmed.status, ReservationStatus::Confirmed);
    assert_eq!(confirmed.tickets.len(), 2);
    assert_eq!(confirmed.payment.as_ref().unwrap().status, "succeeded");
    assert_eq!(test.balance(user).await, 800);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_callers_gets_the_seat() {
    let test = Arc::new(TestApp::start().await);
    let callers = (0..1_000).map(|_| {
        let test = Arc::clone(&test);
        tokio::spawn(async move {
            let user = test.user(0).await;
            match test.app.booking.reserve(test.order(user, &[7])).await.unwrap() {
                Answer::Settled(reservation) => *reservation,
                Answer::Pending(reservation) => {
                    test.until(20, "a reservation to settle", || async {
                        test.find(reservation.id).await.status != ReservationStatus::Pending
                    })
                    .await;
                    test.find(reservation.id).await
                }
            }
        })
    });
    let answers: Vec<Reservation> = join_all(callers).await.into_iter().map(Result::unwrap).collect();
    let held = answers.iter().filter(|answer| answer.status == ReservationStatus::Held).count();
    let taken = answers.iter().filter(|answer| answer.reason.as_deref() == Some("seat_taken")).count();
    assert_eq!((held, taken), (1, 999));
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_seat_lists_are_all_or_nothing() {
    let test = TestApp::start().await;
    for round in 0..10 {
        let first = 1 + round * 3;
        let (one, other) = (test.user(0).await, test.user(0).await);
        let (these, those) = ([first, first + 1], [first + 1, first + 2]);
        let (a, b) = tokio::join!(test.reserve(one, &these), test.reserve(other, &those));
        let (winner, loser) = if a.status == ReservationStatus::Held { (a, b) } else { (b, a) };
        assert_eq!(winner.status, ReservationStatus::Held);
        assert_eq!(loser.reason.as_deref(), Some("seat_taken"));
        assert_eq!(loser.detail.unwrap()["seats"], serde_json::json!([first + 1]));
    }
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_hold_frees_its_seats_and_charges_nothing() {
    let test = TestApp::with(&["--hold-seconds", "1"]).await;
    let (late, next) = (test.user(1_000).await, test.user(1_000).await);
    let held = test.reserve(late, &[5]).await;
    assert_eq!(test.reserve(next, &[5]).await.reason.as_deref(), Some("seat_taken"));
    test.until(5, "the hold to expire", || async {
        test.find(held.id).await.status == ReservationStatus::Expired
    })
    .await;
    assert_eq!(test.reserve(next, &[5]).await.status, ReservationStatus::Held);
    assert_eq!(test.pay(held.id).await.status, ReservationStatus::Expired);
    assert_eq!(test.balance(late).await, 1_000);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_points_keep_the_hold() {
    let test = TestApp::start().await;
    let user = test.user(50).await;
    let held = test.reserve(user, &[9]).await;
    let refused = test.pay(held.id).await;
    assert_eq!(refused.status, ReservationStatus::Held);
    assert_eq!(refused.saga_rejection.unwrap()["code"], "insufficient_points");
    assert_eq!(refused.payment.unwrap().status, "failed");
    test.charge(user, 50).await;
    let paid = test.pay(held.id).await;
    assert_eq!(paid.status, ReservationStatus::Confirmed);
    assert_eq!(paid.payment.unwrap().status, "succeeded");
    assert_eq!(test.balance(user).await, 0);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn paying_twice_at_once_charges_once() {
    let test = TestApp::start().await;
    let user = test.user(1_000).await;
    let held = test.reserve(user, &[11]).await;
    let answers = join_all((0..8).map(|_| test.pay(held.id))).await;
    assert!(answers.iter().all(|answer| answer.status == ReservationStatus::Confirmed));
    assert_eq!(test.balance(user).await, 900);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_cancels_free_a_hold_once() {
    let test = TestApp::start().await;
    let (user, next) = (test.user(100).await, test.user(100).await);
    let held = test.reserve(user, &[13]).await;
    let (one, other) = tokio::join!(test.cancel(held.id), test.cancel(held.id));
    assert_eq!((one.status, other.status), (ReservationStatus::Cancelled, ReservationStatus::Cancelled));
    assert_eq!(test.reserve(next, &[13]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_cancels_refund_once() {
    let test = TestApp::start().await;
    let user = test.user(300).await;
    let held = test.reserve(user, &[15, 16]).await;
    test.pay(held.id).await;
    let (one, other) = tokio::join!(test.cancel(held.id), test.cancel(held.id));
    for answer in [one, other] {
        assert_eq!(answer.status, ReservationStatus::Cancelled);
        assert!(answer.tickets.iter().all(|ticket| ticket.status == "void"));
        assert_eq!(answer.payment.unwrap().status, "refunded");
    }
    assert_eq!(test.balance(user).await, 300);
    assert_eq!(test.reserve(user, &[15, 16]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn payment_racing_expiry_is_all_or_nothing() {
    let test = TestApp::with(&["--hold-seconds", "1", "--payment-grace-seconds", "1"]).await;
    let user = test.user(100 * 12).await;
    let seats: Vec<[i32; 1]> = (1..=12).map(|seat| [seat]).collect();
    let holds = join_all(seats.iter().map(|seat| test.reserve(user, seat))).await;
    let started = tokio::time::Instant::now();
    let races = holds.iter().enumerate().map(|(at, held)| {
        let test = &test;
        async move {
            tokio::time::sleep_until(started + std::time::Duration::from_millis(900 + 15 * at as u64)).await;
            test.pay(held.id).await
        }
    });
    let mut confirmed = 0;
    for answer in join_all(races).await {
        match answer.status {
            ReservationStatus::Confirmed => confirmed += 1,
            ReservationStatus::Expired => assert!(answer.tickets.is_empty()),
            other => panic!("neither paid nor expired: {other:?}"),
        }
    }
    assert_eq!(test.balance(user).await, 1_200 - 100 * confirmed);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundred_concurrent_charges_and_payments_add_up() {
    let test = Arc::new(TestApp::with(&["--max-seats-per-user", "100"]).await);
    let user = test.user(5_000).await;
    let holds = join_all((1..=50).map(|seat| {
        let test = Arc::clone(&test);
        async move { test.reserve(user, &[seat]).await }
    }))
    .await;
    let payments = holds.iter().map(|held| {
        let (test, id) = (Arc::clone(&test), held.id);
        tokio::spawn(async move { drop(test.pay(id).await) })
    });
    let charges = (0..50).map(|_| {
        let test = Arc::clone(&test);
        tokio::spawn(async move { test.charge(user, 7).await })
    });
    for done in join_all(payments.chain(charges).collect::<Vec<_>>()).await {
        done.unwrap();
    }
    assert_eq!(test.balance(user).await, 350);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_holds_respect_the_seat_limit() {
    let test = TestApp::with(&["--max-seats-per-user", "3"]).await;
    let user = test.user(0).await;
    let answers = join_all([[1], [2], [3], [4], [5]].iter().map(|seats| test.reserve(user, seats))).await;
    let held = answers.iter().filter(|answer| answer.status == ReservationStatus::Held).count();
    let refused = answers.iter().filter(|answer| answer.reason.as_deref() == Some("too_many_seats")).count();
    assert_eq!((held, refused), (3, 2));
    test.check_books().await;
}
