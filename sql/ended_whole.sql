select (select count(*) from ended_reservations) = (
    select count(*) from unnest($1::uuid[]) as ending (id)
    left join reservations r using (id)
    where r.id is null or r.status in ('pending', 'held')
) as is_whole
