-- no-transaction
drop index concurrently if exists tickets_of_reservation
