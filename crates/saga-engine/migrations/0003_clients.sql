-- What clients start sagas with: attributes that sagas are found by, and keys of requests that may come twice.

create table saga_attributes (
    saga_id uuid not null,
    name text not null,
    value jsonb not null,
    constraint saga_attributes_pkey primary key (saga_id, name),
    constraint saga_attributes_kind check (jsonb_typeof(value) in ('string', 'number'))
);
comment on table saga_attributes is 'Up to 8 attributes of a saga, each a string or an integer, given at its start and deleted with it.';
create index saga_attributes_value on saga_attributes (name, value, saga_id);

-- A key is claimed by a short row, which grows to several times its size when the answer is saved. With as many claims on a page as it
-- has room for answers, the answer needs no entries in the indexes, and the table takes no more space than its answers.
--
-- The statement that begins the effect of a request inserts the claim of its key. The rows of a saga do not say whose signal moved it. The column `began`
-- does: a process that finds a claim without an answer builds the answer that the request would have got.
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
    began boolean not null default false,
    constraint idempotency_keys_pkey primary key (caller, route, key),
    constraint idempotency_keys_answer_whole check ((status is null) = (body is null))
) with (fillfactor = 15);
comment on table idempotency_keys is 'What a caller asked for under a key, and the final answer; kept 24 hours.';
comment on column idempotency_keys.effect_id is 'The id of what the request makes: its primary key is the fence, also after a crash between effect and answer.';
comment on column idempotency_keys.began is 'Whether the request that claimed the key has itself begun what its answer is about, and not found it under way.';
create index idempotency_keys_age on idempotency_keys (created_at);
