//! One scan after the other, and many at once.

use std::collections::BTreeMap;
use std::time::Duration;

use boxoffice::ids;
use boxoffice::ticket_codes::{SignedTicket, TicketKeys};
use chrono::{DateTime, TimeDelta, Utc};
use futures::StreamExt;
use futures::stream;
use serde_json::{Value, json};

use super::{OPEN, REDEMPTIONS, Venue};
use crate::common::app::{TICKET_SECRET, add_performance_at, assert_good};

/// Scans of one ticket at the same moment.
const SCANS: usize = 1_000;
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread")]
async fn one_of_a_thousand_scans_admits() {
    let venue = Venue::open().await;
    let ticket = venue.ticket(1).await;
    let (gates, at): (Vec<String>, _) =
        ((0..SCANS).map(|scan| format!("gate {scan}")).collect(), Utc::now().to_rfc3339());
    let scans = gates.iter().map(async |gate| {
        // On a busy machine some are refused for overload; scanners send them again, with the same time.
        for _ in 0..100 {
            match venue.try_scan_at(&ticket["code"], gate, &at).await {
                Ok(reply) if reply.status != 503 => return reply,
                _ => tokio::time::sleep(RETRY_INTERVAL).await,
            }
        }
        panic!("the scan at {gate} was not answered");
    });
    let replies: Vec<_> = stream::iter(scans).buffer_unordered(SCANS).collect().await;
    let mut statuses: BTreeMap<u16, usize> = BTreeMap::new();
    replies.iter().for_each(|reply| *statuses.entry(reply.status).or_default() += 1);
    // The one that admits may have been answered 503 at first, and 200 when it was sent again.
    let again = statuses.remove(&200).unwrap_or(0);
    *statuses.entry(201).or_default() += again;
    assert_eq!(statuses, BTreeMap::from([(201, 1), (409, SCANS - 1)]));
    let admitted = &replies.iter().find(|reply| reply.status < 300).unwrap().body;
    for refused in replies.iter().filter(|reply| reply.status == 409) {
        let problem = refused.is(409, "already_redeemed");
        for fact in ["ticket_id", "performance_id", "seat", "redeemed_at", "gate"] {
            assert_eq!(problem[fact], admitted[fact], "{fact}");
        }
    }
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn gate_works_while_nats_is_away() {
    let venue = Venue::open().await;
    let (first, second) = (venue.ticket(1).await, venue.ticket(2).await);
    venue.entrance.kill_nats();
    let admitted = venue.scan(&first["code"], "North").await.good(201).clone();
    assert_eq!(
        (&admitted["ticket_id"], &admitted["seat"], &admitted["gate"]),
        (&first["id"], &json!(1), &json!("North"))
    );
    venue.scan(&first["code"], "South").await.is(409, "already_redeemed");
    let at = Utc::now().to_rfc3339();
    assert_eq!(venue.upload("South", &[(&second["code"], &at)]).await["redeemed"], 1);
    venue.undo(&first, "the wrong person").await.good(200);
    venue.scan(&first["code"], "South").await.good(201);
}

#[tokio::test]
async fn each_refusal_has_its_own_code() {
    let venue = Venue::open().await;
    let (sold, buyer) = venue.sell(&[1]).await;
    let code = sold["tickets"][0]["code"].clone();
    let performance = venue.entrance.test.performance;

    let forged: String = code.as_str().unwrap().chars().rev().collect();
    let stranger = TicketKeys::new("the secret of another box office, not of this one", []).unwrap();
    let own = TicketKeys::new(TICKET_SECRET, []).unwrap();
    let facts = SignedTicket { ticket_id: ids::new(), performance_id: performance, seat: 1 };
    let no_seat = own.code(SignedTicket { seat: 5_000, ..facts });
    let no_date = own.code(SignedTicket { performance_id: ids::new(), ..facts });
    for unknown in ["T1", &forged, &stranger.code(facts), &no_seat, &no_date] {
        venue.scan(&json!(unknown), "North").await.is(404, "not_found");
    }
    // Signed by this service, and the seat's ticket is another one by now.
    venue.scan(&json!(own.code(facts)), "North").await.is(409, "ticket_void");

    let other = json!({ "code": code, "gate": "North", "performance_id": ids::new() });
    let problem = venue.entrance.post(REDEMPTIONS, &venue.gate, other).await.is(409, "wrong_date").clone();
    assert_eq!(problem["performance_id"], json!(performance));
    let same = json!({ "code": code, "gate": "North", "performance_id": performance });
    venue.entrance.post(REDEMPTIONS, &venue.gate, same).await.good(201);
    venue.undo(&sold["tickets"][0], "a rehearsal").await.good(200);

    venue.entrance.cancel(&buyer, &sold).await.good(200);
    venue.scan(&code, "North").await.is(409, "ticket_void");
    // The seat is sold again: the next ticket admits, the void one still does not.
    let next = venue.ticket(1).await;
    venue.scan(&code, "North").await.is(409, "ticket_void");
    venue.scan(&next["code"], "North").await.good(201);
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn tickets_admit_around_the_start_only() {
    let venue = Venue::with(&["--gate-before-minutes", "60", "--gate-after-minutes", "30"]).await;
    let problem = venue.scan(&venue.ticket(1).await["code"], "North").await.is(409, "wrong_date").clone();
    let time = |name: &str| problem[name].as_str().unwrap().parse::<DateTime<Utc>>().unwrap();
    assert_eq!(time("starts_at") - time("redeemable_from"), TimeDelta::minutes(60));
    assert_eq!(time("redeemable_until") - time("starts_at"), TimeDelta::minutes(30));

    let (app, now) = (&venue.entrance.test.app, Utc::now());
    let tonight = add_performance_at(
        app,
        venue.entrance.test.concert,
        3,
        100,
        now + TimeDelta::minutes(59),
        now - TimeDelta::hours(1),
    )
    .await;
    let buyer = venue.entrance.user(1_000).await;
    let order = json!({ "performance_id": tonight, "seats": [1, 2, 3], "pay": true, "user_id": buyer.id });
    let sold = venue.entrance.post("/v1/reservations", &venue.cashier, order).await.good(201).clone();
    let code = |seat: usize| &sold["tickets"][seat]["code"];
    venue.scan(code(0), "North").await.good(201);
    // The time of the scan counts, not that of its arrival.
    let before = (now - TimeDelta::minutes(2)).to_rfc3339();
    venue.scan_at(code(1), "North", &before).await.is(409, "wrong_date");
    let later = (now + TimeDelta::minutes(10)).to_rfc3339();
    assert_eq!(venue.scan_at(code(2), "North", &later).await.pointers(), ["/scanned_at"]);
}

#[tokio::test]
async fn earlier_scan_becomes_the_valid_one() {
    let venue = Venue::open().await;
    let ticket = venue.ticket(1).await;
    let code = &ticket["code"];
    let at = |seconds: i64| (Utc::now() - TimeDelta::seconds(seconds)).to_rfc3339();
    let (early, late) = (at(60), at(30));
    venue.scan_at(code, "North", &late).await.good(201);
    let again = venue.scan_at(code, "North", &late).await.good(200).clone();
    assert_eq!(again["duplicates"], json!([]));
    let earlier = venue.scan_at(code, "South", &early).await.good(201).clone();
    assert_eq!(earlier["duplicates"][0]["gate"], "North");
    let refused = venue.scan_at(code, "North", &late).await.is(409, "already_redeemed").clone();
    assert_eq!(refused["gate"], "South");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn scan_under_a_key_is_answered_again() {
    let venue = Venue::open().await;
    let ticket = venue.ticket(1).await;
    let gate = venue.gate.with("idempotency-key", "scan-1");
    let scan = json!({ "code": ticket["code"], "gate": "North" });
    let first = venue.entrance.post(REDEMPTIONS, &gate, scan.clone()).await.good(201).clone();
    let again = venue.entrance.post(REDEMPTIONS, &gate, scan.clone()).await;
    assert_eq!((again.good(201), &again.headers["idempotent-replayed"]), (&first, &"true".parse().unwrap()));
    venue.entrance.post(REDEMPTIONS, &venue.gate, scan).await.is(409, "already_redeemed");
    let other = json!({ "code": ticket["code"], "gate": "South" });
    venue.entrance.post(REDEMPTIONS, &gate, other).await.is(422, "idempotency_key_reused");
}

#[tokio::test]
async fn undone_redemption_is_audited_and_redeemable() {
    let venue = Venue::with(&OPEN).await;
    let (sold, _) = venue.sell(&[1, 2]).await;
    let ticket = &sold["tickets"][0];
    let first = venue.scan(&ticket["code"], "North").await.good(201).clone();
    assert_eq!(venue.undo(ticket, " ").await.pointers(), ["/reason"]);
    let undone = venue.undo(ticket, "the guest left again").await.good(200).clone();
    assert_eq!((&undone["redeemed_at"], &undone["gate"]), (&first["redeemed_at"], &json!("North")));
    venue.undo(ticket, "twice").await.is(404, "not_found");
    venue.undo(&json!({ "id": ids::new() }), "unknown").await.is(404, "not_found");

    let viewer = venue.entrance.key(boxoffice::store::api_keys::Role::Viewer).await;
    let acts = venue.entrance.get("/v1/ops/acts", &viewer).await.good(200)["items"].clone();
    let acts: Vec<&Value> =
        acts.as_array().unwrap().iter().filter(|act| act["act"] == "undo_redemption").collect();
    assert_eq!(acts.len(), 1);
    assert_eq!(acts[0]["saga_id"], sold["id"]);
    assert_eq!((&acts[0]["actor"], &acts[0]["reason"]), (&json!("support"), &json!("the guest left again")));
    assert_eq!(acts[0]["detail"]["ticket_id"], ticket["id"]);
    venue.scan(&ticket["code"], "South").await.good(201);
    assert_good(&venue.entrance.test.app).await;
}
