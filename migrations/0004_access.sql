-- Who may call, and what they already asked for.

create table api_keys (
    id uuid constraint api_keys_pkey primary key,
    name text not null constraint api_keys_name_length check (char_length(name) between 1 and 100),
    role text not null constraint api_keys_role_known check (role in ('viewer', 'operator', 'admin', 'cashier')),
    hash bytea not null constraint api_keys_hash_unique unique,
    created_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz
);
comment on table api_keys is 'Keys of machines and staff, stored as SHA-256 of a random secret.';

create table idempotency_keys (
    caller text not null,
    route text not null,
    key text not null,
    effect_id uuid not null,
    fingerprint bytea not null,
    locked_until timestamptz not null,
    status smallint,
    body jsonb,
    created_at timestamptz not null,
    constraint idempotency_keys_pkey primary key (caller, route, key),
    constraint idempotency_keys_answer_whole check ((status is null) = (body is null))
);
comment on table idempotency_keys is 'What a caller asked for under a key, and the final answer; kept 24 hours.';
comment on column idempotency_keys.effect_id is 'The id of whatever the request makes: its primary key is the fence, also after a crash between effect and answer.';
create index idempotency_keys_age on idempotency_keys (created_at);
