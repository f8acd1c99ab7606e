select number from seats
where (performance_id, number) in (select * from unnest($1::uuid[], $2::int[]))
order by performance_id, number
for no key update
