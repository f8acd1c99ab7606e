-- Most steps read without locks, decide, and write in one statement that fails as a whole if a row is not any more as it was
-- read. It is then done again, under locks.

create function not_as_read() returns boolean language plpgsql as $$
begin
    raise exception 'a row is not any more as it was read' using errcode = 'serialization_failure';
end $$;
comment on function not_as_read is 'Ends a statement whose rows are not as they were read.';

-- What a buyer holds and owns of a date is a sum over rows, so it has a lock of its own, by the buyer. This is volatile: each of
-- its queries sees what was committed before it, also while it waited for that lock.
create function buyers_as_read(buyers uuid[], dates uuid[], seats_then bigint[], moment timestamptz, own uuid[])
returns boolean language plpgsql volatile as $$
begin
    perform pg_advisory_xact_lock(hashtextextended(buyer::text, 20111))
    from (select distinct buyer from unnest(buyers) as buyer order by buyer) as ordered;
    return not exists (
        select from unnest(buyers, dates, seats_then) as known (buyer, date, seats_then)
        where known.seats_then <> (
            select coalesce(sum(cardinality(seats)), 0) from reservations
            where user_id = known.buyer and performance_id = known.date and id <> all (own)
              and (status = 'confirmed' or (status = 'held' and claimable_at > moment))));
end $$;
comment on function buyers_as_read is 'Keeps others from holding seats for these buyers until the transaction ends, and says whether each still has as many seats of a date as was read; reservations that are just being written do not count.';
