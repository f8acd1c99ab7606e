-- The line as it was last seen in NATS, so that it can be written there again after NATS has lost everything.

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
        check (status <> 'active' or (activated_at is not null and expires_at is not null))
) with (fillfactor = 70);
comment on table queue_journal is 'The last that was seen of each user''s place in each line: written behind the line''s back, read after NATS has lost it.';
comment on column queue_journal.place is 'The order of arrival; of an ended row: every place of this user up to this one is over.';
comment on column queue_journal.version is 'The revision of the bucket that says so; a row is overwritten only by a later one.';

-- No index but the key, so that a change of a row touches no index.

create table queue_journal_position (
    one boolean not null default true
        constraint queue_journal_position_pkey primary key
        constraint queue_journal_position_one check (one),
    journalled bigint not null
) with (fillfactor = 70);
comment on table queue_journal_position is 'One row: up to which revision of the bucket everything is in the journal.';
