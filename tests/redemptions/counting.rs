//! How many tickets of a date are redeemed.

use std::time::Duration;

use boxoffice::ids;
use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::Venue;
use crate::common::app::until;

/// How long an event of a stream may take to come.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn redemptions_are_counted_by_gate() {
    let venue = Venue::open().await;
    let performance = venue.entrance.test.performance;
    let (sold, _) = venue.sell(&[1, 2, 3, 4]).await;
    for (ticket, gate) in [(0, "North"), (1, "South"), (2, "North")] {
        venue.scan(&sold["tickets"][ticket]["code"], gate).await.good(201);
    }
    let expected = json!({
        "performance_id": performance, "tickets": 4, "redeemed": 3,
        "gates": [{ "gate": "North", "redeemed": 2 }, { "gate": "South", "redeemed": 1 }]
    });
    until(10, "the counts", || async { *venue.counts(performance, &venue.gate).await.good(200) == expected })
        .await;
    venue.counts(ids::new(), &venue.gate).await.is(404, "not_found");
}

#[tokio::test]
async fn stream_of_counts_follows_scans_and_undoes() {
    let venue = Venue::open().await;
    let ticket = venue.ticket(1).await;
    let viewer = venue.entrance.key(Role::Viewer).await;
    let path = format!("/v1/performances/{}/redemptions/events", venue.entrance.test.performance);
    let mut stream = venue.entrance.request(Method::GET, &path, &viewer).send().await.unwrap();
    assert_eq!(stream.headers()["content-type"], "text/event-stream");
    let mut unread = String::new();
    assert_eq!(next(&mut stream, &mut unread).await["redeemed"], 0);
    venue.scan(&ticket["code"], "North").await.good(201);
    assert_eq!(next(&mut stream, &mut unread).await["redeemed"], 1);
    venue.undo(&ticket, "the wrong person").await.good(200);
    assert_eq!(next(&mut stream, &mut unread).await["redeemed"], 0);
}

/// The next event of a stream; comments are passed over.
async fn next(stream: &mut reqwest::Response, unread: &mut String) -> Value {
    loop {
        if let Some((event, rest)) = unread.split_once("\n\n") {
            let data = event.lines().find_map(|line| line.strip_prefix("data: ")).map(str::to_owned);
            *unread = rest.to_owned();
            if let Some(data) = data {
                return serde_json::from_str(&data).unwrap();
            }
            continue;
        }
        let chunk = timeout(EVENT_TIMEOUT, stream.chunk()).await.expect("in time").unwrap();
        unread.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).unwrap());
    }
}
