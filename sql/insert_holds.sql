insert into reservations (id, user_id, concert_id, performance_id, status, reason, detail, seats, lines, amount,
                          expires_at, claimable_at, created_at, updated_at)
select id, user_id, concert_id, performance_id, status, reason, detail, seats::int[], lines, amount,
       expires_at, claimable_at, placed_at, $1
from unnest($2::uuid[], $3::uuid[], $4::uuid[], $5::uuid[], $6::text[], $7::text[], $8::jsonb[], $9::text[],
            $10::jsonb[], $11::bigint[], $12::timestamptz[], $13::timestamptz[], $14::timestamptz[])
    as new (id, user_id, concert_id, performance_id, status, reason, detail, seats, lines, amount,
            expires_at, claimable_at, placed_at)
on conflict (id) do update set
    status = excluded.status, reason = excluded.reason, detail = excluded.detail, seats = excluded.seats,
    lines = excluded.lines, amount = excluded.amount, expires_at = excluded.expires_at, claimable_at = excluded.claimable_at,
    updated_at = excluded.updated_at
returning 1 as written
