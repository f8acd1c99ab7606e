update reservations set status = 'cancelled', updated_at = $1 where id = any($2) returning 1 as written
