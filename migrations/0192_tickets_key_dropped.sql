-- no-transaction
drop index concurrently if exists tickets_key
