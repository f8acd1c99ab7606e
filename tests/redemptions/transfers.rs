//! A ticket is given to another user.

use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::{Value, json};

use super::Venue;
use crate::common::app::assert_good;
use crate::common::http::{Caller, Reply};

const ON: [&str; 4] = ["--gate-before-minutes", "525600", "--transfers", "on"];

impl Venue {
    async fn offer(&self, ticket: &Value, owner: &Caller) -> Reply {
        let path = format!("/v1/tickets/{}/transfer", ticket["id"].as_str().unwrap());
        self.entrance.post(&path, owner, json!({})).await
    }

    async fn token(&self, ticket: &Value, owner: &Caller) -> String {
        self.offer(ticket, owner).await.good(201)["token"].as_str().unwrap().to_owned()
    }

    async fn accept(&self, token: &str, taker: &Caller) -> Reply {
        let path = format!("/v1/tickets/transfers/{token}/acceptance");
        self.entrance.post(&path, taker, json!({})).await
    }

    async fn received(&self, taker: &Caller) -> Value {
        self.entrance.get("/v1/tickets", taker).await.good(200)["items"].clone()
    }
}

#[tokio::test]
async fn taker_gets_a_new_code_and_the_old_one_is_void() {
    let venue = Venue::with(&ON).await;
    let (sold, buyer) = venue.sell(&[1, 2]).await;
    let (friend, other) = (venue.entrance.user(0).await, venue.entrance.user(0).await);
    let ticket = &sold["tickets"][0];
    let token = venue.token(ticket, &buyer).await;
    venue.scan(&ticket["code"], "North").await.good(201);
    venue.undo(ticket, "a rehearsal").await.good(200);

    venue.accept(&token, &buyer).await.is(409, "ticket_not_transferable");
    let taken = venue.accept(&token, &friend).await.good(201).clone();
    assert_eq!((&taken["seat"], &taken["status"]), (&json!(1), &json!("valid")));
    assert_ne!(taken["id"], ticket["id"]);
    assert_ne!(taken["code"], ticket["code"]);
    venue.scan(&ticket["code"], "North").await.is(409, "ticket_void");
    assert_eq!(venue.scan(&taken["code"], "North").await.good(201)["ticket_id"], taken["id"]);
    // The link is spent, except for the user who used it.
    venue.accept(&token, &other).await.is(410, "transfer_over");
    assert_eq!(*venue.accept(&token, &friend).await.good(201), taken);

    assert_eq!(venue.received(&friend).await, json!([taken]));
    assert_eq!(venue.received(&other).await, json!([]));
    let path = format!("/v1/reservations/{}", sold["id"].as_str().unwrap());
    let shown = venue.entrance.get(&path, &buyer).await.good(200)["tickets"].clone();
    assert_eq!((&shown[0]["status"], &shown[0]["code"]), (&json!("transferred"), &Value::Null));
    assert_eq!(shown[1], sold["tickets"][1], "the other ticket stays with its buyer");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn refund_of_a_transferred_ticket_goes_to_the_payer() {
    let venue = Venue::with(&ON).await;
    let (sold, buyer) = venue.sell(&[1]).await;
    let (friend, second) = (venue.entrance.user(0).await, venue.entrance.user(0).await);
    let token = venue.token(&sold["tickets"][0], &buyer).await;
    let taken = venue.accept(&token, &friend).await.good(201).clone();
    // The taker may pass it on, and the buyer may not any more.
    venue.offer(&taken, &buyer).await.is(404, "not_found");
    let token = venue.token(&taken, &friend).await;
    let last = venue.accept(&token, &second).await.good(201).clone();
    assert_eq!(venue.received(&friend).await, json!([]));
    venue.scan(&taken["code"], "North").await.is(409, "ticket_void");

    let before = venue.entrance.get("/v1/points", &buyer).await.good(200)["balance"].as_i64().unwrap();
    venue.entrance.cancel(&buyer, &sold).await.good(200);
    let after = venue.entrance.get("/v1/points", &buyer).await.good(200)["balance"].as_i64().unwrap();
    assert_eq!(after - before, 100);
    assert_eq!(venue.received(&second).await[0]["status"], "void");
    venue.scan(&last["code"], "North").await.is(409, "ticket_void");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn links_end_and_tickets_that_cannot_go_stay() {
    let venue = Venue::with(&ON).await;
    let (sold, buyer) = venue.sell(&[1, 2, 3]).await;
    let friend = venue.entrance.user(0).await;
    let ticket = |at: usize| &sold["tickets"][at];
    // A second link replaces the first; a withdrawn one is over too.
    let (first, second) = (venue.token(ticket(0), &buyer).await, venue.token(ticket(0), &buyer).await);
    venue.accept(&first, &friend).await.is(410, "transfer_over");
    let path = format!("/v1/tickets/{}/transfer", ticket(0)["id"].as_str().unwrap());
    venue.entrance.send(Method::DELETE, &path, &friend, None).await.is(404, "not_found");
    assert_eq!(venue.entrance.send(Method::DELETE, &path, &buyer, None).await.status, 204);
    venue.accept(&second, &friend).await.is(410, "transfer_over");
    venue.accept("unknown", &friend).await.is(404, "not_found");

    let late = venue.token(ticket(1), &buyer).await;
    sqlx::query("update ticket_transfers set expires_at = now() where status = 'open'")
        .execute(&venue.entrance.pool)
        .await
        .unwrap();
    venue.accept(&late, &friend).await.is(410, "transfer_over");

    let token = venue.token(ticket(2), &buyer).await;
    venue.scan(&ticket(2)["code"], "North").await.good(201);
    venue.accept(&token, &friend).await.is(409, "ticket_not_transferable");
    venue.offer(ticket(2), &buyer).await.is(409, "ticket_not_transferable");
    venue.offer(ticket(1), &friend).await.is(404, "not_found");
    venue.offer(ticket(1), &Caller::anonymous()).await.is(401, "unauthenticated");
    let key = venue.entrance.key(Role::Admin).await;
    venue.offer(ticket(1), &key).await.is(401, "unauthenticated");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_takers_scans_and_refunds_one_wins() {
    let venue = Venue::with(&ON).await;
    let takers = futures::future::join_all((0..8).map(|_| venue.entrance.user(0))).await;
    for seat in 1..=6 {
        let (sold, buyer) = venue.sell(&[seat]).await;
        let ticket = &sold["tickets"][0];
        let token = venue.token(ticket, &buyer).await;
        let taking = futures::future::join_all(takers.iter().map(|taker| venue.accept(&token, taker)));
        let (taken, scan, cancelled) =
            tokio::join!(taking, venue.scan(&ticket["code"], "North"), venue.entrance.cancel(&buyer, &sold));
        let taken = taken.iter().filter(|reply| reply.status == 201).count();
        let cancelled = [200, 202].contains(&cancelled.status);
        // A taken ticket may still be refunded to the buyer, and then a scan of the old code was refused.
        assert!(taken <= 1, "{taken} users took one ticket");
        assert!(scan.status != 201 || (taken == 0 && !cancelled), "{scan:#?}");
    }
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test]
async fn transfers_are_off_unless_set() {
    let venue = Venue::open().await;
    let (sold, buyer) = venue.sell(&[1]).await;
    venue.offer(&sold["tickets"][0], &buyer).await.is(409, "ticket_not_transferable");
    venue.accept("token", &buyer).await.is(409, "ticket_not_transferable");
}
