-- Keys of machines and staff, and the users of the local mode.

create table api_keys (
    id uuid constraint api_keys_pkey primary key,
    name text not null constraint api_keys_name_length check (char_length(name) between 1 and 100),
    role text not null constraint api_keys_role_known check (role in ('viewer', 'operator', 'admin', 'cashier', 'client')),
    hash bytea not null constraint api_keys_hash_unique unique,
    created_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz,
    workflows text[],
    constraint api_keys_workflows_of_client check ((role = 'client') = coalesce(cardinality(workflows) > 0, false))
);
comment on table api_keys is 'Keys of machines and staff, stored as SHA-256 of a random secret.';
comment on column api_keys.workflows is 'The workflows that a key with the role client is for.';

create table users (
    id uuid constraint users_pkey primary key,
    name text not null constraint users_name_length check (char_length(name) between 1 and 100),
    created_at timestamptz not null default clock_timestamp()
);
comment on table users is 'Users made in local mode; in production users live with the identity provider, and nothing refers to this table.';
