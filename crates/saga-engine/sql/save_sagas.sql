update sagas set
    status = new.status, step = new.step, direction = new.direction, visit = new.visit,
    attempt = new.attempt, resend_count = new.resend_count, sent_at = new.sent_at, backing_off = new.backing_off,
    due_at = new.due_at, flight = new.flight, reason = new.reason, rejection = new.rejection,
    seq = new.seq, updated_at = new.updated_at, finished_at = new.finished_at,
    entered_at = new.entered_at, paused = new.paused, stuck_since = new.stuck_since, members = new.members
from unnest($1::uuid[], $2::smallint[], $3::smallint[], $4::smallint[], $5::int[], $6::int[], $7::int[],
            $8::timestamptz[], $9::bool[], $10::timestamptz[], $11::bigint[], $12::text[], $13::jsonb[],
            $14::bigint[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::bool[],
            $19::timestamptz[], $20::bigint[], $21::timestamptz[], $22::bytea[])
    as new (id, status, step, direction, visit, attempt, resend_count, sent_at, backing_off, due_at, flight, reason,
            rejection, seq, updated_at, finished_at, entered_at, paused, stuck_since,
            seq_before, updated_before, members)
where sagas.id = new.id and sagas.seq = new.seq_before and sagas.updated_at = new.updated_before
returning 1 as written
