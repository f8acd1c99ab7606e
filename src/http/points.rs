//! Points: the balance, charging, and the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::answer::Answer;
use super::auth::{AuthUser, Charger};
use super::error::Code;
use super::keyed::{self, Earlier, Effect};
use super::page::{ListQuery, Page};
use super::problem::{Problem, Result};
use super::request::{Bodied, Command, Params, whose};
use super::state::AppState;
use super::validation::{Validate, Validation};
use crate::ids::UserId;
use crate::store;
use crate::store::points::{BALANCE_LIMIT, Entry};

/// The most points of one charge.
const CHARGE_MAX: i64 = 10_000_000;

/// What a user has.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Balance {
    balance: i64,
}

/// Points to be added.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct NewCharge {
    #[schema(minimum = 1, maximum = 10_000_000)]
    amount: i64,
    /// Whose points: with a cashier's key only, and then needed.
    #[serde(default)]
    user_id: Option<Uuid>,
}

impl Bodied for NewCharge {}

impl Validate for NewCharge {
    fn check(&self, faults: &mut Validation) {
        let good = (1..=CHARGE_MAX).contains(&self.amount);
        faults.expect(good, "/amount", format!("must be between 1 and {CHARGE_MAX}"));
    }
}

/// Points that were added.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Charged {
    entry_id: Uuid,
    amount: i64,
    /// The balance after it.
    balance: i64,
}

/// The caller's points.
#[utoipa::path(get, path = "/v1/points", tag = "points", security(("user" = [])),
    responses((status = 200, body = Balance)))]
pub async fn balance(State(app): State<Arc<AppState>>, user: AuthUser) -> Result<Answer> {
    let balance = store::points::balance(&app.pool, user.id).await?;
    Ok(Answer::ok(&Balance { balance }))
}

/// The caller's ledger, newest first.
#[utoipa::path(get, path = "/v1/points/entries", tag = "points", params(ListQuery), security(("user" = [])),
    responses((status = 200, body = Page<Entry>)))]
pub async fn entries(
    State(app): State<Arc<AppState>>,
    user: AuthUser,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    let rows = store::points::entries(&app.pool, user.id, query.after()?, query.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, query.limit(), |entry| entry.position)))
}

/// Adds points. In local mode users do it for themselves; in production it takes a cashier's key.
#[utoipa::path(post, path = "/v1/points/charges", tag = "points", request_body = NewCharge,
    security(("user" = []), ("key" = [])),
    responses((status = 201, body = Charged)),
    extensions(("x-problems" = json!(["forbidden", "balance_limit", "request_in_progress",
        "idempotency_key_required", "idempotency_key_reused"]))))]
pub async fn charge(
    State(app): State<Arc<AppState>>,
    Charger(charger): Charger,
    command: Command<NewCharge>,
) -> Result<Response> {
    let user = whose(&charger, command.body.user_id)?;
    command.require_key()?;
    let (new, claim) = command.claimed_by(charger.caller());
    keyed::once(&app.repeats, claim, &Charge { app: &app, user, amount: new.amount }).await
}

/// A request to add points.
struct Charge<'a> {
    app: &'a AppState,
    user: UserId,
    amount: i64,
}

impl keyed::Request for Charge<'_> {
    async fn work(&self, effect: &Effect) -> Result<Answer> {
        add(self.app, self.user, self.amount, effect).await
    }

    /// The answer is written with the entry: a claim without one is that of an older release, and its request may be at work.
    async fn earlier_answer(&self, _: Earlier) -> Result<Option<Answer>> {
        Ok(None)
    }
}

/// Entry, balance and the key with its answer commit together. If the entry is there already, an earlier request under the
/// same key got that far, and its entry is the answer.
async fn add(app: &AppState, user: UserId, amount: i64, effect: &Effect) -> Result<Answer> {
    let charged = |amount, balance| Answer::created(&Charged { entry_id: effect.id, amount, balance });
    let _turn = app.charges.acquire().await;
    let mut tx = app.pool.begin().await?;
    let answer = match store::points::charge(&mut *tx, effect.id, user, amount).await {
        Ok(Some(balance)) => charged(amount, balance),
        Ok(None) => {
            let detail = format!("A charge may not lift a balance above {BALANCE_LIMIT} points.");
            return Err(Problem::new(Code::BalanceLimit, detail).with("limit", BALANCE_LIMIT));
        }
        Err(error) if is_there_already(&error) => {
            drop(tx);
            let entry = store::points::entry(&app.pool, effect.id, user).await?.ok_or(error)?;
            return Ok(charged(entry.amount, entry.balance));
        }
        Err(error) => return Err(error.into()),
    };
    effect.save(&mut tx, &answer).await?;
    tx.commit().await?;
    Ok(answer)
}

fn is_there_already(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(|error| error.constraint()) == Some("ledger_entries_pkey")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_positive_and_bounded() {
        for (amount, good) in
            [(0, false), (-5, false), (1, true), (CHARGE_MAX, true), (CHARGE_MAX + 1, false)]
        {
            let mut faults = Validation::default();
            NewCharge { amount, user_id: None }.check(&mut faults);
            assert_eq!(faults.finish().is_ok(), good, "{amount}");
        }
    }
}
