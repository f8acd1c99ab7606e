-- The engine's own tables. Nothing here knows what a seat is.

create table sagas (
    id uuid constraint sagas_pkey primary key,
    workflow text not null,
    version integer not null,
    subject_id uuid not null,
    owner_id uuid,
    status text not null
        constraint sagas_status_known check (status in
            ('running', 'waiting', 'compensating', 'completed', 'compensated', 'stuck', 'abandoned')),
    paused boolean not null default false,
    step text not null,
    direction text not null
        constraint sagas_direction_known check (direction in ('do', 'undo')),
    visit integer not null constraint sagas_visit_positive check (visit > 0),
    attempt integer not null constraint sagas_attempt_counts check (attempt >= 0),
    send integer not null constraint sagas_send_counts check (send >= 0),
    since timestamptz not null,
    backing_off boolean not null default false,
    due_at timestamptz,
    reason text,
    rejection jsonb,
    input jsonb not null,
    context jsonb not null,
    seq bigint not null,
    created_at timestamptz not null,
    updated_at timestamptz not null,
    finished_at timestamptz,
    constraint sagas_never_sleep_without_alarm check (
        due_at is not null or paused or status in ('completed', 'compensated', 'stuck', 'abandoned')),
    constraint sagas_finished_when_ended check (
        (finished_at is not null) = (status in ('completed', 'compensated', 'abandoned')))
) with (fillfactor = 65);

comment on table sagas is 'One row per saga: its whole state, and the outbox from which every command and alarm can be derived again.';
comment on column sagas.subject_id is 'What the saga is about; for bookings and cancellations the reservation.';
comment on column sagas.owner_id is 'Whose saga it is, for searching; the engine gives it no meaning.';
comment on column sagas.visit is 'Rises whenever the saga enters a step anew from a wait or by an operator''s retry: the fence of every effect.';
comment on column sagas.attempt is 'Failed answers in this visit; pacing and display only.';
comment on column sagas.send is 'How often the current command was sent beyond the first time: part of its message id.';
comment on column sagas.since is 'When the current command last went out, or the wait began.';
comment on column sagas.backing_off is 'Between a failed answer and the next send: no command is out.';
comment on column sagas.due_at is 'When the sweeper must look at this saga. Null: ended and its events acknowledged, stuck or paused.';
comment on column sagas.rejection is 'The last business no that sent the saga back to a wait: {step, code, detail}.';
comment on column sagas.context is 'The input and every step''s output, merged flat: what commands carry and deadlines refer to.';
comment on column sagas.seq is 'The last history row; events number themselves by it.';

-- Only rows with an alarm are in it, and due_at moves rarely, so that step updates stay heap-only.
create index sagas_due on sagas (due_at) where due_at is not null;
create index sagas_subject on sagas (subject_id);
create index sagas_owner on sagas (owner_id);

create table saga_history (
    saga_id uuid not null constraint saga_history_saga references sagas (id) on delete cascade,
    seq bigint not null,
    at timestamptz not null,
    event text not null,
    step text not null,
    direction text not null
        constraint saga_history_direction_known check (direction in ('do', 'undo')),
    visit integer not null,
    attempt integer not null,
    detail jsonb,
    emits text[] not null default '{}',
    constraint saga_history_pkey primary key (saga_id, seq)
);
comment on table saga_history is 'One immutable row per transition; an outcome''s row is its saved answer, and domain events are derived from it.';
comment on column saga_history.emits is 'The domain events that follow from this transition, by name.';

create table parked_messages (
    id bigint generated always as identity constraint parked_messages_pkey primary key,
    stream text not null,
    subject text not null,
    headers jsonb not null,
    payload bytea not null,
    error text not null,
    parked_at timestamptz not null default clock_timestamp()
);
comment on table parked_messages is 'Messages that nobody can act on (malformed, illegal, or failing alone), kept whole for an operator.';

create table operator_acts (
    id bigint generated always as identity constraint operator_acts_pkey primary key,
    at timestamptz not null,
    actor text not null,
    act text not null,
    saga_id uuid not null,
    reason text not null,
    from_status text not null,
    to_status text not null
);
comment on table operator_acts is 'Who did what to which saga, when, why, from which status to which.';
create index operator_acts_saga on operator_acts (saga_id);

create table instances (
    id uuid constraint instances_pkey primary key,
    roles text[] not null,
    started_at timestamptz not null default clock_timestamp()
);
comment on table instances is 'Start-ups of the service: the audit grants overdue holds a few seconds after the latest.';
