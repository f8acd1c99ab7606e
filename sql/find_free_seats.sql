select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
       p.sale_opens_at, p.sale_closes_at, p.starts_at, p.cancelled_at, p.version as date_version, wanted.list, s.rank, s.row_label, s.accessible, s.companion,
       clock.now as read_at
from (select coalesce($5, clock_timestamp()) as now) as clock,
     unnest($1::int[], $2::uuid[], $3::text[], $4::bigint[]) as wanted (list, performance_id, section, most)
join performances p on p.id = wanted.performance_id
cross join lateral (
    -- A date without a plan: the numbers are the order.
    (select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
            0 as rank, null::text as row_label, false as accessible, false as companion
     from seats s
     where s.performance_id = wanted.performance_id and (wanted.section is null or s.section = wanted.section)
       and (s.status = 'free' or s.status in ('held', 'blocked') and s.claimable_at <= clock.now)
       and not exists (select from seat_places g where g.performance_id = wanted.performance_id)
     order by s.number limit wanted.most)
    union all
    (select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
            g.rank, g.row_label, g.accessible, g.companion
     from seat_places g
     join seats s on s.performance_id = g.performance_id and s.number = g.number
     where g.performance_id = wanted.performance_id and (wanted.section is null or s.section = wanted.section)
       and (s.status = 'free' or s.status in ('held', 'blocked') and s.claimable_at <= clock.now)
     order by g.rank, g.number limit wanted.most)
) as s
