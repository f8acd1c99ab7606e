-- See 0181.
set local lock_timeout = '500ms';

lock table reservations, ledger_entries, payments in access exclusive mode;
alter table payments
    drop constraint payments_reservation,
    drop constraint payments_entry;

insert into schema_compatibility (migration, oldest_level, oldest_release) values (183, 111, '0.1.0');
