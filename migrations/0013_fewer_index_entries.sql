-- What a booking writes into indexes, cut down to what is read by them.

-- A booking is about its reservation, whose id it has: only sagas about something else are looked for by it.
drop index sagas_subject;
create index sagas_subject on sagas (subject_id) where subject_id <> id;

-- Whoever has not ended has an alarm, is stuck or is paused, and each of these has an index of its own.
drop index sagas_unfinished;

-- Most rows have nothing there.
alter table reservations drop constraint reservations_one_cancellation;
create unique index reservations_one_cancellation on reservations (cancellation_id) where cancellation_id is not null;
alter table ledger_entries drop constraint ledger_entries_reversed_once;
create unique index ledger_entries_reversed_once on ledger_entries (reverses_id) where reverses_id is not null;

-- A saga's row is written four times: with room on its page the new one needs no index entry.
alter table sagas set (fillfactor = 50);
alter table reservations set (fillfactor = 55);
