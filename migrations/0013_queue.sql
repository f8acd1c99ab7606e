-- How concerts admit their lines, and the lines as they were last seen in NATS, so that they can be written there again after NATS
-- has lost everything.

create function fresh_seed() returns bytea
language sql volatile as $$ select sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())) $$;
comment on function fresh_seed is 'Thirty-two bytes that cannot be guessed.';

create table queue_settings (
    concert_id uuid constraint queue_settings_pkey primary key
        constraint queue_settings_concert references concerts (id) on delete cascade,
    max_active integer not null constraint queue_settings_max_active check (max_active between 0 and 1000000),
    admit_per_minute integer not null constraint queue_settings_rate check (admit_per_minute between 0 and 6000000),
    min_rate integer constraint queue_settings_min_rate check (min_rate between 0 and 6000000),
    max_rate integer constraint queue_settings_max_rate check (max_rate between 0 and 6000000),
    pre_queue_at timestamptz,
    opens_at timestamptz,
    paused boolean not null default false,
    updated_at timestamptz not null default clock_timestamp(),
    seed bytea not null default fresh_seed() constraint queue_settings_seed_length check (octet_length(seed) = 32),
    constraint queue_settings_rates check (min_rate <= max_rate),
    constraint queue_settings_times_in_range check (
        pre_queue_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and opens_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00')
);
comment on table queue_settings is 'How a concert admits its line; every instance reads it at most a second late.';
comment on column queue_settings.seed is 'What the draw at an opening is made from. Secret; each opening''s own seed, derived from it, is published.';
comment on column queue_settings.opens_at is 'When the sale opens; null: with the first window of its dates.';
comment on column queue_settings.min_rate is 'The slowest that the brake makes the admission, per minute; the brake works if this and max_rate are set.';
comment on column queue_settings.max_rate is 'The fastest that the brake lets the admission become, per minute.';

create table queue_journal (
    concert_id uuid not null,
    user_id uuid not null,
    place bigint not null constraint queue_journal_place check (place > 0),
    version bigint not null constraint queue_journal_version check (version >= 0),
    status text not null
        constraint queue_journal_status_known check (status in ('waiting', 'silent', 'active', 'ended')),
    issued_at timestamptz,
    grace_until timestamptz,
    activated_at timestamptz,
    expires_at timestamptz,
    used boolean not null default false,
    ended_at timestamptz,
    constraint queue_journal_pkey primary key (concert_id, user_id),
    constraint queue_journal_ended_when_over check ((status = 'ended') = (ended_at is not null)),
    constraint queue_journal_issued_unless_over check (status = 'ended' or issued_at is not null),
    constraint queue_journal_active_timed
        check (status <> 'active' or (activated_at is not null and expires_at is not null)),
    constraint queue_journal_times_in_range check (
        issued_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and grace_until between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and activated_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and expires_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and ended_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00')
) with (fillfactor = 70);
comment on table queue_journal is 'The last that was seen of each user''s place in each line: written after the bucket, read after NATS has lost it.';
comment on column queue_journal.place is 'The order of arrival; of an ended row: every place of this user up to this one is over.';
comment on column queue_journal.version is 'The revision of the bucket that says so; a row is overwritten only by a later one.';

-- The only index beside the key is of ended rows, so that a change of a place touches no index.
create index queue_journal_ended on queue_journal (ended_at) where ended_at is not null;

create table queue_journal_position (
    one boolean not null default true
        constraint queue_journal_position_pkey primary key
        constraint queue_journal_position_one check (one),
    journalled bigint not null
) with (fillfactor = 70);
comment on table queue_journal_position is 'One row: up to which revision of the bucket everything is in the journal.';
