//! The operators' queries and acts. The API and the command line both call this module, so both can do the same.
//!
//! Questions read the database that the engine writes, so that no answer lags behind. Acts go through
//! [`crate::orchestrator::Engine::act`], one saga at a time, each written down with who, when and why. A refund moves no
//! saga and has its own transaction.

pub mod reopening;
pub mod batch_jobs;
pub mod dates;
pub mod date_refunds;
mod job_end;
pub mod exports;
pub mod sales_report;
pub mod personal_data;
pub mod deployments;
pub mod batch;
pub mod repair;
pub mod refund;
pub mod support;
pub mod why;
pub mod pauses;
pub mod overview;
pub mod sagas;
pub mod parked;
pub mod queues;
pub mod acts;
pub mod tail;
pub mod fleet;
pub mod definitions;
pub mod gauges;
pub mod timeline;
pub mod filter;
pub mod view;

pub use filter::SagaFilter;
pub use repair::Repaired;
pub use timeline::SagaDetail;
pub use view::SagaView;

use crate::store::saga_search;

/// Why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error("there is no such saga")]
    Unknown,
    #[error("searching took longer than {} s; narrow the filter", saga_search::PATIENCE.as_secs())]
    TooWide,
    #[error(transparent)]
    Database(sqlx::Error),
}

impl From<sqlx::Error> for AskError {
    fn from(error: sqlx::Error) -> Self {
        if saga_search::was_cut_off(&error) { Self::TooWide } else { Self::Database(error) }
    }
}
