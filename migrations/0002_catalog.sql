-- Concerts, their dates, their seats, and how their line is run.

create table concerts (
    id uuid constraint concerts_pkey primary key,
    name text not null constraint concerts_name_length check (char_length(name) between 1 and 200),
    description text not null,
    created_at timestamptz not null default clock_timestamp()
);
comment on table concerts is 'What is on sale; each concert has a line of its own.';
create index concerts_by_name on concerts (name, id);

create table queue_settings (
    concert_id uuid constraint queue_settings_pkey primary key
        constraint queue_settings_concert references concerts (id) on delete cascade,
    max_active integer not null constraint queue_settings_max_active check (max_active between 0 and 1000000),
    admit_per_minute integer not null constraint queue_settings_rate check (admit_per_minute between 0 and 6000000),
    min_rate integer not null default 0 constraint queue_settings_min_rate check (min_rate between 0 and 6000000),
    max_rate integer not null default 6000000 constraint queue_settings_max_rate check (max_rate between 0 and 6000000),
    pre_queue_at timestamptz,
    opens_at timestamptz,
    paused boolean not null default false,
    updated_at timestamptz not null default clock_timestamp()
);
comment on table queue_settings is 'How a concert admits its line; every instance reads it at most a second late.';

create table performances (
    id uuid constraint performances_pkey primary key,
    concert_id uuid not null constraint performances_concert references concerts (id) on delete cascade,
    venue text not null constraint performances_venue_length check (char_length(venue) between 1 and 200),
    starts_at timestamptz not null,
    duration_minutes integer not null constraint performances_duration check (duration_minutes between 1 and 1440),
    sale_opens_at timestamptz not null,
    sale_closes_at timestamptz not null,
    seats_total integer not null constraint performances_seats check (seats_total between 1 and 100000),
    created_at timestamptz not null default clock_timestamp(),
    constraint performances_window check (sale_opens_at < sale_closes_at)
);
comment on table performances is 'A date of a concert and the window in which it is sold.';
create index performances_of_concert on performances (concert_id, starts_at, id);

create table seats (
    performance_id uuid not null constraint seats_performance references performances (id) on delete cascade,
    number integer not null constraint seats_number check (number > 0),
    section text not null,
    price bigint not null constraint seats_price check (price between 0 and 10000000),
    status text not null default 'free'
        constraint seats_status_known check (status in ('free', 'held', 'sold')),
    holder uuid,
    expires_at timestamptz,
    claimable_at timestamptz,
    constraint seats_pkey primary key (performance_id, number),
    constraint seats_owner_named check ((status = 'free') = (holder is null)),
    constraint seats_hold_timed check (
        (status = 'held') = (expires_at is not null) and (status = 'held') = (claimable_at is not null))
) with (fillfactor = 50);
comment on table seats is 'A seat of a performance. Every write names its owner, the reservation that holds or bought it.';
comment on column seats.expires_at is 'Until then a payment is accepted.';
comment on column seats.claimable_at is 'From then anybody may claim the seat, tidied up or not.';
