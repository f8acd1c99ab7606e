select s.performance_id, s.number, s.section, s.price, s.status, s.holder, s.expires_at, s.claimable_at,
       p.sale_opens_at, p.sale_closes_at, p.starts_at, p.cancelled_at, p.version as date_version, wanted.buyer, coalesce(has.seats, 0)::bigint as owned,
       has.limited_since, has.released, accounts.balance, clock.now as read_at
from (select coalesce($4, clock_timestamp()) as now) as clock,
     unnest($1::uuid[], $2::int[], $3::uuid[], $8::uuid[]) as wanted (performance_id, number, buyer, payer)
join seats s on s.performance_id = wanted.performance_id and s.number = wanted.number
join performances p on p.id = wanted.performance_id
left join lateral (
    select sum(cardinality(seats)) filter (where is_live) as seats,
           (array_agg(updated_at order by updated_at desc) filter (where has_ended))[$6] as limited_since,
           jsonb_agg(seats) filter (where is_released) as released
    from (
        select r.seats, r.updated_at,
               r.performance_id = p.id and (r.status = 'confirmed'
                   or r.status = 'held' and r.claimable_at > clock.now) as is_live,
               -- Only what was held has an end; a hold that was refused has none.
               r.status in ('expired', 'cancelled', 'failed') and r.expires_at is not null
                   -- What ended because its date was cancelled does not count against its buyer.
                   and r.reason is distinct from 'performance_cancelled'
                   and r.updated_at > clock.now - $5::interval as has_ended,
               r.performance_id = p.id and r.status = 'cancelled' and r.cancellation_id is null
                   and r.updated_at > clock.now - $7::interval as is_released
        from reservations r where r.user_id = wanted.buyer and r.concert_id = p.concert_id
    ) as mine
) as has on wanted.buyer is not null
left join accounts on accounts.user_id = wanted.payer
order by s.performance_id, s.number
