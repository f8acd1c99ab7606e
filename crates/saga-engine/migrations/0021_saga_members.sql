-- The members of a group of parallel steps, in the row of a saga that is in one. All other sagas have none.

alter table sagas add column members bytea;
comment on column sagas.members is 'The members of the group of parallel steps that the saga is in, 25 bytes each: state, attempt, resend_count, sent_at, due_at. Null: the saga is in no group, or all members stand as its row does.';

create or replace view saga_view as
select s.id, d.workflow, d.version, coalesce(s.subject_id, s.id) as subject_id, saga_status_name(s.status) as status, s.paused,
    coalesce(d.steps[s.step + 1], 'unknown step ' || s.step) as step, saga_direction_name(s.direction) as direction,
    s.visit, s.attempt, s.resend_count, s.sent_at, s.backing_off, s.due_at, s.flight, s.reason, s.rejection,
    coalesce((
        select h.detail::jsonb from saga_history h where h.saga_id = s.id and h.event = 0 order by h.seq limit 1
    ), '{}') as input,
    -- The input, every step's output but for what is an event of its own, and the payloads of signals, merged flat.
    (
        select coalesce(jsonb_object_agg(field.key, field.value order by h.seq), '{}')
        from saga_history h
        cross join lateral jsonb_each(h.detail::jsonb - case h.event
            when 0 then '{}'::text[]
            else array(select jsonb_array_elements_text(d.announced -> d.steps[h.step + 1])) end) as field
        where h.saga_id = s.id and (h.event in (0, 1, 12) or h.event >= 100 and h.detail is not null)
    ) as context,
    s.seq, s.created_at, s.updated_at, s.finished_at, s.entered_at, s.stuck_since, s.trace, s.members
from sagas s
left join workflow_definitions d on d.code = s.definition;
