select p.id as performance_id, p.sale_opens_at, p.sale_closes_at, p.starts_at, p.cancelled_at, p.version as date_version, wanted.buyer,
       exists (select from seats s where s.performance_id = p.id
               and (wanted.section is null or s.section = wanted.section)) as has_section,
       wanted.section, coalesce(has.seats, 0)::bigint as owned, has.limited_since, has.released, accounts.balance,
       clock.now as read_at
from (select coalesce($5, clock_timestamp()) as now) as clock,
     unnest($1::uuid[], $2::text[], $3::uuid[], $4::uuid[]) as wanted (performance_id, section, buyer, payer)
join performances p on p.id = wanted.performance_id
cross join lateral (
    select sum(cardinality(seats)) filter (where is_live) as seats,
           (array_agg(updated_at order by updated_at desc) filter (where has_ended))[$7] as limited_since,
           jsonb_agg(seats) filter (where is_released) as released
    from (
        select r.seats, r.updated_at,
               r.performance_id = p.id and (r.status = 'confirmed'
                   or r.status = 'held' and r.claimable_at > clock.now) as is_live,
               -- Only what was held has an end; a hold that was refused has none.
               r.status in ('expired', 'cancelled', 'failed') and r.expires_at is not null
                   and r.reason is distinct from 'performance_cancelled'
                   and r.updated_at > clock.now - $6::interval as has_ended,
               r.performance_id = p.id and r.status = 'cancelled' and r.cancellation_id is null
                   and r.updated_at > clock.now - $8::interval as is_released
        from reservations r where r.user_id = wanted.buyer and r.concert_id = p.concert_id
    ) as mine
) as has
left join accounts on accounts.user_id = wanted.payer
