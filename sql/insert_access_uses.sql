insert into access_code_uses (reservation_id, code_id)
select reservation_id, code_id from unnest($1::uuid[], $2::uuid[]) as new (reservation_id, code_id)
on conflict (reservation_id) do update set code_id = excluded.code_id
returning 1 as written
