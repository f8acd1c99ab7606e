//! Names for the ids that travel through the service; how they are made is the engine's part.

pub use saga_engine::ids::*;
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
