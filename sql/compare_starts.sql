select not exists (
    select from unnest($1::uuid[], $2::timestamptz[]) as known (id, starts_at)
    join performances p on p.id = known.id
    where p.starts_at <> known.starts_at
) as is_as_known
