//! The log of operator actions.

use std::sync::Arc;

use axum::extract::State;

use super::super::admin_state::AdminState;
use super::super::answer::Answer;
use super::super::auth::{Staff, Viewer};
use super::super::page::{ListQuery, Page, Paged};
use super::super::problem::Result;
use super::super::validation::{Validate, Validation};
use crate::operations::acts::{self, ActsFilter, OperatorAct};

impl Validate for ActsFilter {
    fn check(&self, faults: &mut Validation) {
        for (field, problem) in self.problems() {
            faults.expect(false, format!("/{field}"), problem);
        }
        if let Some(since) = self.since {
            faults.expect_time(since, "/since");
        }
    }
}

/// Operators' acts, newest first.
#[utoipa::path(get, path = "/v1/ops/acts", tag = "operations", params(ActsFilter, ListQuery), security(("key" = [])),
    responses((status = 200, body = Page<OperatorAct>)), extensions(("x-problems" = json!(["forbidden"]))))]
pub async fn list(
    State(app): State<Arc<AdminState>>,
    _staff: Staff<Viewer>,
    Paged { wanted, page }: Paged<ActsFilter>,
) -> Result<Answer> {
    let rows = acts::list(&app.pool, &wanted, page.after()?, page.limit() + 1).await?;
    Ok(Answer::ok(&Page::cut(rows, page.limit(), |act| act.id)))
}
