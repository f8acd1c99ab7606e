//! Tickets as their buyers see them, and the public keys of their codes.

use std::sync::Arc;

use axum::extract::State;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::problem::Result;
use crate::store::reservations::Ticket;
use crate::ticket_codes::{PublicTicketKey, SignedTicket, TicketKeys};

/// A ticket for one seat.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Ticket)]
pub struct TicketView {
    id: Uuid,
    seat: i32,
    code: String,
    /// `valid` or `void`.
    status: String,
}

impl TicketView {
    /// The ticket with its code.
    pub fn of(ticket: Ticket, performance_id: Uuid, keys: &TicketKeys) -> Self {
        let code = code(&ticket, performance_id, keys);
        let Ticket { id, seat, status } = ticket;
        Self { id, seat, code, status }
    }
}

/// The code of a ticket.
pub fn code(ticket: &Ticket, performance_id: Uuid, keys: &TicketKeys) -> String {
    keys.code(SignedTicket { ticket_id: ticket.id, performance_id, seat: ticket.seat })
}

/// Public keys of ticket codes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TicketKeyList {
    items: Vec<PublicTicketKey>,
}

/// The public keys that ticket codes are checked with, the one that signs first. With them a scanner can check codes
/// without a connection; the page about the gate describes how a code is made.
#[utoipa::path(get, path = "/v1/tickets/keys", tag = "tickets",
    responses((status = 200, body = TicketKeyList)), extensions(("x-problems" = json!(["unavailable"]))))]
pub async fn keys(State(app): State<Arc<AdminState>>) -> Result<Answer> {
    Ok(Answer::ok(&TicketKeyList { items: app.redemptions()?.keys.public() }))
}
