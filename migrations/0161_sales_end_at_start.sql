-- The sale of a date ends when the date starts, whatever its window says.

create or replace function sale_opening(concert uuid, at timestamptz) returns timestamptz
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
