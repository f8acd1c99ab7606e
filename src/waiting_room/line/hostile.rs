//! Records that no correct instance writes: extreme times and numbers, another user's place, mutated JSON. Reading
//! them never panics, and a line with such a record still admits and ends all other places.

use std::time::Duration;

use chrono::{DateTime, Utc};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::place::{Entry, Event, Place, PlaceStatus, Record, next};
use super::lottery::Lottery;
use super::queue::Queue;
use crate::ids::{ConcertId, UserId};

fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_900_000_000 + seconds, 0).unwrap()
}

fn user(number: u128) -> UserId {
    UserId::from_u128(number)
}

fn waiting(place: Place) -> Entry {
    Entry { revision: place, place, issued_at: at(0), status: PlaceStatus::Waiting }
}

fn active(place: Place, revision: u64, until: i64) -> Entry {
    let status = PlaceStatus::Active { activated_at: at(0), expires_at: at(until), used: false };
    Entry { revision, place, issued_at: at(0), status }
}

/// Times around all limits, and some plausible ones.
fn time() -> impl Strategy<Value = Value> {
    let written = prop::sample::select(vec![
        "+262142-12-31T23:59:59.999999999Z",
        "-262143-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "2200-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "0000-01-01T00:00:00Z",
        "2030-03-17T17:46:40.000000999Z",
        "yesterday",
    ]);
    prop_oneof![
        written.prop_map(Value::from),
        (-100_000i64..100_000).prop_map(|seconds| json!(at(seconds))),
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
    ]
}

fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        prop::sample::select(vec![0, 1, 5, 7, u64::MAX, i64::MAX.cast_unsigned()]).prop_map(Value::from),
        Just(Value::Null),
        Just(json!(-1)),
        Just(json!(1e300)),
    ]
}

fn record() -> impl Strategy<Value = Value> {
    let status = prop::sample::select(vec!["waiting", "active", "gone"]);
    (status, [time(), time(), time(), time()], number(), any::<bool>()).prop_map(
        |(status, [issued_at, activated_at, expires_at, grace_until], place, used)| {
            json!({
                "user": user(1), "concert": ConcertId::nil(), "status": status, "issued_at": issued_at,
                "activated_at": activated_at, "expires_at": expires_at, "grace_until": grace_until,
                "place": place, "used": used,
            })
        },
    )
}

/// Everything that happens to a place that was read.
fn exercise(entry: Entry) {
    let claim = Duration::from_secs(86_400);
    for now in [at(0), DateTime::UNIX_EPOCH, crate::clock::LATEST] {
        for event in [
            Event::Admit { now, claim },
            Event::GoSilent { now, grace: claim },
            Event::Heartbeat { now },
            Event::CheckEnd { now },
            Event::Hold { until: now },
            Event::Use { until: now },
        ] {
            next(&entry, event);
        }
        let record = Record::with_status(user(1), ConcertId::nil(), &entry, entry.status);
        assert!(record.key_ttl(now) >= Duration::from_secs(3_600));
        assert_eq!(Record::read(&record.to_bytes(), entry.revision), Some(entry));
    }
    entry.claims(user(1), ConcertId::nil());
}

/// A line with two correct places, before and after this one, continues to work.
fn goes_on(entry: Entry) {
    let mut queue = Queue::default();
    queue.put(user(2), waiting(5), 0, None);
    queue.put(user(1), entry, 0, Some(Duration::from_secs(1)));
    queue.put(user(3), waiting(entry.revision + 1), 0, None);
    let lottery = Lottery::new(b"secret", at(1), true);
    for is_drawn in [false, true] {
        if is_drawn {
            queue.draw(lottery);
        }
        let front: Vec<_> = queue.front().map(|(user, _)| user).collect();
        assert!(front.contains(&user(2)) && front.contains(&user(3)), "{front:?}");
        assert!(queue.view(user(2)).rank.is_some() && queue.view(user(3)).rank.is_some());
        queue.next_end();
        queue.oldest();
        queue.since(at(0));
        assert!(queue.overdue(at(-1), 10).iter().all(|(who, _)| *who == user(1)));
    }
    // Written again with another time of arrival, then deleted.
    let later = Entry { revision: entry.revision + 2, issued_at: at(2), ..entry };
    queue.put(user(1), later, 0, None);
    queue.end_locally(user(1), later.place, at(3));
    queue.count_end(user(1), at(3), Duration::from_secs(2));
    queue.delete(user(1), later.revision + 1, at(3));
    let due: Vec<_> = queue.overdue(at(86_400), 10).into_iter().map(|(user, _)| user).collect();
    assert_eq!(due, [user(2), user(3)], "their day is over");
    queue.delete(user(2), later.revision + 2, at(3));
    assert_eq!((queue.waiting(), queue.view(user(3)).rank), (1, Some(1)));
}

proptest! {
    #[test]
    fn no_record_stops_a_line(record in record(), revision in prop::sample::select(vec![1, 6, 9, 1 << 62])) {
        if let Some(entry) = Record::read(record.to_string().as_bytes(), revision) {
            exercise(entry);
            if revision > 5 {
                goes_on(entry);
            }
        }
    }

    #[test]
    fn mutated_records_are_read_or_refused(
        record in record(),
        cut in 0usize..400,
        byte in any::<u8>(),
        noise in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let mut bytes = record.to_string().into_bytes();
        let at = cut % bytes.len();
        bytes[at] = byte;
        for bytes in [&bytes[..], &bytes[..at], &noise[..]] {
            if let Some(entry) = Record::read(bytes, 9) {
                exercise(entry);
            }
        }
    }
}

#[test]
fn record_with_anothers_place_is_deleted() {
    let mut queue = Queue::default();
    queue.put(user(1), waiting(5), 0, None);
    queue.put(user(2), Entry { revision: 9, ..waiting(5) }, 0, None);
    assert_eq!((queue.waiting(), queue.view(user(2)).rank), (1, None));
    assert_eq!(queue.overdue(at(0), 10).iter().map(|(user, _)| *user).collect::<Vec<_>>(), [user(2)]);
    queue.delete(user(2), 10, at(1));
    assert_eq!((queue.waiting(), queue.view(user(1)).rank), (1, Some(1)));
}

#[test]
fn times_and_places_out_of_range_are_refused() {
    let good = json!({
        "user": user(1), "concert": ConcertId::nil(), "status": "active", "issued_at": at(0),
        "activated_at": at(1), "expires_at": at(60), "place": 7, "used": false,
    });
    let read = |field: &str, value: Value| {
        let mut record = good.clone();
        record[field] = value;
        Record::read(record.to_string().as_bytes(), 9)
    };
    assert!(read("place", json!(7)).is_some());
    for (field, value) in [
        ("issued_at", json!("+262142-01-01T00:00:00Z")),
        ("issued_at", json!("1999-12-31T23:59:59Z")),
        ("expires_at", json!("+262142-01-01T00:00:00Z")),
        ("expires_at", json!(at(60 * 86_400))),
        ("activated_at", json!(at(-60 * 86_400))),
        ("place", json!(0)),
        ("place", json!(10)),
        ("place", json!(u64::MAX)),
    ] {
        assert_eq!(read(field, value.clone()), None, "{field} {value}");
    }
}

#[test]
fn sessions_run_out_in_order_of_their_end() {
    let mut queue = Queue::default();
    queue.put(user(1), active(1, 11, 60), 0, None);
    queue.put(user(2), active(2, 12, 30), 0, None);
    assert_eq!(queue.next_end(), Some(at(30)));
    assert_eq!(queue.overdue(at(29), 10).len(), 0);
    assert_eq!(queue.overdue(at(30), 10).iter().map(|(user, _)| *user).collect::<Vec<_>>(), [user(2)]);
    queue.put(user(2), active(2, 13, 90), 0, None);
    assert_eq!(queue.next_end(), Some(at(60)), "a longer session replaces the shorter");
    assert_eq!(queue.active(), 2);
}
