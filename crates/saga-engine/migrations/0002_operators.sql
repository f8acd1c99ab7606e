-- What operators need to see and to do: parked messages, pauses, their acts, and start-ups.

create table parked_messages (
    id bigint generated always as identity constraint parked_messages_pkey primary key,
    stream text not null,
    subject text not null,
    headers jsonb not null,
    payload bytea not null,
    error text not null,
    parked_at timestamptz not null default clock_timestamp()
);
comment on table parked_messages is 'Messages that cannot be handled (malformed, illegal, or failing alone), kept whole for an operator.';

create table pauses (
    kind text not null constraint pauses_kind_known check (kind in ('workflow', 'step')),
    name text not null,
    since timestamptz not null default clock_timestamp(),
    actor text not null,
    reason text not null,
    constraint pauses_pkey primary key (kind, name)
);
comment on table pauses is 'Workflows whose forward commands are held back, and step types whose consumers are paused.';

create table operator_acts (
    id bigint generated always as identity constraint operator_acts_pkey primary key,
    at timestamptz not null,
    actor text not null,
    act text not null,
    saga_id uuid,
    reason text not null,
    from_status text not null,
    to_status text not null,
    target text,
    detail jsonb
);
comment on table operator_acts is 'Who did what, when, why, and from which state to which: to a saga, or to what target names.';
comment on column operator_acts.target is 'What an act was done to that is not one saga: a workflow, a step type, a parked message.';
comment on column operator_acts.detail is 'What belongs to the act: a hand-made output, what was left behind.';
create index operator_acts_at on operator_acts (at);
create index operator_acts_saga on operator_acts (saga_id);

create table instances (
    id uuid constraint instances_pkey primary key,
    roles text[] not null,
    started_at timestamptz not null default clock_timestamp()
);
comment on table instances is 'Start-ups of the service: the audit grants overdue holds a few seconds after the latest.';

-- One row that is written to find out whether this database can be written: a server that was demoted, is in recovery,
-- read-only or out of space still answers reads.
create table write_probe (
    only_row   boolean primary key default true check (only_row),
    written_at timestamptz not null
);
comment on table write_probe is 'One row, written by health checks to find out whether the database can be written.';

-- Which releases work on the schema. Each later migration that older releases can work with adds its row here; a
-- release that finds a migration it does not know reads the row. Without a row older releases refuse to start.
-- CONTRIBUTING.md has the rule.

create table schema_compatibility (
    migration bigint primary key,
    oldest_level bigint not null,
    oldest_release text not null,
    check (oldest_level < migration)
);
comment on table schema_compatibility is 'Which releases still work after a migration: those that know the migration `oldest_level`, which came with `oldest_release`, or a newer one. For an older release to read.';
