-- What is over goes by age: history as whole days, ended sagas by an index on their end.

alter table saga_history rename to saga_history_whole;
alter table saga_history_whole rename constraint saga_history_pkey to saga_history_whole_pkey;

-- No foreign key to sagas: the engine writes both in one transaction, and dropping a day must not look at sagas.
create table saga_history (
    like saga_history_whole including defaults including constraints including comments,
    constraint saga_history_pkey primary key (saga_id, seq)
) partition by range (saga_id);
comment on table saga_history is 'One immutable row per transition; an outcome''s row is its saved answer, and domain events are derived from it. In parts by the day in the saga''s id, dropped by age.';

create table saga_history_default partition of saga_history default;
comment on table saga_history_default is 'History of sagas whose day has no part of its own: it was dropped while they went on, or is yet to be made.';

-- An id (UUID version 7) begins with its milliseconds, so a day is a range of ids. One part for each day that has
-- rows, for today and for the week to come; ids that are not of this kind stay in the default part.
do $$
declare
    today date := (clock_timestamp() at time zone 'utc')::date;
    part date;
begin
    for part in
        select distinct (to_timestamp(('x' || left(replace(id, '-', ''), 12))::bit(48)::bigint / 1000.0)
            at time zone 'utc')::date
        from (select distinct saga_id::text as id from saga_history_whole) as ids
        where substr(id, 15, 1) = '7' and id between '015' and '03'
        union
        select today + n from generate_series(0, 7) as n
    loop
        execute format('create table %I partition of saga_history for values from (%L) to (%L)',
            'saga_history_p' || to_char(part, 'YYYYMMDD'),
            rpad(lpad(to_hex(extract(epoch from part)::bigint * 1000), 12, '0'), 32, '0'),
            rpad(lpad(to_hex(extract(epoch from part + 1)::bigint * 1000), 12, '0'), 32, '0'));
    end loop;
end $$;

insert into saga_history select * from saga_history_whole;
drop table saga_history_whole;

-- Both change when a saga ends and never before, so that step updates stay heap-only.
create index sagas_finished on sagas (finished_at) where finished_at is not null;
create index sagas_unfinished on sagas (id) where finished_at is null;
