update accounts set balance = new.balance, updated_at = $1
from unnest($2::uuid[], $3::bigint[], $4::bigint[]) as new (user_id, balance, balance_then)
where accounts.user_id = new.user_id and accounts.balance = new.balance_then
returning 1 as written
