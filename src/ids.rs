//! Names for the ids that travel through the program, and how new ones are made.

use uuid::Uuid;

/// A saga; a booking saga's id is also its reservation's.
pub type SagaId = Uuid;
/// A buyer: the `sub` of an access token.
pub type UserId = Uuid;
/// A concert; each has a line of its own.
pub type ConcertId = Uuid;
/// A date of a concert.
pub type PerformanceId = Uuid;
/// A reservation: the holder of its seats.
pub type ReservationId = Uuid;

/// A new id (UUID version 7: ordered by time, so that rows made together lie together).
pub fn new() -> Uuid {
    Uuid::now_v7()
}
