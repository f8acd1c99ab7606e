insert into ledger_entries (id, user_id, kind, amount, balance, reservation_id, reverses_id, created_at)
select id, user_id, kind, amount, balance, reservation_id, reverses_id, $1
from unnest($2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::bigint[], $7::uuid[], $8::uuid[])
    with ordinality as new (id, user_id, kind, amount, balance, reservation_id, reverses_id, place)
order by place
returning 1 as written
