//! The plans of the statements that are executed again and again, with their indexes and without.
//!
//! The store's own functions are called on a connection to which the server sends every plan with its execution. So
//! the page shows what the service does, and cannot fall behind it.

mod hot;
mod page;
mod executed;

use anyhow::Context;
use serde::Serialize;
use sqlx::PgPool;

pub use executed::ExecutedPlan;
pub use hot::{Hot, Sample, all};
pub use page::write;

use hot::Run;

use crate::store::plans;
use boxoffice::store;
use boxoffice::store::write_batch::WriteBatch;

/// A statement's plans.
#[derive(Clone, Debug, Serialize)]
pub struct Compared {
    pub what: &'static str,
    /// The indexes it must use.
    pub indexes: &'static [&'static str],
    pub with: ExecutedPlan,
    /// No index could be used.
    pub without: ExecutedPlan,
}

/// Which plans are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planned {
    /// Those for the values at hand.
    ForTheseValues,
    /// Those for any values, as the server may make them for a statement that comes often.
    ForAnyValues,
}

/// One connection on which the server sends its plans.
#[derive(Debug)]
pub struct Listener(PgPool);

impl Listener {
    /// Connects to a database; the user must be allowed to load `auto_explain`.
    ///
    /// # Errors
    /// When it cannot be reached or is not allowed.
    pub async fn connect(url: &str, planned: Planned) -> anyhow::Result<Self> {
        let pool = store::open(url, 1)?;
        let mut conn = pool.acquire().await?;
        plans::send_as_notices(&mut conn).await?;
        if planned == Planned::ForAnyValues {
            plans::plan_for_any_values(&mut conn).await?;
        }
        drop(conn);
        Ok(Self(pool))
    }

    /// Executes a statement and answers how it was carried out. What it changes is taken back.
    ///
    /// # Errors
    /// When it fails, or the server sent no plan.
    pub async fn plan(&self, hot: &Hot, sample: &Sample) -> anyhow::Result<ExecutedPlan> {
        let (result, plans) = executed::listen(async {
            match hot.run {
                Run::Alone(run) => run(&self.0, sample).await,
                Run::Within(run) => {
                    let mut tx = self.0.begin().await?;
                    run(&mut tx, sample).await?;
                    tx.rollback().await
                }
                Run::Writes(write) => {
                    let (mut tx, mut changes) = (self.0.begin().await?, WriteBatch::default());
                    write(&mut changes, sample);
                    changes.write(&mut tx).await?;
                    tx.rollback().await
                }
            }
        })
        .await;
        result?;
        let about = |one: &ExecutedPlan| one.plan.contains(&format!(" on {}", hot.table));
        let all = plans.into_iter().filter(about).reduce(ExecutedPlan::and);
        all.with_context(|| format!("the server sent no plan of: {}", hot.what))
    }

    /// A statement with its indexes and without any. Each is executed twice, so that what is read is in memory.
    ///
    /// # Errors
    /// As for [`Listener::plan`].
    pub async fn compare(&self, hot: &Hot, sample: &Sample) -> anyhow::Result<Compared> {
        self.plan(hot, sample).await?;
        let with = self.plan(hot, sample).await?;
        plans::use_indexes(&mut *self.0.acquire().await?, false).await?;
        let without = match self.plan(hot, sample).await {
            Ok(_) => self.plan(hot, sample).await,
            Err(error) => Err(error),
        };
        plans::use_indexes(&mut *self.0.acquire().await?, true).await?;
        Ok(Compared { what: hot.what, indexes: hot.indexes, with, without: without? })
    }
}

impl ExecutedPlan {
    /// Both, one after the other.
    fn and(mut self, next: Self) -> Self {
        self.ms += next.ms;
        self.pages += next.pages;
        self.indexes.extend(next.indexes);
        self.read_whole.extend(next.read_whole);
        self.plan.push_str(&next.plan);
        self
    }

    /// Those of the indexes that were not used; a part of a table has them under names that begin alike.
    pub fn lacks(&self, indexes: &[&'static str]) -> Vec<&'static str> {
        let used = |index: &&str| self.indexes.iter().any(|used| used.starts_with(*index));
        indexes.iter().copied().filter(|index| !used(index)).collect()
    }
}
