-- An operator's act that ends a saga ends its reservation too. These are the ones that earlier acts have left open.

with ended as (
    update reservations set status = 'failed', reason = 'abandoned', updated_at = clock_timestamp()
    from sagas
    where sagas.id = reservations.id and sagas.finished_at is not null and reservations.status in ('pending', 'held')
    returning reservations.id, reservations.performance_id, reservations.seats
)
update seats set status = 'free', holder = null, expires_at = null, claimable_at = null
from ended
where seats.performance_id = ended.performance_id and seats.number = any (ended.seats)
  and seats.holder = ended.id and seats.status = 'held';

-- A cancellation that was given up before it did anything leaves a confirmed reservation, which can be cancelled again.
update reservations set cancellation_id = null, updated_at = clock_timestamp()
from sagas
where sagas.id = reservations.cancellation_id and sagas.status = 'abandoned' and reservations.status = 'confirmed';
