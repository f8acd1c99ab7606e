insert into tickets (id, reservation_id, performance_id, seat, status, issued_at)
select id, reservation_id, performance_id, seat, 'valid', $1
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int[])
    as new (id, reservation_id, performance_id, seat)
returning 1 as written
