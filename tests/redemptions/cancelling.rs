//! A ticket that has admitted is not refunded to its buyer, and a refunded ticket does not admit.

use futures::future::join_all;

use super::Venue;
use crate::common::app::assert_good;

#[tokio::test]
async fn buyer_gets_no_refund_for_a_redeemed_ticket() {
    let venue = Venue::open().await;
    let (sold, buyer) = venue.sell(&[1, 2]).await;
    venue.scan(&sold["tickets"][1]["code"], "North").await.good(201);
    let problem = venue.entrance.cancel(&buyer, &sold).await.is(409, "reservation_not_cancellable").clone();
    assert!(problem["detail"].as_str().unwrap().contains("support"), "{problem}");
    venue.undo(&sold["tickets"][1], "the doors never opened").await.good(200);
    assert_eq!(venue.entrance.cancel(&buyer, &sold).await.good(200)["status"], "cancelled");
    assert_good(&venue.entrance.test.app).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scan_and_cancellation_at_once_never_both_succeed() {
    let venue = Venue::open().await;
    let seats: Vec<[i64; 1]> = (1..=40).map(|seat| [seat]).collect();
    let sales = join_all(seats.iter().map(|seat| venue.sell(seat))).await;
    let races = sales.iter().map(async |(sold, buyer)| {
        let (scan, cancellation) = tokio::join!(
            venue.scan(&sold["tickets"][0]["code"], "North"),
            venue.entrance.cancel(buyer, sold)
        );
        let outcome = (scan.status, cancellation.status);
        assert!([(201, 409), (409, 200), (409, 202)].contains(&outcome), "{scan:#?}\n{cancellation:#?}");
    });
    join_all(races).await;
    assert_good(&venue.entrance.test.app).await;
}
