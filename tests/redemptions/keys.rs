//! The codes of tickets and the keys that sign them.

use boxoffice::ticket_codes::{SignedTicket, TicketKeys};
use serde_json::Value;
use uuid::Uuid;

use super::{OPEN, Venue};
use crate::common::app::TICKET_SECRET;
use crate::common::http::{Caller, Entrance};
use boxoffice::store::api_keys::Role;

const NEXT_SECRET: &str = "the next secret of the tests, which signs tickets later";

async fn keys(entrance: &Entrance) -> Value {
    entrance.get("/v1/tickets/keys", &Caller::anonymous()).await.good(200)["items"].clone()
}

#[tokio::test]
async fn every_answer_shows_the_same_signed_code() {
    let venue = Venue::open().await;
    let buyer = venue.entrance.admitted(1_000).await;
    let held = venue.entrance.reserve(&buyer, &[1, 2]).await.good(201).clone();
    let receipt = venue.entrance.pay(&buyer, &held).await.good(201).clone();
    let again = venue.entrance.pay(&buyer, &held).await.good(200).clone();
    let path = format!("/v1/reservations/{}", held["id"].as_str().unwrap());
    let shown = venue.entrance.get(&path, &buyer).await.good(200).clone();
    let listed = venue.entrance.get("/v1/reservations", &buyer).await.good(200)["items"][0].clone();
    let codes = |answer: &Value| {
        let tickets = answer["tickets"].as_array().unwrap().iter();
        tickets.map(|ticket| ticket["code"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    for answer in [&again, &shown, &listed] {
        assert_eq!(codes(answer), codes(&receipt));
    }
    let id: Uuid = receipt["tickets"][1]["id"].as_str().unwrap().parse().unwrap();
    let performance_id = venue.entrance.test.performance;
    let read = TicketKeys::new(TICKET_SECRET, []).unwrap().read(&codes(&receipt)[1]);
    assert_eq!(read, Some(SignedTicket { ticket_id: id, performance_id, seat: 2 }));
}

#[tokio::test]
async fn codes_survive_the_exchange_of_the_key() {
    let venue = Venue::open().await;
    let (first, second) = (venue.ticket(1).await, venue.ticket(2).await);
    let before = keys(&venue.entrance).await;
    assert_eq!((before.as_array().unwrap().len(), &before[0]["algorithm"]), (1, &Value::from("Ed25519")));
    let (old, gate) = (before[0]["key"].as_str().unwrap().to_owned(), venue.gate.clone());
    let flags = [&OPEN[..], &["--ticket-secret", NEXT_SECRET, "--ticket-public-keys", &old]].concat();
    let entrance = venue.entrance.restarted(&flags).await;
    let after = keys(&entrance).await;
    assert_eq!((&after[0]["is_current"], &after[1]["key"]), (&Value::from(true), &Value::from(old)));
    let venue = Venue {
        support: entrance.key(Role::Support).await,
        cashier: entrance.key(Role::Cashier).await,
        gate,
        entrance,
    };
    venue.scan(&first["code"], "North").await.good(201);
    venue.scan(&venue.ticket(3).await["code"], "North").await.good(201);

    let flags = [&OPEN[..], &["--ticket-secret", NEXT_SECRET]].concat();
    let Venue { entrance, gate, support, cashier } = venue;
    let venue = Venue { entrance: entrance.restarted(&flags).await, gate, support, cashier };
    venue.scan(&second["code"], "North").await.is(404, "not_found");
}
