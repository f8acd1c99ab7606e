insert into idempotency_keys (caller, route, key, effect_id, fingerprint, began, locked_until, created_at)
select caller, route, key, effect_id, fingerprint, began, at + interval '5 seconds', at
from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::bytea[], $6::bool[])
    as new (caller, route, key, effect_id, fingerprint, began), clock_timestamp() as at
