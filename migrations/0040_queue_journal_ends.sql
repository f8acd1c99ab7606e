-- Ended places of the journal are deleted every minute: by an index, and not by reading all of it.
-- It knows of no other row, so that a change of a living one still touches no index.
create index queue_journal_ended on queue_journal (ended_at) where ended_at is not null;
