insert into sagas (id, definition, subject_id, status, step, direction, visit, attempt, resend_count,
                   entered_at, sent_at, due_at, flight, seq, trace, created_at, updated_at)
select id, definition, subject_id, status, step, direction, 1, 0, 0,
       at, at, due_at, flight, seq, trace, at, at
from unnest($1::uuid[], $2::smallint[], $3::uuid[], $4::smallint[], $5::smallint[], $6::smallint[],
            $7::timestamptz[], $8::timestamptz[], $9::bigint[], $10::bigint[], $11::uuid[])
    as new (id, definition, subject_id, status, step, direction, at, due_at, flight, seq, trace)
returning 1 as written
