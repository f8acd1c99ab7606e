insert into saga_history (saga_id, seq, at, event, step, direction, visit, attempt, detail, instance, worker, emits)
select saga_id, seq, at, event, step, direction, visit, attempt, detail, instance, worker, emits
from unnest($1::uuid[], $2::bigint[], $3::timestamptz[], $4::smallint[], $5::smallint[], $6::smallint[],
            $7::int[], $8::int[], $9::text[], $10::int[], $11::text[], $12::bytea[])
    as new (saga_id, seq, at, event, step, direction, visit, attempt, detail, instance, worker, emits)
