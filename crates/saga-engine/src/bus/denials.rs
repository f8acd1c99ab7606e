//! Subjects that the server has forbidden to this user.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

/// Most subjects that are remembered; with more, all are forgotten and denied anew.
const MAX_DENIED: usize = 1_024;
/// How the server begins its complaint about a publish that the user may not do. The subject follows in quotes.
const VIOLATION: &str = "permissions violation for publish to \"";

/// Subjects that the server has forbidden. It says so apart from any request: there is no answer to the publish itself.
#[derive(Clone, Debug)]
pub struct Denials {
    at: Arc<Mutex<HashMap<String, Instant>>>,
    news: watch::Sender<()>,
}

impl Default for Denials {
    fn default() -> Self {
        Self { at: Arc::default(), news: watch::Sender::new(()) }
    }
}

impl Denials {
    /// Takes note of what the server complains about.
    pub fn note(&self, complaint: &str) {
        let begin = complaint.to_lowercase().find(VIOLATION).map(|at| at + VIOLATION.len());
        let subject = begin.and_then(|begin| complaint.get(begin..)?.split('"').next());
        let Some(subject) = subject else { return };
        let mut denied = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        if denied.len() >= MAX_DENIED {
            denied.clear();
        }
        denied.insert(subject.to_owned(), Instant::now());
        drop(denied);
        self.news.send_replace(());
    }

    /// Changes whenever the server complains.
    pub(super) fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    /// Whether the server has complained about a subject since then.
    pub(super) fn is_denied(&self, subject: &str, since: Instant) -> bool {
        let denied = self.at.lock().unwrap_or_else(PoisonError::into_inner);
        denied.get(subject).is_some_and(|at| *at >= since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denied_subject_is_read_from_the_complaint() {
        let (denials, since) = (Denials::default(), Instant::now());
        denials.note("Permissions Violation for Publish to \"steps.shelf.Reserve\"");
        denials.note("Permissions Violation for Subscription to \"steps.>\"");
        assert!(denials.is_denied("steps.shelf.Reserve", since));
        assert!(!denials.is_denied("steps.>", since));
        assert!(
            !denials.is_denied("steps.shelf.Reserve", Instant::now() + std::time::Duration::from_secs(1))
        );
    }
}
