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
    /// Null for a ticket that another user has taken over.
    code: Option<String>,
    /// `valid`, `void`, or `transferred` to another user.
    status: String,
}

impl TicketView {
    /// The ticket with its code.
    pub fn of(ticket: Ticket, performance_id: Uuid, keys: &TicketKeys) -> Self {
        let code = code(&ticket, performance_id, keys);
        let Ticket { id, seat, status, holder_id } = ticket;
        let is_transferred = holder_id.is_some() && status == "valid";
        Self { id, seat, code, status: if is_transferred { "transferred".to_owned() } else { status } }
    }
}

/// The code of a ticket for its buyer; none for a ticket that another user has taken over.
pub fn code(ticket: &Ticket, performance_id: Uuid, keys: &TicketKeys) -> Option<String> {
    let signed = SignedTicket { ticket_id: ticket.id, performance_id, seat: ticket.seat };
    ticket.holder_id.is_none().then(|| keys.code(signed))
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
