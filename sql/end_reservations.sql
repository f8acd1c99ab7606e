insert into reservations (id, user_id, concert_id, performance_id, status, reason, seats, created_at, updated_at)
select id, user_id, concert_id, performance_id, status, reason, seats::int[], placed_at, $1
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::text[], $9::timestamptz[])
    as new (id, user_id, concert_id, performance_id, status, reason, seats, placed_at)
on conflict (id) do update
    set status = excluded.status, reason = excluded.reason, updated_at = excluded.updated_at
    where reservations.status in ('pending', 'held')
returning 1 as written
