-- What operators need to see and to do: since when a saga is stuck, who answered, what is paused, and their acts.

alter table sagas
    add column entered_at timestamptz not null default clock_timestamp(),
    add column stuck_since timestamptz,
    add column trace uuid;
update sagas set entered_at = since, stuck_since = case when status = 'stuck' then updated_at end;
alter table sagas add constraint sagas_stuck_since_when_stuck check ((stuck_since is not null) = (status = 'stuck'));

comment on column sagas.entered_at is 'When this visit of the step began: retries with a total time and deadlines in seconds count from it.';
comment on column sagas.stuck_since is 'Since when it waits for an operator.';
comment on column sagas.trace is 'The trace that it belongs to (W3C trace id); null: its own id.';
comment on column sagas.paused is 'An operator holds back its next forward command. Answers, clocks and undos go on.';
comment on column sagas.backing_off is 'No command is out: between a failed answer and the next send, or held back by a pause.';
comment on column sagas.due_at is 'When the sweeper must look at this saga. Null: ended or stuck and its events acknowledged, or paused without a deadline.';

-- Few rows are stuck or paused, and these columns move rarely, so that step updates stay heap-only.
create index sagas_stuck on sagas (stuck_since) where stuck_since is not null;
create index sagas_paused on sagas (id) where paused;

alter table saga_history add column worker text;
comment on column saga_history.worker is 'Who gave the answer: the instance, or what a worker elsewhere calls itself.';

create table pauses (
    kind text not null constraint pauses_kind_known check (kind in ('workflow', 'step')),
    name text not null,
    since timestamptz not null default clock_timestamp(),
    actor text not null,
    reason text not null,
    constraint pauses_pkey primary key (kind, name)
);
comment on table pauses is 'Workflows whose forward commands are held back, and step types whose consumers are paused.';

alter table operator_acts
    alter column saga_id drop not null,
    add column target text,
    add column detail jsonb;
comment on table operator_acts is 'Who did what, when, why, and from which state to which: to a saga, or to what target names.';
comment on column operator_acts.target is 'What an act was done to that is not one saga: a workflow, a step type, a parked message.';
comment on column operator_acts.detail is 'What belongs to the act: a hand-made output, what was left behind.';
create index operator_acts_at on operator_acts (at);
