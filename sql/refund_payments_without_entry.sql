update payments_without_entry set status = 'refunded', updated_at = $2
where reservation_id = any($1) and status = 'succeeded'
