-- Concerts, their dates and their seats.

create table concerts (
    id uuid constraint concerts_pkey primary key,
    name text not null constraint concerts_name_length check (char_length(name) between 1 and 200),
    description text not null,
    created_at timestamptz not null default clock_timestamp()
);
comment on table concerts is 'What is on sale; each concert has a line of its own.';
create index concerts_by_name on concerts (name, id);

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
    constraint performances_window check (sale_opens_at < sale_closes_at),
    -- Times that operators write are finite: an infinite one stops the task that reads it.
    constraint performances_times_in_range check (
        starts_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and sale_opens_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00'
        and sale_closes_at between '1970-01-01 00:00:00+00' and '9999-12-31 23:59:59.999999+00')
);
comment on table performances is 'A date of a concert and the window in which it is sold.';
create index performances_of_concert on performances (concert_id, starts_at, id);

create table seats (
    performance_id uuid not null constraint seats_performance references performances (id) on delete cascade,
    number integer not null,
    section text not null,
    price bigint not null,
    status text not null default 'free',
    holder uuid,
    expires_at timestamptz,
    claimable_at timestamptz,
    constraint seats_pkey primary key (performance_id, number),
    constraint seats_owner_named check ((status = 'free') = (holder is null))
) with (fillfactor = 50);
comment on table seats is 'A seat of a performance. Every write names its owner, the reservation that holds or bought it.';
comment on column seats.expires_at is 'Until then a payment is accepted.';
comment on column seats.claimable_at is 'From then any buyer may claim the seat, tidied up or not.';

-- Windows that touch or overlap are one sale: it opens with the first of them, and does not open anew while one of
-- them is still to end. Answers for the first sale that is not over; null if there is none.
-- The sale of a date ends when the date starts.
create function sale_opening(concert uuid, at timestamptz) returns timestamptz
language sql stable as $$
    with windows as (
        select sale_opens_at as opens, least(sale_closes_at, starts_at) as closes,
               max(least(sale_closes_at, starts_at)) over (order by sale_opens_at, id
                   rows between unbounded preceding and 1 preceding) as closed
        from performances where concert_id = concert and sale_opens_at < starts_at)
    select max(opens) from windows
    where (closed is null or closed < opens)
      and opens <= (select min(opens) from windows where closes > at)
$$;
comment on function sale_opening is 'When the sale of a concert opens or has opened, by the windows of its dates.';

-- Foreign keys of the tables that every booking writes would cost a row lock and a look-up for each inserted row. The statements
-- compare the number of inserted rows with the number asked for, the audit looks for rows without their counterparts, and this
-- trigger refuses to delete rows that others still name.
create function refuse_while_named() returns trigger language plpgsql as $$
declare
    child text;
begin
    if tg_table_name = 'performances' then
        if exists (select from reservations r join gone on gone.id = r.performance_id) then child := 'reservations'; end if;
    elsif tg_table_name = 'seats' then
        if exists (select from tickets t join gone on gone.performance_id = t.performance_id and gone.number = t.seat)
        then child := 'tickets'; end if;
    elsif tg_table_name = 'reservations' then
        if exists (select from payments p join gone on gone.id = p.reservation_id) then child := 'payments';
        elsif exists (select from tickets t join gone on gone.id = t.reservation_id) then child := 'tickets'; end if;
    elsif tg_table_name = 'accounts' then
        if exists (select from ledger_entries e join gone on gone.user_id = e.user_id) then child := 'ledger_entries'; end if;
    end if;
    if child is not null then
        raise exception 'rows of % are still named by rows of %', tg_table_name, child using errcode = 'foreign_key_violation';
    end if;
    return null;
end $$;
comment on function refuse_while_named is 'Refuses to delete rows that rows of other tables still name. The program deletes none of them.';
create trigger performances_named after delete on performances
    referencing old table as gone for each statement execute function refuse_while_named();
create trigger seats_named after delete on seats
    referencing old table as gone for each statement execute function refuse_while_named();
