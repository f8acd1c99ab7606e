//! Access codes of a presale: made, listed and revoked by staff.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::admin_state::AdminState;
use super::answer::Answer;
use super::auth::{Admin, Staff};
use super::code_lookup::{generate, hash};
use super::idempotency::once;
use super::page::{ListQuery, Page};
use super::problem::{Fault, Problem, Result};
use super::request::{Bodied, Command, Params, PathId, PathIdName};
use super::validation::{Validate, Validation};
use crate::ids::{self, ConcertId};
use crate::store;
use crate::store::access_codes::{AccessCode, NewCode, NewCodes};

/// Most codes of one request.
const CODES_MAX: i32 = 1_000;
/// Most uses of a code, and most seats.
const USES_MAX: i32 = 100_000;
/// Characters of a code that staff see later.
const ENDING_CHARS: usize = 4;

/// Codes to be made.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct CodesWanted {
    /// How many codes.
    #[schema(minimum = 1, maximum = 1_000)]
    count: i32,
    /// The one date that they are for; all dates of the concert, if it is left out.
    #[serde(default)]
    performance_id: Option<Uuid>,
    /// Most reservations of each code that are held or confirmed at a time; 1, if it is left out.
    #[serde(default = "single")]
    #[schema(minimum = 1, maximum = 100_000, default = 1)]
    max_uses: i32,
    /// Most seats of these reservations together.
    #[schema(minimum = 1, maximum = 100_000)]
    max_seats: i32,
}

fn single() -> i32 {
    1
}

impl Bodied for CodesWanted {}

impl Validate for CodesWanted {
    fn check(&self, faults: &mut Validation) {
        let bounds = [
            ("/count", self.count, CODES_MAX),
            ("/max_uses", self.max_uses, USES_MAX),
            ("/max_seats", self.max_seats, USES_MAX),
        ];
        for (pointer, value, most) in bounds {
            faults.expect((1..=most).contains(&value), pointer, format!("must be between 1 and {most}"));
        }
    }
}

/// Codes that were made. They are shown once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodesMade {
    codes: Vec<CodeMade>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CodeMade {
    id: Uuid,
    /// What a buyer sends as `access_code`.
    code: String,
}

/// Makes access codes for the presale of a concert or of one of its dates. The codes are in this answer only: what is kept is
/// their hashes. With an `Idempotency-Key` the answer is kept for a day.
#[utoipa::path(post, path = "/v1/admin/concerts/{concert}/access-codes", tag = "admin", request_body = CodesWanted,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 201, body = CodesMade)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn add(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathId(concert): PathId,
    command: Command<CodesWanted>,
) -> Result<Response> {
    let created_by = staff.key.name.clone();
    once(&app.repeats, staff.caller(), command, async |wanted, effect| {
        find_concert(&app, concert).await?;
        if let Some(date) = wanted.performance_id {
            let date = store::dates::get(&app.pool, date).await?;
            if date.is_none_or(|date| date.concert_id != concert) {
                let fault = Fault::new("/performance_id", "is not a performance of this concert");
                return Err(Problem::invalid(vec![fault]));
            }
        }
        let made: Vec<CodeMade> =
            (0..wanted.count).map(|_| CodeMade { id: ids::new(), code: generate() }).collect();
        let codes: Vec<NewCode> = made.iter().map(CodeMade::stored).collect();
        let new = NewCodes {
            concert_id: concert,
            performance_id: wanted.performance_id,
            codes: &codes,
            max_uses: wanted.max_uses,
            max_seats: wanted.max_seats,
            created_by: &created_by,
        };
        let answer = Answer::created(&CodesMade { codes: made });
        let mut tx = app.pool.begin().await?;
        let now = store::now(&mut *tx).await?;
        store::access_codes::insert(&mut *tx, &new, now).await?;
        effect.save(&mut *tx, &answer).await?;
        tx.commit().await?;
        Ok(answer)
    })
    .await
}

async fn find_concert(app: &AdminState, concert: ConcertId) -> Result<()> {
    let known = store::catalog::concert(&app.pool, concert, app.clock.now()).await?;
    known.map(drop).ok_or_else(|| Problem::not_found("concert"))
}

/// The access codes of a concert, the newest first, without the codes themselves.
#[utoipa::path(get, path = "/v1/admin/concerts/{concert}/access-codes", tag = "admin",
    params(("concert" = Uuid, Path), ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<AccessCode>)), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Admin>,
    PathId(concert): PathId,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    find_concert(&app, concert).await?;
    let (after, limit) = (query.after()?, query.limit());
    let rows = store::access_codes::of_concert(&app.pool, concert, after, limit + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, limit, |code| code.id)))
}

/// Revokes an access code. Reservations that were made with it stay.
#[utoipa::path(delete, path = "/v1/admin/concerts/{concert}/access-codes/{code}", tag = "admin",
    params(("concert" = Uuid, Path), ("code" = Uuid, Path)), security(("key" = [])),
    responses((status = 204, description = "Revoked")), extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn revoke(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Admin>,
    PathIdName(concert, code): PathIdName,
) -> Result<Response> {
    let id: Option<Uuid> = Some(code).filter(|text| text.len() == 36).and_then(|text| text.parse().ok());
    let id = id.ok_or_else(|| Problem::not_found("access code"))?;
    if !store::access_codes::revoke(&app.pool, concert, id, &staff.key.name).await? {
        return Err(Problem::not_found("access code"));
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

impl CodeMade {
    fn stored(&self) -> NewCode {
        let ending = self.code[self.code.len() - ENDING_CHARS..].to_owned();
        NewCode { id: self.id, hash: hash(&self.code), ending }
    }
}
