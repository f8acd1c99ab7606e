//! Those who have a stream of their place open: a bounded number on each instance.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::error::Code;
use super::problem::{Problem, Result};

/// The seats for listeners.
#[derive(Debug)]
pub struct Listeners {
    seats: Arc<Semaphore>,
    most: u32,
}

/// One who listens; the seat is given back when this is dropped.
#[derive(Debug)]
pub struct Listener {
    _seat: OwnedSemaphorePermit,
}

impl Listeners {
    /// At most so many at once.
    pub fn new(most: u32) -> Self {
        Self { seats: Arc::new(Semaphore::new(most as usize)), most }
    }

    /// A seat, if one is free.
    pub fn admit(&self) -> Result<Listener> {
        let Ok(seat) = Arc::clone(&self.seats).try_acquire_owned() else {
            metrics::counter!("boxoffice_queue_streams_refused_total").increment(1);
            let detail = format!(
                "{} streams of places in line are open on this instance, and no more are allowed \
                 (BOXOFFICE_QUEUE_STREAMS). Ask for the place itself, as often as poll_after_ms says.",
                self.most
            );
            return Err(Problem::new(Code::Unavailable, detail));
        };
        metrics::gauge!("boxoffice_queue_streams").increment(1.0);
        Ok(Listener { _seat: seat })
    }

    /// How many listen at the moment.
    pub fn open(&self) -> usize {
        self.most as usize - self.seats.available_permits()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        metrics::gauge!("boxoffice_queue_streams").decrement(1.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_listener_has_gone() {
        let listeners = Listeners::new(1);
        let first = listeners.admit().unwrap();
        let refused = listeners.admit().unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(refused.body()["detail"].as_str().unwrap().starts_with("1 streams"), "it names the limit");
        assert_eq!(listeners.open(), 1);
        drop(first);
        assert_eq!(listeners.open(), 0);
        assert!(listeners.admit().is_ok());
    }
}
