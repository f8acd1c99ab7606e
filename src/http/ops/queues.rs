//! The lines as operators see them, and what they can do to one: pause, resume, admit, change.

use std::collections::HashMap;
use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff, Viewer};
use super::super::idempotency::once;
use super::super::page::{ListQuery, Page, Paged};
use super::super::problem::Result;
use super::super::queue_settings::SettingsWanted;
use super::super::request::{Bodied, Command, Params, PathId};
use super::super::validation::{Validate, Validation};
use crate::operations::acts::OperatorAct;
use crate::operations::queues::{self, By};
use crate::store;
use crate::store::queue::SettingsChange;
use crate::waiting_room::QueueOverview;

/// The most that one act admits.
const ADMIT_MAX: u32 = 1_000_000;

/// A line, and the concert that it is before.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct ListedQueue {
    /// Null if the concert was added a moment ago.
    concert_name: Option<String>,
    #[serde(flatten)]
    line: QueueOverview,
}

/// All lines.
#[utoipa::path(get, path = "/v1/ops/queues", tag = "operations", params(ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<ListedQueue>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Params(query): Params<ListQuery>,
) -> Result<Answer> {
    let before: Option<Uuid> = query.after()?;
    let mut lines = app.room()?.overview();
    lines.retain(|line| before.is_none_or(|before| line.concert_id < before));
    lines.sort_by_key(|line| std::cmp::Reverse(line.concert_id));
    let page = Page::cut(lines, query.limit(), |line| line.concert_id);
    let concerts: Vec<Uuid> = page.items.iter().map(|line| line.concert_id).collect();
    let mut names: HashMap<Uuid, String> =
        store::catalog::names_of(&app.pool, &concerts).await?.into_iter().collect();
    let named = |line: QueueOverview| ListedQueue { concert_name: names.remove(&line.concert_id), line };
    let items = page.items.into_iter().map(named).collect();
    Ok(Answer::ok(&Page { items, next_cursor: page.next_cursor }))
}

/// One line.
#[utoipa::path(get, path = "/v1/ops/queues/{concert}", tag = "operations", params(("concert" = Uuid, Path)),
    security(("key" = [])), responses((status = 200, body = ListedQueue)),
    extensions(("x-problems" = json!(["forbidden", "not_found"]))))]
pub async fn show(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    PathId(concert): PathId,
) -> Result<Answer> {
    let line = app.room()?.overview_of(concert).await?;
    let names = store::catalog::names_of(&app.pool, &[concert]).await?;
    Ok(Answer::ok(&ListedQueue { concert_name: names.into_iter().next().map(|(_, name)| name), line }))
}

/// Why a line is stopped or goes on.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct QueueAct {
    /// Written down with the act.
    #[serde(default)]
    #[schema(format = "line", max_length = 1_000)]
    reason: Option<String>,
}

impl Bodied for QueueAct {
    const MAY_BE_EMPTY: bool = true;
}

impl Validate for QueueAct {
    fn check(&self, faults: &mut Validation) {
        faults.expect_line(self.reason.as_deref().unwrap_or_default(), 0..=1_000, "/reason");
    }
}

/// Stops admission. All places are kept.
#[utoipa::path(post, path = "/v1/ops/queues/{concert}/pause", tag = "operations", request_body = QueueAct,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = QueueOverview)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn pause(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    concert: PathId,
    command: Command<QueueAct>,
) -> Result<Response> {
    set_paused(state, staff, concert, command, true).await
}

/// Lets admission go on.
#[utoipa::path(post, path = "/v1/ops/queues/{concert}/resume", tag = "operations", request_body = QueueAct,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = QueueOverview)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn resume(
    state: State<Arc<AdminState>>,
    staff: Staff<Operator>,
    concert: PathId,
    command: Command<QueueAct>,
) -> Result<Response> {
    set_paused(state, staff, concert, command, false).await
}

/// Changes how a line runs, in force within a second.
#[utoipa::path(post, path = "/v1/ops/queues/{concert}/settings", tag = "operations", request_body = SettingsWanted,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = QueueOverview)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn set(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(concert): PathId,
    command: Command<SettingsWanted>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, _| {
        let by = wanted.by(&staff.key.name);
        let settings = app.room()?.change_settings(concert, &wanted.change(), by).await?;
        let overview = app.room()?.overview_of(concert).await?;
        Ok(Answer::ok(&QueueOverview { settings, ..overview }))
    })
    .await
}

/// Which acts on lines are asked for.
#[derive(Clone, Debug, Default, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
pub struct QueueActs {
    /// Only acts on the line of this concert.
    #[serde(default)]
    concert: Option<Uuid>,
}

impl Validate for QueueActs {}

/// What operators did to lines: who, when, why, and from what to what; newest first.
#[utoipa::path(get, path = "/v1/ops/queues/acts", tag = "operations", params(QueueActs, ListQuery),
    security(("key" = [])), responses((status = 200, body = Page<OperatorAct>)),
    extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn acts(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Paged { wanted, page }: Paged<QueueActs>,
) -> Result<Answer> {
    let rows = queues::acts(&app.pool, wanted.concert, page.after()?, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, page.limit(), |act| act.id)))
}

/// Who acts on a line, and why.
fn by<'a>(staff: &'a Staff<Operator>, reason: Option<&'a str>) -> By<'a> {
    By { actor: &staff.key.name, reason: reason.unwrap_or_default() }
}

async fn set_paused(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(concert): PathId,
    command: Command<QueueAct>,
    paused: bool,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |act, _| {
        let change = SettingsChange { paused: Some(paused), ..SettingsChange::default() };
        let settings =
            app.room()?.change_settings(concert, &change, by(&staff, act.reason.as_deref())).await?;
        let overview = app.room()?.overview_of(concert).await?;
        Ok(Answer::ok(&QueueOverview { settings, ..overview }))
    })
    .await
}

/// How many are to be admitted.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct Admission {
    /// 1 if it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000_000)]
    count: Option<u32>,
    /// Written down with the act.
    #[serde(default)]
    #[schema(format = "line", max_length = 1_000)]
    reason: Option<String>,
}

impl Admission {
    fn count(&self) -> u32 {
        self.count.unwrap_or(1)
    }
}

impl Bodied for Admission {
    const MAY_BE_EMPTY: bool = true;
}

impl Validate for Admission {
    fn check(&self, faults: &mut Validation) {
        let count = (1..=ADMIT_MAX).contains(&self.count());
        faults.expect(count, "/count", format!("must be between 1 and {ADMIT_MAX}"));
        faults.expect_line(self.reason.as_deref().unwrap_or_default(), 0..=1_000, "/reason");
    }
}

/// Who was admitted, and the line after it.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Admitted {
    /// Fewer than asked for if the line is shorter or the cap is reached.
    admitted: u32,
    #[serde(flatten)]
    line: QueueOverview,
}

/// Admits the next in line now: beyond the rate, never beyond the cap.
#[utoipa::path(post, path = "/v1/ops/queues/{concert}/admit", tag = "operations", request_body = Admission,
    params(("concert" = Uuid, Path)), security(("key" = [])), responses((status = 200, body = Admitted)),
    extensions(("x-problems" = json!(["forbidden", "not_found", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn admit(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    PathId(concert): PathId,
    command: Command<Admission>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |wanted, _| {
        let by = by(&staff, wanted.reason.as_deref());
        let admitted = app.room()?.admit(concert, wanted.count(), by).await?;
        let line = app.room()?.overview_of(concert).await?;
        Ok(Answer::ok(&Admitted { admitted, line }))
    })
    .await
}
