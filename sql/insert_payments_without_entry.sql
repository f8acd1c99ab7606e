insert into payments_without_entry (id, reservation_id, user_id, amount, status, paid_at, updated_at)
select id, reservation_id, user_id, amount, status, paid_at, $1
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::bigint[], $6::text[], $7::timestamptz[])
    as new (id, reservation_id, user_id, amount, status, paid_at)
on conflict on constraint payments_without_entry_of_reservation do update
    set id = excluded.id, amount = excluded.amount, status = excluded.status, paid_at = excluded.paid_at,
        updated_at = excluded.updated_at
    where payments_without_entry.status = 'failed'
returning 1 as written
