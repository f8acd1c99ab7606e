//! The fence: late, repeated and interleaved commands change nothing; batches decide item by item.

use boxoffice::app::Role;
use boxoffice::booking::Answer;
use boxoffice::bus::messages;
use boxoffice::bus::publish::publish;
use boxoffice::bus::subjects;
use boxoffice::saga::{Command, Direction, OperatorAction};
use boxoffice::store;
use boxoffice::store::reservations::{Reservation, ReservationStatus};
use boxoffice::store::seats::Owned;
use boxoffice::store::tracked_rows::TrackedRows;
use boxoffice::store::write_batch::{WriteBatch, is_stale_read};
use uuid::Uuid;

use crate::common::app::{TestApp, start};

/// Sends a command as the engine would, once more or long after.
async fn send(
    test: &TestApp,
    reservation: Uuid,
    subject: &str,
    step: &str,
    direction: Direction,
    visit: i32,
) {
    let saga = store::sagas::get(&test.app.pool, reservation).await.unwrap().unwrap();
    let command = Command {
        saga_id: reservation,
        workflow: "booking".to_owned(),
        subject: subject.to_owned(),
        step: step.to_owned(),
        direction,
        visit,
        send: 0,
        deadline: None,
        reason: None,
        context: saga.context,
        trace: reservation,
    };
    publish(&test.app.bus, &[command], messages::command).await.unwrap();
}

/// Waits until every message of a stream is acknowledged.
async fn drained(test: &TestApp, stream: &str) {
    test.until(10, "the stream to be drained", || async {
        let mut stream = test.app.bus.jetstream.get_stream(stream).await.unwrap();
        stream.info().await.unwrap().state.messages == 0
    })
    .await;
}

async fn history_length(test: &TestApp, saga: Uuid) -> usize {
    store::history::of_sagas(&test.app.pool, &[saga]).await.unwrap().len()
}

#[tokio::test(flavor = "multi_thread")]
async fn hold_after_its_release_holds_nothing() {
    let test = TestApp::start().await;
    let (user, next) = (test.user(0).await, test.user(0).await);
    let held = test.reserve(user, &[1]).await;
    test.cancel(held.id).await;
    let before = history_length(&test, held.id).await;
    send(&test, held.id, "seats.hold", "reserve", Direction::Do, 1).await;
    drained(&test, subjects::STEPS).await;
    assert_eq!(history_length(&test, held.id).await, before);
    assert_eq!(test.reserve(next, &[1]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_first_payment_takes_nothing() {
    let test = TestApp::start().await;
    let user = test.user(10).await;
    let held = test.reserve(user, &[1]).await;
    test.pay(held.id).await;
    test.charge(user, 1_000).await;
    test.pay(held.id).await;
    send(&test, held.id, "points.deduct", "pay", Direction::Do, 1).await;
    drained(&test, subjects::STEPS).await;
    assert_eq!(test.balance(user).await, 910);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_release_leaves_the_next_holders_seat() {
    let test = TestApp::start().await;
    let (user, next) = (test.user(0).await, test.user(0).await);
    let first = test.reserve(user, &[1]).await;
    test.cancel(first.id).await;
    let second = test.reserve(next, &[1]).await;
    send(&test, first.id, "seats.release", "reserve", Direction::Undo, 1).await;
    drained(&test, subjects::STEPS).await;
    assert_eq!(test.find(second.id).await.status, ReservationStatus::Held);
    assert_eq!(test.reserve(user, &[1]).await.reason.as_deref(), Some("seat_taken"));
    test.check_books().await;
}

/// The hold is stopped in the middle of its transaction, at the seat; the cancellation then waits for it at the
/// saga, and undoes it once it is done. The two never overlap.
#[tokio::test(flavor = "multi_thread")]
async fn do_and_undo_exclude_each_other() {
    let test = TestApp::start().await;
    let user = test.user(0).await;
    let mut blocker = test.app.pool.begin().await.unwrap();
    let seat = "select from seats where performance_id = $1 and number = 1 for update";
    sqlx::query(seat).bind(test.performance).execute(&mut *blocker).await.unwrap();
    let order = test.order(user, &[1]);
    let id = order.id;
    let Answer::Pending(pending) = test.app.booking.reserve(order).await.unwrap() else {
        panic!("it went past the lock")
    };
    assert_eq!(pending.status, ReservationStatus::Pending);

    let engine = test.app.engine.clone();
    let mut act =
        tokio::spawn(async move { engine.act(id, OperatorAction::Cancel, "a test", "to interleave").await });
    let waits = tokio::time::timeout(std::time::Duration::from_millis(300), &mut act).await;
    assert!(waits.is_err(), "the undo began while the do was under way");
    blocker.commit().await.unwrap();
    act.await.unwrap().unwrap();

    test.until(5, "the hold to be undone", || async {
        test.find(id).await.status == ReservationStatus::Cancelled
    })
    .await;
    assert_eq!(test.reserve(test.user(0).await, &[1]).await.status, ReservationStatus::Held);
    test.check_books().await;
}

/// Starts bookings while no worker runs, so that all their commands are there when the worker takes its first batch.
async fn queued(test: &TestApp, orders: Vec<boxoffice::booking::Order>) -> Vec<Reservation> {
    let mut pending = Vec::new();
    for order in orders {
        let Answer::Pending(reservation) = test.app.booking.reserve(order).await.unwrap() else {
            panic!("a worker works")
        };
        pending.push(*reservation);
    }
    pending
}

async fn without_workers(flags: &[&str]) -> TestApp {
    TestApp::roles(flags, &[Role::Api, Role::Orchestrator, Role::Scheduler]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_seat_lists_are_decided_by_arrival() {
    let test = without_workers(&["--settle-ms", "1"]).await;
    let user = test.user(0).await;
    let lists: [&[i32]; 4] = [&[1, 2], &[2, 3], &[3, 4], &[1]];
    let pending = queued(&test, lists.iter().map(|seats| test.order(user, seats)).collect()).await;
    let _worker = start(&test.env, &[], &[Role::Worker]).await;
    drained(&test, subjects::STEPS).await;
    let mut ends = Vec::new();
    for reservation in pending {
        ends.push(test.find(reservation.id).await.status);
    }
    use ReservationStatus::{Failed, Held};
    assert_eq!(ends, [Held, Failed, Held, Failed]);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_command_of_a_batch_is_parked_alone() {
    let test = without_workers(&["--settle-ms", "1"]).await;
    let user = test.user(0).await;
    let orders: Vec<_> = (1..=9).map(|seat| test.order(user, &[seat])).collect();
    let pending = queued(&test, orders).await;
    // An amount that no column can take: the statement fails for the whole batch.
    sqlx::query("alter table reservations add constraint one_is_bad check (not (seats = array[5] and status = 'held'))")
        .execute(&test.app.pool)
        .await
        .unwrap();
    let _worker = start(&test.env, &[], &[Role::Worker]).await;
    test.until(10, "the bad one to be parked", || async {
        store::operations::count_parked(&test.app.pool).await.unwrap() == 1
    })
    .await;
    drained(&test, subjects::STEPS).await;
    for reservation in pending {
        let expected =
            if reservation.seats == [5] { ReservationStatus::Pending } else { ReservationStatus::Held };
        assert_eq!(test.find(reservation.id).await.status, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn two_payments_in_one_batch_share_the_balance() {
    let test = TestApp::start().await;
    let user = test.user(150).await;
    let (one, other) = (test.reserve(user, &[1]).await, test.reserve(user, &[2]).await);
    let mut blocker = test.app.pool.begin().await.unwrap();
    let account = "select from accounts where user_id = $1 for update";
    sqlx::query(account).bind(user).execute(&mut *blocker).await.unwrap();
    let payments = async { tokio::join!(test.app.booking.pay(one.id), test.app.booking.pay(other.id)) };
    let (answers, ()) = tokio::join!(payments, async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        blocker.commit().await.unwrap();
    });
    drop(answers);
    test.until(5, "both to be decided", || async {
        let both = [test.find(one.id).await, test.find(other.id).await];
        let paid = both.iter().filter(|one| one.status == ReservationStatus::Confirmed).count();
        paid == 1 && both.iter().any(|one| one.saga_rejection.is_some())
    })
    .await;
    assert_eq!(test.balance(user).await, 50);
    test.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_signals_in_one_batch_apply_in_order() {
    let test = TestApp::start().await;
    let user = test.user(100).await;
    for seat in 1..=10 {
        let held = test.reserve(user, &[seat]).await;
        // Whichever comes first decides; the other finds the saga moved on.
        let (paid, cancelled) = tokio::join!(test.app.booking.pay(held.id), test.app.booking.cancel(held.id));
        drop((paid.unwrap(), cancelled.unwrap()));
        test.until(5, "the reservation to end", || async {
            matches!(
                test.find(held.id).await.status,
                ReservationStatus::Confirmed | ReservationStatus::Cancelled
            )
        })
        .await;
        if test.find(held.id).await.status == ReservationStatus::Confirmed {
            test.cancel(held.id).await;
        }
        assert_eq!(test.balance(user).await, 100);
    }
    test.check_books().await;
}

/// Two who hold seats for one buyer at once, in two processes: each has read that the buyer has none.
#[tokio::test(flavor = "multi_thread")]
async fn seat_limit_is_rechecked_on_write() {
    let test = TestApp::start().await;
    let (user, other) = (test.user(0).await, test.user(0).await);
    let now = store::now(&test.app.pool).await.unwrap();
    let compare = async |buyer, own| {
        let whose = (buyer, test.performance);
        let mut read = TrackedRows::from_iter([(whose, Owned::default())]);
        read.change(&whose).unwrap().seats += 1;
        let mut changes = WriteBatch::default();
        store::seats::compare_buyers(&mut changes, &read, now, own);
        // Something is written with it.
        store::payments::mark_refunded(&mut changes, &[Uuid::nil()], now);
        changes.write(&mut test.app.pool.acquire().await.unwrap()).await
    };
    let held = test.reserve(user, &[1]).await.id;
    assert!(is_stale_read(&compare(user, Vec::new()).await.unwrap_err()));
    compare(user, vec![held]).await.expect("what is just being written does not count");
    compare(other, Vec::new()).await.expect("no other transaction is in the way");

    // The second one waits for the first, and then sees its effect.
    let mut first = test.app.pool.begin().await.unwrap();
    store::seats::lock_buyers(&mut first, &[other]).await.unwrap();
    let wanted = "update reservations set user_id = $1 where id = $2";
    sqlx::query(wanted).bind(other).bind(held).execute(&mut *first).await.unwrap();
    let (second, ()) = tokio::join!(compare(other, Vec::new()), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        first.commit().await.unwrap();
    });
    assert!(is_stale_read(&second.unwrap_err()));
}

/// A reservation is confirmed by another transaction while a statement that ends it waits for its row.
#[tokio::test(flavor = "multi_thread")]
async fn ended_reservations_are_counted_when_written() {
    let test = TestApp::start().await;
    let held = test.reserve(test.user(0).await, &[1]).await;
    let now = store::now(&test.app.pool).await.unwrap();
    let expire = async || {
        let end = Reservation { status: ReservationStatus::Expired, ..held.clone() };
        let mut changes = WriteBatch::default();
        store::reservations::end_open(&mut changes, &[end], now);
        changes.write(&mut test.app.pool.acquire().await.unwrap()).await
    };
    let mut first = test.app.pool.begin().await.unwrap();
    let confirm = "update reservations set status = 'confirmed' where id = $1";
    sqlx::query(confirm).bind(held.id).execute(&mut *first).await.unwrap();
    let (second, ()) = tokio::join!(expire(), async {
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        first.commit().await.unwrap();
    });
    assert!(is_stale_read(&second.unwrap_err()));
    expire().await.expect("one that has ended before the statement begins is left as it is");
    assert_eq!(test.find(held.id).await.status, ReservationStatus::Confirmed);
}

/// One buyer orders one seat after the other, all at once, at two processes without a word between them.
#[tokio::test(flavor = "multi_thread")]
async fn two_processes_respect_one_seat_limit() {
    let test = without_workers(&["--settle-ms", "1"]).await;
    let user = test.user(0).await;
    let orders: Vec<_> = (1..=40).map(|seat| test.order(user, &[seat])).collect();
    let pending = queued(&test, orders).await;
    let _two = [start(&test.env, &[], &[Role::Worker]).await, start(&test.env, &[], &[Role::Worker]).await];
    drained(&test, subjects::STEPS).await;
    let mut held = 0;
    for reservation in pending {
        held += usize::from(test.find(reservation.id).await.status == ReservationStatus::Held);
    }
    assert_eq!(held, 12);
    test.check_books().await;
}
