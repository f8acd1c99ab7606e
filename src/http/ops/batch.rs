//! One act on every saga that a filter finds.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::ToSchema;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Operator, Staff};
use super::super::idempotency::once;
use super::super::problem::Result;
use super::super::request::{Bodied, Command};
use super::super::validation::{Validate, Validation};
use super::saga_acts::check_reason;
use crate::operations::SagaFilter;
use crate::operations::batch::{self, Batch, LIMIT_MAX, RATE_DEFAULT, RATE_MAX, Tally};
use crate::saga::OperatorAction;

/// How long one request may take; the next one goes on with what is left.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do, to which sagas, and how fast.
#[derive(Clone, Debug, Deserialize, ToSchema)]
pub struct BatchOrder {
    /// `retry`, `skip_undo`, `cancel`, `abandon`, `pause` or `resume`.
    act: String,
    filter: SagaFilter,
    /// Written down with every act.
    #[schema(format = "line", min_length = 1, max_length = 1_000)]
    reason: String,
    /// Only look: how many there are, and which of them would be refused.
    #[serde(default)]
    dry_run: bool,
    /// Acts per second, 1 to 1000; 50 if it is left out.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 1_000)]
    rate_per_second: Option<u32>,
    /// At most so many sagas, the newest first; 1000 if it is left out. By the rate it must be done in 60 seconds.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 10_000)]
    limit: Option<u32>,
}

impl BatchOrder {
    fn rate(&self) -> u32 {
        self.rate_per_second.unwrap_or(RATE_DEFAULT)
    }

    fn limit(&self) -> u32 {
        self.limit.unwrap_or(1_000)
    }
}

impl Bodied for BatchOrder {}

impl Validate for BatchOrder {
    fn check(&self, faults: &mut Validation) {
        check_order(&self.act, &self.filter, &self.reason, self.rate(), faults);
        let rate = (1..=RATE_MAX).contains(&self.rate());
        let limit = (1..=LIMIT_MAX).contains(&self.limit());
        faults.expect(limit, "/limit", format!("must be between 1 and {LIMIT_MAX}"));
        let quick = self.dry_run || batch::longest(self.limit(), self.rate()) <= PATIENCE;
        let seconds = PATIENCE.as_secs();
        let problem = format!(
            "would take longer than {seconds} seconds at this rate; raise it, ask in parts, or start a job at /v1/ops/batches"
        );
        faults.expect(!(rate && limit) || quick, "/limit", problem);
    }
}

/// Notes what is wrong with an order of many acts, but for their number.
pub fn check_order(act: &str, filter: &SagaFilter, reason: &str, rate: u32, faults: &mut Validation) {
    let is_known = batch::act_named(act).is_some();
    faults.expect(is_known, "/act", "must be retry, skip_undo, cancel, abandon, pause or resume");
    faults.expect(!filter.is_everything(), "/filter", "must narrow the sagas that are meant");
    for (field, problem) in filter.problems() {
        faults.expect(false, format!("/filter/{field}"), problem);
    }
    check_reason(reason, faults);
    let is_good = (1..=RATE_MAX).contains(&rate);
    faults.expect(is_good, "/rate_per_second", format!("must be between 1 and {RATE_MAX}"));
}

/// Does one act to every saga that a filter finds, paced and bounded; each is written down by itself. A request whose
/// caller goes away stops after the act under way. For more than a minute of work, start a job: `POST /v1/ops/batches`.
#[utoipa::path(post, path = "/v1/ops/sagas/batch", tag = "operations", request_body = BatchOrder,
    security(("key" = [])), responses((status = 200, body = Tally)),
    extensions(("x-problems" = json!(["forbidden", "request_in_progress", "idempotency_key_reused"]))))]
pub async fn run(
    State(app): State<Arc<AdminState>>,
    staff: Staff<Operator>,
    command: Command<BatchOrder>,
) -> Result<Response> {
    once(&app.repeats, staff.caller(), command, async |order, _| {
        let wanted = Batch {
            act: batch::act_named(&order.act).unwrap_or(OperatorAction::Retry),
            actor: staff.key.name.clone(),
            dry_run: order.dry_run,
            per_second: order.rate(),
            limit: order.limit(),
            filter: order.filter,
            reason: order.reason,
        };
        // Acts that are slower than the pace must not keep the caller for ever.
        let stop: CancellationToken = app.stop.child_token();
        let in_time = tokio::time::sleep(PATIENCE * 2);
        let run = batch::run(&app.engine, &wanted, &stop, |_| {});
        tokio::pin!(run, in_time);
        let tally = tokio::select! {
            tally = &mut run => tally?,
            () = &mut in_time => {
                stop.cancel();
                run.await?
            }
        };
        Ok(Answer::ok(&tally))
    })
    .await
}
