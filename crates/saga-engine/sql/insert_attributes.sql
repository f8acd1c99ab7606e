insert into saga_attributes (saga_id, name, value)
select $1, name, value from unnest($2::text[], $3::jsonb[]) as new (name, value)
