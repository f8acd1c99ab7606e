//! What an error says about all connections of this process: that they are outdated, or that the server may be another one.

use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::sqlstate;

/// Milliseconds of this process until which connections are outdated, plus one; 0 if none are.
static OUTDATED_UNTIL: AtomicU64 = AtomicU64::new(0);
static BEGIN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Rises whenever the server may be another one by now.
static TROUBLE: LazyLock<tokio::sync::watch::Sender<u64>> =
    LazyLock::new(|| tokio::sync::watch::Sender::new(0));

/// No connection that there is by now is used again. All pools of a process lead to the same database.
pub fn outdate_connections() {
    let now = u64::try_from(BEGIN.elapsed().as_millis()).unwrap_or(u64::MAX - 1);
    OUTDATED_UNTIL.fetch_max(now + 1, Ordering::Relaxed);
}

pub fn is_outdated(age: Duration) -> bool {
    let until = OUTDATED_UNTIL.load(Ordering::Relaxed);
    let made_at = BEGIN.elapsed().saturating_sub(age);
    u128::from(until) > made_at.as_millis()
}

/// Draws the conclusions from an error for all connections: those that are of no use any more are given up, and where there
/// are several servers, the one that can be written is looked for.
pub fn note(error: &sqlx::Error) {
    let is_trouble = match error {
        sqlx::Error::Database(error) => {
            let outdates = error.code().is_some_and(|code| sqlstate::outdates_connections(&code));
            if outdates {
                outdate_connections();
            }
            outdates
        }
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::Protocol(_) => true,
        _ => false,
    };
    if is_trouble {
        announce();
    }
}

/// The server may be another one by now.
pub fn announce() {
    TROUBLE.send_modify(|times| *times += 1);
}

/// Hears of trouble from now on.
pub fn watch() -> tokio::sync::watch::Receiver<u64> {
    TROUBLE.subscribe()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_connections_before_the_error_are_outdated() {
        LazyLock::force(&BEGIN);
        std::thread::sleep(Duration::from_millis(20));
        outdate_connections();
        assert!(is_outdated(Duration::from_millis(10)));
        std::thread::sleep(Duration::from_millis(5));
        assert!(!is_outdated(Duration::ZERO));
    }

    #[test]
    fn lost_connection_is_trouble_broken_constraint_is_not() {
        let mut heard = watch();
        heard.mark_unchanged();
        note(&sqlx::Error::RowNotFound);
        let before = *heard.borrow();
        note(&sqlx::Error::PoolTimedOut);
        assert!(*heard.borrow() > before);
    }
}
