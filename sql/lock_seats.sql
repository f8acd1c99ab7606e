select number from seats
where (performance_id, number) in (
    select performance_id, number from unnest($1::uuid[], $2::int[]) as wanted (performance_id, number)
)
order by performance_id, number
for no key update
