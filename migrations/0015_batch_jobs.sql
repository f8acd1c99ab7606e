-- One act on many sagas as a job that outlives the request, and the process that runs it.

create table batch_jobs (
    id uuid constraint batch_jobs_pkey primary key,
    actor text not null,
    act text not null,
    filter jsonb not null,
    reason text not null,
    dry_run boolean not null,
    rate_per_second integer not null,
    max_sagas integer not null,
    status text not null default 'running'
        constraint batch_jobs_status_known check (status in ('running', 'completed', 'stopped', 'failed')),
    total bigint,
    looked_at bigint not null default 0,
    done bigint not null default 0,
    failed bigint not null default 0,
    refusals jsonb not null default '{}',
    more boolean not null default false,
    error text,
    position uuid,
    stopped_by text,
    holder uuid,
    lease_until timestamptz,
    created_at timestamptz not null default clock_timestamp(),
    updated_at timestamptz not null default clock_timestamp(),
    finished_at timestamptz,
    constraint batch_jobs_finished_when_ended check ((finished_at is not null) = (status <> 'running'))
);
comment on table batch_jobs is 'One act on every saga that a filter finds, as a job: what was ordered, how far it is, and which process runs it.';
comment on column batch_jobs.position is 'The last saga that was looked at; sagas are looked at newest first, by id.';
comment on column batch_jobs.stopped_by is 'The operator who asked for its stop.';
comment on column batch_jobs.holder is 'The run that works on it; another one may take it over when lease_until has passed.';
create index batch_jobs_running on batch_jobs (id) where finished_at is null;
