-- Webhooks: the endpoints of shops, and the events that are to be delivered to each.

create table webhook_endpoints (
    id uuid constraint webhook_endpoints_pkey primary key,
    url text not null constraint webhook_endpoints_url_length check (char_length(url) between 1 and 2000),
    events text[] not null,
    description text not null,
    secret bytea not null,
    previous_secret bytea,
    previous_until timestamptz,
    failing_since timestamptz,
    disabled_at timestamptz,
    disabled_reason text,
    created_at timestamptz not null default clock_timestamp(),
    constraint webhook_endpoints_previous_ends check ((previous_secret is null) = (previous_until is null)),
    constraint webhook_endpoints_disabled_why check ((disabled_at is null) = (disabled_reason is null))
);
comment on table webhook_endpoints is 'Addresses of shops that events are posted to. Events are queued for those that are not disabled.';
comment on column webhook_endpoints.events is 'Names of events; one that ends with * stands for all that begin so. Empty: all events.';
comment on column webhook_endpoints.secret is 'The key of the signatures; it is needed as it is, so it is not hashed.';
comment on column webhook_endpoints.previous_secret is 'Signs beside the new one until previous_until.';
comment on column webhook_endpoints.failing_since is 'The first failed attempt since the last success.';

create table webhook_deliveries (
    id uuid constraint webhook_deliveries_pkey primary key,
    endpoint_id uuid not null
        constraint webhook_deliveries_endpoint references webhook_endpoints (id) on delete cascade,
    event_id text not null,
    event text not null,
    subject_id uuid not null,
    sequence bigint not null,
    body text not null,
    status text not null default 'pending'
        constraint webhook_deliveries_status_known check (status in ('pending', 'delivered', 'failed')),
    attempts integer not null default 0,
    next_attempt_at timestamptz not null,
    created_at timestamptz not null default clock_timestamp(),
    ended_at timestamptz,
    response_status smallint,
    error text,
    constraint webhook_deliveries_once unique (endpoint_id, event_id),
    constraint webhook_deliveries_ended check ((status = 'pending') = (ended_at is null))
);
comment on table webhook_deliveries is 'An event for an endpoint: waiting, or as it ended. Those about one subject are delivered in the order of their sequence.';
comment on column webhook_deliveries.next_attempt_at is 'When it is due. An attempt under way moves it ahead, so that no other process makes it too.';
create index webhook_deliveries_due on webhook_deliveries (endpoint_id, next_attempt_at) where status = 'pending';
create index webhook_deliveries_of_subject on webhook_deliveries (endpoint_id, subject_id, sequence, id) where status = 'pending';
create index webhook_deliveries_log on webhook_deliveries (endpoint_id, id desc);
create index webhook_deliveries_old on webhook_deliveries (ended_at) where ended_at is not null;

create table webhook_lease (
    one boolean not null default true
        constraint webhook_lease_pkey primary key
        constraint webhook_lease_one check (one),
    holder uuid,
    lease_until timestamptz
);
comment on table webhook_lease is 'One row: which process queues and delivers, and until when unless it says so again.';
insert into webhook_lease default values;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (30, 21, '0.1.0');
