//! Counts the cost of each way: tries, statements, transactions and messages.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counters that all callers share.
#[derive(Debug, Default)]
pub(super) struct Cost {
    tries: AtomicU64,
    statements: AtomicU64,
    transactions: AtomicU64,
    messages: AtomicU64,
}

/// What was spent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Spent {
    /// How often something was begun: more than once for one answer if another came in between.
    pub tries: u64,
    /// What Postgres was asked, `begin` and `commit` included: as many ways there and back.
    pub statements: u64,
    pub transactions: u64,
    /// What NATS was asked.
    pub messages: u64,
}

impl Cost {
    /// Notes one more try.
    pub(super) fn tried(&self) {
        self.tries.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes transactions, and the statements in them and around them.
    pub(super) fn asked(&self, transactions: u64, statements: u64) {
        self.transactions.fetch_add(transactions, Ordering::Relaxed);
        self.statements.fetch_add(statements, Ordering::Relaxed);
    }

    /// Notes a message to NATS that was answered.
    pub(super) fn messaged(&self) {
        self.messages.fetch_add(1, Ordering::Relaxed);
    }

    /// What was spent since the last time.
    pub(super) fn take(&self) -> Spent {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        Spent {
            tries: take(&self.tries),
            statements: take(&self.statements),
            transactions: take(&self.transactions),
            messages: take(&self.messages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cost_is_taken_once() {
        let cost = Cost::default();
        cost.tried();
        cost.asked(1, 4);
        cost.messaged();
        assert_eq!(cost.take(), Spent { tries: 1, statements: 4, transactions: 1, messages: 1 });
        assert_eq!(cost.take(), Spent::default());
    }
}
