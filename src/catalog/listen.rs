//! What is heard of changes, from every instance and from this one.

use async_nats::Subscriber;
use futures::StreamExt;
use tokio_util::sync::CancellationToken;

use super::Catalog;
use crate::bus::messages::SeatsChanged;

/// Passes on which dates have other seats now.
pub(super) async fn seats(catalog: Catalog, mut told: Subscriber, stop: CancellationToken) {
    while let Some(Some(message)) = stop.run_until_cancelled(told.next()).await {
        match serde_json::from_slice::<SeatsChanged>(&message.payload) {
            Ok(changed) => {
                for performance in &changed.performances {
                    catalog.maps.changed(performance).await;
                }
                for concert in &changed.concerts {
                    catalog.dates.changed(concert).await;
                }
            }
            Err(error) => tracing::warn!(%error, "a message about changed seats is malformed"),
        }
    }
}

/// Passes on that there are other concerts or dates now.
pub(super) async fn concerts(catalog: Catalog, mut told: Subscriber, stop: CancellationToken) {
    while let Some(Some(_)) = stop.run_until_cancelled(told.next()).await {
        catalog.forget_concerts();
    }
}
