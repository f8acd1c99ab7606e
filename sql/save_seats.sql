update seats set status = new.status, holder = new.holder,
                 expires_at = new.expires_at, claimable_at = new.claimable_at
from unnest($1::uuid[], $2::int[], $3::text[], $4::uuid[], $5::timestamptz[], $6::timestamptz[],
            $7::text[], $8::uuid[])
    as new (performance_id, number, status, holder, expires_at, claimable_at, status_then, holder_then)
where seats.performance_id = new.performance_id and seats.number = new.number
  and seats.status = new.status_then and seats.holder is not distinct from new.holder_then
returning 1 as written
