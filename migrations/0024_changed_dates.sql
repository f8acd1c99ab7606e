-- Dates change and are cancelled, and the events that no saga announces.

alter table performances
    add column version bigint not null default 1,
    add column layout_version bigint not null default 1,
    add column cancelled_at timestamptz,
    add column cancellation_id uuid,
    add constraint performances_cancelled_by_a_job check ((cancelled_at is null) = (cancellation_id is null));
comment on column performances.version is 'Rises with every change of this row, also one by hand: the trigger sets it.';
comment on column performances.layout_version is 'Rises when sections or prices of seats change.';
comment on column performances.cancelled_at is 'From then on nothing of it is sold, and what was sold is refunded.';
comment on column performances.cancellation_id is 'The job of batch_jobs that ends its holds and refunds its reservations.';

create function count_change() returns trigger language plpgsql as $$
begin
    new.version := old.version + 1;
    return new;
end $$;
comment on function count_change is 'Gives a changed row the next version.';
create trigger performances_versions before update on performances
    for each row execute function count_change();

create function dates_as_read(dates uuid[], versions_then bigint[]) returns boolean language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock_shared(hashtextextended(date::text, 20112))
    from (select distinct date from unnest(dates) as date order by date) as ordered;
    return not exists (
        select from unnest(dates, versions_then) as known (date, version_then)
        join performances p on p.id = known.date
        where p.version <> known.version_then);
end $$;
comment on function dates_as_read is 'Keeps these dates from being changed or cancelled until the transaction ends, and says whether each is still as it was read. Each statement of a volatile function sees what was committed before it, so a change that was waited for is seen.';

create or replace function sale_opening(concert uuid, at timestamptz) returns timestamptz
language sql stable as $$
    with windows as (
        select sale_opens_at as opens, least(sale_closes_at, starts_at, cancelled_at) as closes,
               max(least(sale_closes_at, starts_at, cancelled_at)) over (order by sale_opens_at, id
                   rows between unbounded preceding and 1 preceding) as closed
        from performances where concert_id = concert and sale_opens_at < least(starts_at, cancelled_at))
    select max(opens) from windows
    where (closed is null or closed < opens)
      and opens <= (select min(opens) from windows where closes > at)
$$;

create table direct_events (
    id uuid constraint direct_events_pkey primary key,
    name text not null,
    subject_id uuid not null,
    sequence bigint not null,
    data jsonb not null,
    at timestamptz not null,
    announced_at timestamptz
);
comment on table direct_events is 'Domain events of acts that have no saga, written in the transaction of the act. They stay, to be published again.';
comment on column direct_events.announced_at is 'When JetStream acknowledged it; null until then.';
create index direct_events_unannounced on direct_events (id) where announced_at is null;
create index direct_events_of_subject on direct_events (subject_id, sequence);

insert into schema_compatibility (migration, oldest_level, oldest_release) values (24, 21, '0.1.0');
