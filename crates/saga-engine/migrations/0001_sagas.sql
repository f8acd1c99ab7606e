-- Sagas: their state, their history, the outbox, and the names behind the numbers in them.
--
-- A saga's row has fixed columns and small numbers for names, no JSON: input and outputs stand in its history alone. A saga that
-- runs is found by its batch (`flights`), so it has no entry in the index of timers, and one that has ended is not written again.
-- The views have the names.

create table workflow_definitions (
    code smallint generated always as identity constraint workflow_definitions_pkey primary key,
    workflow text not null,
    version integer not null,
    steps text[] not null,
    signals text[] not null,
    events text[] not null,
    announced jsonb not null,
    source text constraint workflow_definitions_source_length check (octet_length(source) <= 65536),
    deployed_by text,
    deployed_at timestamptz,
    verdict jsonb,
    accepted_risk text,
    retired_by text,
    retired_at timestamptz,
    constraint workflow_definitions_once unique (workflow, version)
);
comment on table workflow_definitions is 'The names of each version of a workflow. Other tables have places in its lists, counted from 0; the lists only grow.';
comment on column workflow_definitions.announced is 'Fields of each step''s output that are events of their own: later commands do not carry them.';
comment on column workflow_definitions.source is 'The definition as TOML. It never changes; null: no process has deployed it yet.';
comment on column workflow_definitions.verdict is 'What the model checker found: {verdict: good, broken, unfinished or unchecked, walks}.';
comment on column workflow_definitions.accepted_risk is 'Why a definition was deployed that the checker did not find good.';
comment on column workflow_definitions.retired_at is 'Since when no new sagas begin with this version.';

create table worker_instances (
    code integer generated always as identity constraint worker_instances_pkey primary key,
    name text not null constraint worker_instances_once unique
);
comment on table worker_instances is 'Processes of the service, by the names that history shows.';

create table flights (
    id bigint constraint flights_pkey primary key,
    at timestamptz not null,
    sagas uuid[] not null
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
-- In the row itself: 256 ids fit into half a page.
alter table flights alter column sagas set storage plain;
comment on table flights is 'The outbox of each batch of sagas that started or got a signal together: those that neither sleep nor have ended with all their events acknowledged.';
comment on column flights.at is 'When the batch was written, or looked at last: the sweeper looks at what is still in it three seconds later.';

create table sagas (
    id uuid constraint sagas_pkey primary key,
    created_at timestamptz not null,
    subject_id uuid,
    trace uuid,
    seq bigint not null,
    entered_at timestamptz not null,
    sent_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,
    stuck_since timestamptz,
    due_at timestamptz,
    flight bigint,
    visit integer not null,
    attempt integer not null,
    resend_count integer not null,
    definition smallint not null,
    status smallint not null,
    step smallint not null,
    direction smallint not null,
    paused boolean not null default false,
    backing_off boolean not null default false,
    reason text,
    rejection jsonb,
    constraint sagas_sound check (
        status between 0 and 6 and direction between 0 and 1 and visit > 0
        and case when due_at is null then flight is not null or paused or status > 2
            else due_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00' end)
) with (fillfactor = 45);
comment on table sagas is 'One narrow row per saga: its state, from which every command and alarm can be derived again. See the view saga_view.';
comment on column sagas.definition is 'Its workflow and version, in workflow_definitions.';
comment on column sagas.subject_id is 'What the saga is about; null: what has the saga''s own id.';
comment on column sagas.trace is 'The trace that it belongs to (W3C trace id); null: its own id.';
comment on column sagas.status is '0 running, 1 waiting, 2 compensating, 3 completed, 4 compensated, 5 stuck, 6 abandoned.';
comment on column sagas.direction is '0 do, 1 undo.';
comment on column sagas.visit is 'Rises whenever the saga enters a step anew from a wait or by an operator''s retry: the fence of every effect.';
comment on column sagas.attempt is 'Failed answers in this visit; pacing and display only.';
comment on column sagas.resend_count is 'How often the current command was sent beyond the first time: part of its message id.';
comment on column sagas.entered_at is 'When this visit of the step began: retries with a total time and deadlines in seconds count from it.';
comment on column sagas.sent_at is 'When the current command last went out, or the wait began.';
comment on column sagas.backing_off is 'No command is out: between a failed answer and the next send, or held back by a pause.';
comment on column sagas.paused is 'An operator holds back its next forward command. Answers, clocks and undos go on.';
comment on column sagas.due_at is 'When the sweeper must look at this saga. Null: it is in its flight, ended or stuck and its events acknowledged, or paused without a deadline.';
comment on column sagas.flight is 'The batch that looks after it while it runs; of one that has ended, the batch that did.';
comment on column sagas.stuck_since is 'Since when it waits for an operator.';
comment on column sagas.rejection is 'The last business no that sent the saga back to a wait: {step, code, detail}.';
comment on column sagas.seq is 'The last history row; events number themselves by it.';

-- Only sagas that sleep, are stuck, paused or about something else than themselves are in these, so that steps update the row alone.
create index sagas_due on sagas (due_at) where due_at is not null;
create index sagas_stuck on sagas (stuck_since) where stuck_since is not null;
create index sagas_paused on sagas (id) where paused;
create index sagas_subject on sagas (subject_id) where subject_id is not null;

create table saga_history (
    saga_id uuid not null,
    seq bigint not null,
    at timestamptz not null,
    visit integer not null,
    attempt integer not null,
    instance integer,
    event smallint not null,
    step smallint not null,
    direction smallint not null,
    emits bytea,
    worker text,
    detail text,
    constraint saga_history_pkey primary key (saga_id, seq)
) partition by range (saga_id);
comment on table saga_history is 'One immutable row per transition; an outcome''s row is its saved answer, and domain events are derived from it. In parts by the day in the saga''s id, dropped by age. See the view history_view.';
comment on column saga_history.event is 'What happened, see saga_event_name; from 100 on a signal of the workflow.';
comment on column saga_history.instance is 'The process of the service that gave the answer, in worker_instances.';
comment on column saga_history.worker is 'What a worker elsewhere calls itself that gave the answer.';
comment on column saga_history.emits is 'The domain events that follow from this transition, each a byte: its place among the events of the workflow.';
comment on column saga_history.detail is 'JSON: the input of a saga that started, a step''s output, a rejection.';

create table saga_history_default partition of saga_history default;
comment on table saga_history_default is 'History of sagas whose day has no part of its own: it was dropped while they went on, or is yet to be made.';

-- An id (UUID version 7) begins with its milliseconds, so a day is a range of ids. Ids of another kind stay in the default part.
do $$
declare
    part date;
begin
    for part in select (clock_timestamp() at time zone 'utc')::date + n from generate_series(0, 7) as n loop
        execute format('create table %I partition of saga_history for values from (%L) to (%L)',
            'saga_history_p' || to_char(part, 'YYYYMMDD'),
            rpad(lpad(to_hex(extract(epoch from part)::bigint * 1000), 12, '0'), 32, '0'),
            rpad(lpad(to_hex(extract(epoch from part + 1)::bigint * 1000), 12, '0'), 32, '0'));
    end loop;
end $$;

create function saga_status_name(code smallint) returns text language sql immutable parallel safe as $$
    select coalesce((array['running', 'waiting', 'compensating', 'completed', 'compensated', 'stuck', 'abandoned'])[code + 1],
                    'unknown status ' || code)
$$;
create function saga_status(name text) returns smallint language sql immutable strict parallel safe as $$
    select (array_position(array['running', 'waiting', 'compensating', 'completed', 'compensated', 'stuck', 'abandoned'], name) - 1)::smallint
$$;
create function saga_direction_name(code smallint) returns text language sql immutable parallel safe as $$
    select case code when 0 then 'do' when 1 then 'undo' else 'unknown direction ' || code end
$$;
create function saga_event_name(code smallint, signals text[]) returns text language sql immutable parallel safe as $$
    select case
        when code >= 100 then 'signal:' || coalesce(signals[code - 99], code::text)
        else coalesce((array[
            'started', 'done', 'undone', 'rejected', 'failed', 'unknown', 'deadline', 'poisoned', 'undo_rejected', 'output_too_large',
            'definition_missing', 'operator:retry', 'operator:complete', 'operator:skip_undo', 'operator:cancel', 'operator:abandon',
            'operator:pause', 'operator:resume'])[code + 1], 'unknown event ' || code)
    end
$$;
comment on function saga_status is 'The number of a status, for queries by hand.';

create function saga_step(definition smallint, name text) returns smallint language sql stable strict parallel safe as $$
    select (array_position(d.steps, name) - 1)::smallint from workflow_definitions d where d.code = definition
$$;
comment on function saga_step is 'The number of a step of a version of a workflow, for queries by hand.';

create view saga_view as
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
    s.seq, s.created_at, s.updated_at, s.finished_at, s.entered_at, s.stuck_since, s.trace
from sagas s
left join workflow_definitions d on d.code = s.definition;
comment on view saga_view is 'Sagas with names, their input, and what their commands carry (context).';

create view history_view as
select h.saga_id, h.seq, h.at, saga_event_name(h.event, d.signals) as event,
    coalesce(d.steps[h.step + 1], 'unknown step ' || h.step) as step, saga_direction_name(h.direction) as direction,
    h.visit, h.attempt, case when h.event <> 0 then h.detail::jsonb end as detail,
    array(
        select d.events[get_byte(h.emits, place) + 1] from generate_series(0, octet_length(h.emits) - 1) as place order by place
    ) as emits,
    coalesce(h.worker, w.name) as worker
from saga_history h
left join sagas s on s.id = h.saga_id
left join workflow_definitions d on d.code = s.definition
left join worker_instances w on w.code = h.instance;
comment on view history_view is 'The history of sagas with names. The input of a saga is in saga_view.';

create view open_sagas as
select id from sagas where due_at is not null and finished_at is null
union
select id from sagas where stuck_since is not null
union
select id from sagas where paused and finished_at is null
union
select s.id from flights f cross join unnest(f.sagas) as flying (id) join sagas s on s.id = flying.id and s.finished_at is null;
comment on view open_sagas is 'The ids of sagas that have not ended. Each source is small and has an index.';

create function not_as_read() returns boolean language plpgsql as $$
begin
    raise exception 'a row is not any more as it was read' using errcode = 'serialization_failure';
end $$;
comment on function not_as_read is 'Ends a statement whose rows are not as they were read.';

create function not_written() returns boolean language plpgsql as $$
begin
    raise exception 'fewer rows were written than decided' using errcode = 'integrity_constraint_violation';
end $$;
comment on function not_written is 'Ends a statement that did not write all the rows that it was given.';
