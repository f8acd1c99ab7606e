select number from seats
where (performance_id, number) in (
    select performance_id, number from unnest($1::uuid[], $2::int[]) as named (performance_id, number)
    union all
    select s.performance_id, s.number
    from unnest($3::uuid[], $4::text[], $5::bigint[]) as wanted (performance_id, section, most)
    cross join lateral (
        (select s.performance_id, s.number from seats s
         where s.performance_id = wanted.performance_id and (wanted.section is null or s.section = wanted.section)
           and (s.status = 'free' or s.status in ('held', 'blocked') and s.claimable_at <= clock_timestamp())
           and not exists (select from seat_places g where g.performance_id = wanted.performance_id)
         order by s.number limit wanted.most)
        union all
        (select s.performance_id, s.number from seat_places g
         join seats s on s.performance_id = g.performance_id and s.number = g.number
         where g.performance_id = wanted.performance_id and (wanted.section is null or s.section = wanted.section)
           and (s.status = 'free' or s.status in ('held', 'blocked') and s.claimable_at <= clock_timestamp())
         order by g.rank, g.number limit wanted.most)
    ) as s
)
order by performance_id, number
for no key update
