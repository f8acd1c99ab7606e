-- The statement that begins the effect of a request inserts the claim of its key. The rows of a saga do not say whose signal moved it. This column
-- does: a process that finds a claim without an answer builds the answer that the request would have got.
alter table idempotency_keys add column began boolean not null default false;
comment on column idempotency_keys.began is 'Whether the request that claimed the key has itself begun what its answer is about, and not found it under way.';

insert into schema_compatibility (migration, oldest_level, oldest_release) values (234, 203, '0.1.0');
