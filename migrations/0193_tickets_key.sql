-- no-transaction
create unique index concurrently tickets_key on tickets (reservation_id, seat)
