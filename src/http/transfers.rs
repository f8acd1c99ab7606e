//! Giving a ticket to another user, and taking one.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::AuthUser;
use super::error::Code;
use super::idempotency::once;
use super::page::{ListQuery, Page};
use super::problem::{Problem, Result, sentence};
use super::request::{Command, NoBody, Params, PathId, PathName};
use super::state::AppState;
use crate::store::transfers::TakenTicket;
use crate::ticket_codes::{SignedTicket, TicketKeys};
use crate::transfers::{Offer, TransferError};

/// The link with which another user takes a ticket over. It is shown once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct TicketTransfer {
    /// For `POST /v1/tickets/transfers/{token}/acceptance`.
    token: String,
    expires_at: DateTime<Utc>,
}

/// A ticket that was taken over from another user.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ReceivedTicket {
    id: Uuid,
    performance_id: Uuid,
    seat: i32,
    code: String,
    /// `valid` or `void`.
    status: String,
}

impl ReceivedTicket {
    fn of(ticket: TakenTicket, keys: &TicketKeys) -> Self {
        let TakenTicket { ticket_id, performance_id, seat, status, .. } = ticket;
        let code = keys.code(SignedTicket { ticket_id, performance_id, seat });
        Self { id: ticket_id, performance_id, seat, code, status }
    }
}

/// Makes a link with which another user takes this ticket over, once. An earlier link of the ticket ends, so a repeated request
/// makes a new one.
#[utoipa::path(post, path = "/v1/tickets/{ticket}/transfer", tag = "tickets", params(("ticket" = Uuid, Path)),
    security(("user" = [])), responses((status = 201, body = TicketTransfer)),
    extensions(("x-problems" = json!(["not_found", "ticket_not_transferable"]))))]
pub async fn offer(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(ticket): PathId,
    _command: Command<NoBody>,
) -> Result<Answer> {
    // No answer is saved under an Idempotency-Key: the token is stored nowhere, and a repeated request makes a new link.
    let Offer { token, expires_at } = app.transfers.offer(user.id, ticket).await?;
    Ok(Answer::created(&TicketTransfer { token, expires_at }))
}

/// Ends the open link of a ticket.
#[utoipa::path(delete, path = "/v1/tickets/{ticket}/transfer", tag = "tickets", params(("ticket" = Uuid, Path)),
    security(("user" = [])), responses((status = 204)),
    extensions(("x-problems" = json!(["not_found", "ticket_not_transferable"]))))]
pub async fn withdraw(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathId(ticket): PathId,
) -> Result<StatusCode> {
    app.transfers.withdraw(user.id, ticket).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Takes a ticket over. The old code admits no more, and the answer has the new one. Refunds go to the user who paid.
#[utoipa::path(post, path = "/v1/tickets/transfers/{token}/acceptance", tag = "tickets",
    params(("token" = String, Path)), security(("user" = [])), responses((status = 201, body = ReceivedTicket)),
    extensions(("x-problems" = json!(["not_found", "ticket_not_transferable", "transfer_over", "request_in_progress",
        "idempotency_key_reused"]))))]
pub async fn accept(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    PathName(token): PathName,
    command: Command<NoBody>,
) -> Result<Response> {
    once(&app.repeats, user.caller(), command, async |_, _| {
        let taken = app.transfers.accept(user.id, &token).await?;
        Ok(Answer::created(&ReceivedTicket::of(taken, &app.tickets)))
    })
    .await
}

/// Tickets that the caller has taken over from other users, the latest first.
#[utoipa::path(get, path = "/v1/tickets", tag = "tickets", params(ListQuery), security(("user" = [])),
    responses((status = 200, body = Page<ReceivedTicket>)))]
pub async fn list(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    let rows = app.transfers.taken(user.id, query.after()?, query.limit() + 1).await?;
    let page = Page::cut(rows, query.limit(), |ticket| ticket.transfer_id);
    let items = page.items.into_iter().map(|ticket| ReceivedTicket::of(ticket, &app.tickets)).collect();
    Ok(Answer::ok(&Page { items, next_cursor: page.next_cursor }))
}

impl From<TransferError> for Problem {
    fn from(error: TransferError) -> Self {
        let detail = sentence(&error);
        match error {
            TransferError::Unknown => Self::not_found("ticket or link"),
            TransferError::Off | TransferError::NotTransferable | TransferError::Own => {
                Self::new(Code::TicketNotTransferable, detail)
            }
            TransferError::Over => Self::new(Code::TransferOver, detail),
            TransferError::Database(error) => error.into(),
        }
    }
}
