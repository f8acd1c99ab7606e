insert into tickets (id, reservation_id, performance_id, seat, code, status, issued_at)
select id, reservation_id, performance_id, seat, code, 'valid', $1
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::int[], $6::text[])
    as new (id, reservation_id, performance_id, seat, code)
returning 1 as written
