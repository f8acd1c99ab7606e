select c.id as code_id, p.id as performance_id, p.presale_opens_at, c.max_uses::bigint as max_uses, c.max_seats::bigint as max_seats,
       c.revoked_at is null and c.concert_id = p.concert_id
           and (c.performance_id is null or c.performance_id = p.id) as is_valid,
       used.uses, used.seats, clock.now as read_at
from (select coalesce($3, clock_timestamp()) as now) as clock,
     unnest($1::uuid[], $2::uuid[]) as wanted (code_id, performance_id)
join access_codes c on c.id = wanted.code_id
join performances p on p.id = wanted.performance_id
cross join lateral (
    select count(*) as uses, coalesce(sum(cardinality(r.seats)), 0)::bigint as seats
    from access_code_uses u join reservations r on r.id = u.reservation_id
    where u.code_id = c.id and (r.status = 'confirmed' or r.status = 'held' and r.claimable_at > clock.now)
) as used
