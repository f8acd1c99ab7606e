//! Reservations as this process wrote them last, so that a caller is answered and tickets are issued without another read.
//!
//! An entry belongs to one number of the saga's history. A step that finds the saga at another number does not use it: another
//! process has done a step between. The statement of the next step compares its seats and its saga with the rows.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use uuid::Uuid;

use super::Job;
use crate::orchestrator::Batch;
use crate::saga::Status;
use crate::store::reservations::Reservation;
use crate::store::seats::Seat;

/// Most reservations that are remembered, about 1 kB each: as many as are under way in one process at its best.
const MAX_ENTRIES: usize = 8_192;

/// What is remembered. Clones share it.
#[derive(Clone, Debug)]
pub struct BookingCache(Arc<Mutex<LruCache<Uuid, CachedBooking>>>);

/// A reservation at one number of its saga.
#[derive(Clone, Debug)]
pub(super) struct CachedBooking {
    pub seq: i64,
    /// Its seats, as long as they are held.
    pub seats: Vec<Seat>,
    pub reservation: Reservation,
    /// What its buyer had when it was held, if the payment follows at once. The payment's statement compares it.
    pub balance: Option<i64>,
}

/// What a batch makes of reservations: the new entry, or none where the old one is not true any more.
#[derive(Debug, Default)]
pub(super) struct Updates(Vec<(Uuid, Option<CachedBooking>)>);

impl Default for BookingCache {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(MAX_ENTRIES))))
    }
}

impl BookingCache {
    fn entries(&self) -> MutexGuard<'_, LruCache<Uuid, CachedBooking>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reservation, if it is as the caller wants it.
    pub fn get(&self, id: Uuid, wanted: impl Fn(&Reservation) -> bool) -> Option<Reservation> {
        self.entries().peek(&id).map(|entry| &entry.reservation).filter(|found| wanted(found)).cloned()
    }

    /// The saga is about to get a signal, which moves its history on by one. What was written before it answers no caller.
    pub fn signalled(&self, id: Uuid) {
        if let Some(entry) = self.entries().peek_mut(&id) {
            entry.seq += 1;
            entry.reservation.saga_status = Some(Status::Running);
        }
    }

    /// The entry of this job's reservation, if it is of the number at which its saga stands.
    pub(super) fn of_job(&self, job: &Job) -> Option<CachedBooking> {
        self.entries().peek(&job.saga).filter(|entry| entry.seq == job.seq).cloned()
    }

    /// What the buyer of this job's reservation had when it was held, under the same condition.
    pub(super) fn balance_of(&self, job: &Job) -> Option<i64> {
        self.entries().peek(&job.saga).filter(|entry| entry.seq == job.seq)?.balance
    }

    /// Keeps what was committed.
    pub(super) fn update(&self, updates: Updates) {
        let mut entries = self.entries();
        for (id, entry) in updates.0 {
            match entry {
                Some(entry) => entries.insert(id, entry),
                None => entries.remove(&id),
            };
        }
    }
}

impl Updates {
    /// The reservation of this job's saga is so from now on. Only a booking's saga has the id of its reservation.
    pub(super) fn set(&mut self, job: &Job, entry: Option<CachedBooking>) {
        self.0.push((job.saga, entry.filter(|entry| entry.reservation.id == job.saga)));
    }

    /// Takes over how the sagas stand after their steps.
    pub(super) fn follow(mut self, sagas: &Batch) -> Self {
        for (id, entry) in &mut self.0 {
            let (Some(entry), Some(saga)) = (entry, sagas.saga(*id)) else { continue };
            entry.seq = saga.seq;
            entry.reservation.saga_status = Some(saga.status);
            entry.reservation.saga_visit = Some(saga.visit);
            entry.reservation.saga_rejection.clone_from(&saga.rejection);
        }
        self
    }
}
