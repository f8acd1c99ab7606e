//! Tickets at the entrance: one of many scans admits, offline scans are uploaded, support undoes.

mod counting;
mod cancelling;
mod keys;
mod rights;
mod scans;
mod transfers;
mod uploads;

use boxoffice::store::api_keys::Role;
use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::common::http::{Caller, Entrance, Reply, try_reply};

const REDEMPTIONS: &str = "/v1/tickets/redemptions";
/// The test's performance is in a month.
const OPEN: [&str; 2] = ["--gate-before-minutes", "525600"];

/// A service with a gate that is open, and keys for it.
struct Venue {
    entrance: Entrance,
    gate: Caller,
    support: Caller,
    cashier: Caller,
}

impl Venue {
    async fn open() -> Self {
        Self::with(&OPEN).await
    }

    async fn with(flags: &[&str]) -> Self {
        let entrance = Entrance::with(flags).await;
        let gate = entrance.key(Role::Gate).await;
        let support = entrance.key(Role::Support).await;
        let cashier = entrance.key(Role::Cashier).await;
        Self { entrance, gate, support, cashier }
    }

    /// Sells these seats to a new buyer; the reservation, and its buyer.
    async fn sell(&self, seats: &[i64]) -> (Value, Caller) {
        let buyer = self.entrance.user(1_000).await;
        let performance = self.entrance.test.performance;
        let order =
            json!({ "performance_id": performance, "seats": seats, "pay": true, "user_id": buyer.id });
        (self.entrance.post("/v1/reservations", &self.cashier, order).await.good(201).clone(), buyer)
    }

    /// The ticket of one seat, sold to a new buyer.
    async fn ticket(&self, seat: i64) -> Value {
        self.sell(&[seat]).await.0["tickets"][0].clone()
    }

    async fn scan(&self, code: &Value, gate: &str) -> Reply {
        self.entrance.post(REDEMPTIONS, &self.gate, json!({ "code": code, "gate": gate })).await
    }

    async fn scan_at(&self, code: &Value, gate: &str, at: &str) -> Reply {
        self.try_scan_at(code, gate, at).await.unwrap()
    }

    async fn try_scan_at(&self, code: &Value, gate: &str, at: &str) -> reqwest::Result<Reply> {
        let scan = json!({ "code": code, "gate": gate, "scanned_at": at });
        try_reply(self.entrance.request(Method::POST, REDEMPTIONS, &self.gate).json(&scan)).await
    }

    async fn upload(&self, gate: &str, scans: &[(&Value, &str)]) -> Value {
        let scans: Vec<Value> =
            scans.iter().map(|(code, at)| json!({ "code": code, "scanned_at": at })).collect();
        let body = json!({ "gate": gate, "scans": scans });
        self.entrance.post(&format!("{REDEMPTIONS}/batch"), &self.gate, body).await.good(200).clone()
    }

    async fn undo(&self, ticket: &Value, reason: &str) -> Reply {
        let path = format!("{REDEMPTIONS}/{}/undo", ticket["id"].as_str().unwrap());
        self.entrance.post(&path, &self.support, json!({ "reason": reason })).await
    }

    async fn counts(&self, performance: Uuid, caller: &Caller) -> Reply {
        self.entrance.get(&format!("/v1/performances/{performance}/redemptions"), caller).await
    }
}
