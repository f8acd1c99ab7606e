//! Scans of gates that were offline.

use chrono::{TimeDelta, Utc};
use futures::future::join_all;
use serde_json::{Value, json};

use super::{REDEMPTIONS, Venue};
use crate::common::app::assert_good;

fn seconds_ago(seconds: i64) -> String {
    (Utc::now() - TimeDelta::seconds(seconds)).to_rfc3339()
}

fn results(upload: &Value) -> Vec<&str> {
    upload["results"].as_array().unwrap().iter().map(|one| one["result"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn earliest_scan_wins_whichever_was_stored_first() {
    let venue = Venue::open().await;
    let (one, two, three) = (venue.ticket(1).await, venue.ticket(2).await, venue.ticket(3).await);
    let (early, middle) = (seconds_ago(90), seconds_ago(60));
    let online = venue.scan(&one["code"], "North").await.good(201).clone();
    venue.scan_at(&two["code"], "North", &early).await.good(201);

    let scans = [
        (&one["code"], early.as_str()),
        (&two["code"], &middle),
        (&three["code"], &middle),
        (&three["code"], &early),
    ];
    let upload = venue.upload("South", &scans).await;
    assert_eq!(results(&upload), ["redeemed", "already_redeemed", "already_redeemed", "redeemed"]);
    assert_eq!(
        (&upload["redeemed"], &upload["conflicts"], &upload["refused"]),
        (&json!(2), &json!(2), &json!(0))
    );
    // The online scan was later: both gates admitted, and the upload says so.
    let overtaken = &upload["results"][0]["others"];
    assert_eq!(*overtaken, json!([{ "gate": "North", "redeemed_at": online["redeemed_at"] }]));
    assert_eq!(upload["results"][1]["others"][0]["gate"], "North");
    assert_eq!(venue.scan(&one["code"], "North").await.is(409, "already_redeemed")["gate"], "South");

    // The same upload again changes nothing and says the same.
    assert_eq!(venue.upload("South", &scans).await, upload);
    let stored: i64 =
        sqlx::query_scalar("select count(*) from redemptions").fetch_one(&venue.entrance.pool).await.unwrap();
    assert_eq!(stored, 6, "two online scans and four uploaded ones");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn bad_scans_do_not_spoil_an_upload() {
    let venue = Venue::open().await;
    let (good, (sold, buyer)) = (venue.ticket(1).await, venue.sell(&[2]).await);
    venue.entrance.cancel(&buyer, &sold).await.good(200);
    let void = &sold["tickets"][0]["code"];
    let (now, never) = (seconds_ago(5), "1990-01-01T00:00:00Z");
    let scans = [(&json!("T1"), now.as_str()), (void, &now), (&good["code"], never), (&good["code"], &now)];
    let upload = venue.upload("South", &scans).await;
    assert_eq!(results(&upload), ["not_found", "ticket_void", "wrong_date", "redeemed"]);
    assert_eq!((&upload["redeemed"], &upload["refused"]), (&json!(1), &json!(3)));
    assert_eq!(upload["results"][3]["seat"], 1);

    let path = format!("{REDEMPTIONS}/batch");
    let body = json!({ "gate": "", "scans": [{ "code": "", "scanned_at": "2999-01-01T00:00:00Z" }] });
    assert_eq!(venue.entrance.post(&path, &venue.gate, body).await.pointers(), ["/gate", "/scans/0/code"]);
    let body = json!({ "gate": "South", "scans": [{ "code": "T1", "scanned_at": "2999-01-01T00:00:00Z" }] });
    assert_eq!(venue.entrance.post(&path, &venue.gate, body).await.pointers(), ["/scans/0/scanned_at"]);
    let many: Vec<Value> = vec![json!({ "code": "T1", "scanned_at": now }); 1_001];
    let body = json!({ "gate": "South", "scans": many });
    assert_eq!(venue.entrance.post(&path, &venue.gate, body).await.pointers(), ["/scans"]);
}

#[tokio::test]
async fn undone_scan_stays_undone_when_uploaded_again() {
    let venue = Venue::open().await;
    let ticket = venue.ticket(1).await;
    let (early, late) = (seconds_ago(60), seconds_ago(30));
    let scans = [(&ticket["code"], early.as_str()), (&ticket["code"], &late)];
    assert_eq!(results(&venue.upload("South", &scans).await), ["redeemed", "already_redeemed"]);
    venue.undo(&ticket, "the wrong person").await.good(200);
    assert_eq!(results(&venue.upload("South", &scans).await), ["undone", "undone"]);
    venue.scan_at(&ticket["code"], "South", &early).await.is(409, "illegal_act");
    venue.scan(&ticket["code"], "North").await.good(201);
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gates_that_upload_at_once_agree() {
    let venue = Venue::open().await;
    let tickets = join_all((1..=40).map(|seat| venue.ticket(seat))).await;
    let gates = ["A", "B", "C", "D"];
    // Each gate has scanned all tickets, in another order and at other times.
    let uploads = gates.iter().enumerate().map(async |(at, gate)| {
        let scans: Vec<(usize, String)> = (0..tickets.len())
            .map(|ticket| (ticket, seconds_ago(100 + ((ticket + at * 3) % gates.len()) as i64 * 10)))
            .collect();
        let mut scans: Vec<(&Value, &str)> =
            scans.iter().map(|(ticket, time)| (&tickets[*ticket]["code"], time.as_str())).collect();
        scans.rotate_left(at * 10);
        venue.upload(gate, &scans).await
    });
    let online = join_all(tickets.iter().map(|ticket| venue.scan(&ticket["code"], "online")));
    let (uploads, _) = tokio::join!(join_all(uploads), online);
    assert_eq!(uploads.len(), gates.len());
    let valid: Vec<(String, i64)> = sqlx::query_as(
        "select gate, count(*) from redemptions where status = 'valid' group by gate order by gate",
    )
    .fetch_all(&venue.entrance.pool)
    .await
    .unwrap();
    let expected: Vec<(String, i64)> = gates.iter().map(|gate| ((*gate).to_owned(), 10)).collect();
    assert_eq!(valid, expected, "each gate was the first at a quarter of the tickets");
    assert_good(&venue.entrance.test.app).await;
}
