update tickets set status = 'void', voided_at = $2
where reservation_id = any($1) and status = 'valid'
